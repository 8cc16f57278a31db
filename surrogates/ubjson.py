"""Boosters from files that nobody vouches for, looked through before XGBoost's own reader sees them.

That reader trusts what a file says of itself: a forged length asks for any amount of memory, a forged tree
points outside its arrays.  Here the file is read once in Python, by bounds that the bytes themselves set.
Format: Universal Binary JSON, draft 12 (ubjson.org), as XGBoost 3 writes it: numbers big-endian, containers
optionally with a type ($) and a count (#).
"""

from __future__ import annotations

from typing import Any

import numpy as np

_NUMBERS = {
    b"i": ">i1", b"U": ">u1", b"I": ">i2", b"l": ">i4", b"L": ">i8", b"d": ">f4", b"D": ">f8",
}  # fmt: skip
_CONSTANTS: dict[bytes, Any] = {b"T": True, b"F": False, b"Z": None}
MAX_DEPTH = 16
"""XGBoost's models are nested half as deep."""

MAX_TARGETS = 4096


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self.at = data, 0

    def take(self, n: int) -> bytes:
        if not 0 <= n <= len(self._data) - self.at:
            raise ValueError(f"{n} bytes announced at byte {self.at}; {len(self._data) - self.at} are left")
        self.at += n
        return self._data[self.at - n : self.at]

    def peek(self) -> bytes:
        return self._data[self.at : self.at + 1]

    def number(self, marker: bytes) -> Any:
        dtype = np.dtype(_NUMBERS[marker])
        return np.frombuffer(self.take(dtype.itemsize), dtype)[0].item()

    def count(self) -> int:
        marker = self.take(1)
        if marker not in (b"i", b"U", b"I", b"l", b"L"):
            raise ValueError(f"a length of type {marker!r} at byte {self.at}")
        return int(self.number(marker))

    def text(self) -> str:
        return self.take(self.count()).decode("utf-8")

    def value(self, marker: bytes, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH} at byte {self.at}")
        if marker in _CONSTANTS:
            return _CONSTANTS[marker]
        if marker in _NUMBERS:
            return self.number(marker)
        if marker == b"S":
            return self.text()
        if marker == b"C":
            return self.take(1).decode("ascii")
        if marker == b"[":
            return self.array(depth + 1)
        if marker == b"{":
            return self.mapping(depth + 1)
        raise ValueError(f"unknown type {marker!r} at byte {self.at - 1}")

    def header(self) -> tuple[bytes | None, int | None]:
        """Type and count of a container, where it gives them."""
        kind = count = None
        if self.peek() == b"$":
            self.take(1)
            kind = self.take(1)
            if self.peek() != b"#":
                raise ValueError(f"a type without a count at byte {self.at}")
        if self.peek() == b"#":
            self.take(1)
            count = self.count()
            if not 0 <= count <= len(self._data):
                raise ValueError(
                    f"{count} entries announced at byte {self.at}; {len(self._data)} bytes in all"
                )
        return kind, count

    def array(self, depth: int) -> Any:
        kind, count = self.header()
        if kind in _NUMBERS and count is not None:
            dtype = np.dtype(_NUMBERS[kind])
            return np.frombuffer(self.take(count * dtype.itemsize), dtype)
        found: list[Any] = []
        while len(found) != count:
            marker = kind or self.take(1)
            if marker == b"]" and count is None:
                break
            found.append(self.value(marker, depth))
        return found

    def mapping(self, depth: int) -> dict[str, Any]:
        kind, count = self.header()
        found: dict[str, Any] = {}
        n = 0
        while n != count:
            if count is None and self.peek() == b"}":
                self.take(1)
                break
            name = self.text()
            found[name] = self.value(kind or self.take(1), depth)
            n += 1
        return found


def read_ubjson(data: bytes) -> Any:
    """The value that some bytes hold; arrays of numbers as numpy arrays.

    Raises:
        ValueError: bytes that are not UBJSON, announce more than there is, or go on after their value.
    """
    reader = _Reader(data)
    value = reader.value(reader.take(1), 0)
    if reader.at != len(data):
        raise ValueError(f"{len(data) - reader.at} bytes after the end of the model")
    return value


