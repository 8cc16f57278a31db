"""YAML that a user writes: a key that stands there twice is a mistake, not a second opinion."""

from __future__ import annotations

from typing import Any

import yaml


class UniqueKeyLoader(yaml.SafeLoader):
    """YAML in which a key may stand once: of two of one name, the first would vanish in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping.

        Raises:
            ConstructorError: a key that stands there twice, with its line.
        """
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str | int | float | bool | None):
                continue
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"'{key}' stands there twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def load_yaml(text: str) -> Any:
    """One document.

    Raises:
        YAMLError: no YAML, or a key that stands there twice; names the line.
        ValueError: a date that is none, such as 2026-13-01.
    """
    return yaml.load(text, UniqueKeyLoader)  # a subclass of the safe loader