def check_booster(data: bytes) -> None:
    """Refuse what is not a regression by boosted trees whose nodes point to later nodes and to features there are.

    Raises:
        ValueError, KeyError, TypeError, IndexError: not such a model.
    """
    learner = read_ubjson(data)["learner"]
    parameters, booster = learner["learner_model_param"], learner["gradient_booster"]
    model = booster["model"]
    trees = model["trees"]
    n_features, n_targets = int(parameters["num_feature"]), int(parameters["num_target"])
    if booster["name"] != "gbtree" or learner["objective"]["name"] != "reg:squarederror":
        raise ValueError(
            f"a '{booster['name']}' of objective '{learner['objective']['name']}'; not made by hadas"
        )
    if int(parameters["num_class"]) != 0 or not 1 <= n_targets <= MAX_TARGETS:
        raise ValueError(f"a model of {parameters['num_class']} classes and {n_targets} targets")
    if int(model["gbtree_model_param"]["num_trees"]) != len(trees) or model["cats"]["enc"]:
        raise ValueError("a number of trees that is not theirs, or categories")
    groups = np.asarray(model["tree_info"], dtype=np.int64)
    ends = np.asarray(model["iteration_indptr"], dtype=np.int64)
    if groups.shape != (len(trees),) or not ((groups >= 0) & (groups < n_targets)).all():
        raise ValueError("trees of targets that there are not")
    if len(ends) < 2 or ends[0] != 0 or ends[-1] != len(trees) or (np.diff(ends) < 0).any():
        raise ValueError("rounds that do not fit the trees")
    _check_trees(trees, n_features)


def _check_trees(trees: list[dict[str, Any]], n_features: int) -> None:
    sizes = np.array([len(tree["left_children"]) for tree in trees], dtype=np.int64)
    widths = np.array([int(tree["tree_param"]["size_leaf_vector"]) for tree in trees], dtype=np.int64)
    announced = [int(tree["tree_param"]["num_nodes"]) for tree in trees]
    if (
        (sizes < 1).any()
        or announced != sizes.tolist()
        or not ((widths >= 1) & (widths <= MAX_TARGETS)).all()
    ):
        raise ValueError("a tree without nodes, or with another number of them than it says")

    def joined(name: str, expected: Any) -> Any:
        if [len(tree[name]) for tree in trees] != expected.tolist():
            raise ValueError(f"'{name}' of a tree has another length than its nodes")
        return np.concatenate([np.asarray(tree[name]) for tree in trees])

    left, right = (joined(name, sizes).astype(np.int64) for name in ("left_children", "right_children"))
    joined("parents", sizes)
    joined("default_left", sizes)
    joined("base_weights", sizes * widths)
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    row, size = np.arange(len(left)) - starts, np.repeat(sizes, sizes)
    inner = left != -1
    for children in (left[inner], right[inner]):
        # Children come after their parents, so that no walk goes round in circles.
        if not ((children > row[inner]) & (children < size[inner])).all():
            raise ValueError("a node of a tree has a child that is no later node")
    if not ((right[~inner] >= -1) & (right[~inner] < size[~inner])).all():
        raise ValueError("a leaf of a tree points outside")
    split = joined("split_indices", sizes).astype(np.int64)
    if joined("split_type", sizes).any() or not ((split >= 0) & (split < max(1, n_features))).all():
        raise ValueError("a tree splits by a feature that there is not")
    values = [joined("split_conditions", sizes).astype(np.float64)]
    values += [np.asarray(tree["leaf_weights"], dtype=np.float64) for tree in trees if "leaf_weights" in tree]
    if not all(np.isfinite(found).all() for found in values):
        raise ValueError("a tree holds what is not a finite number")
    leaves = np.add.reduceat((~inner).astype(np.int64), np.cumsum(sizes) - sizes)
    for tree, width, n_leaves in zip(trees, widths, leaves, strict=True):
        if width > 1 and len(tree["leaf_weights"]) != width * n_leaves:
            raise ValueError("a tree has other leaves than it says")
