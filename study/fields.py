"""What the study files of all systems share: sections, errors that name every field, commented templates.

The first field of a file may be ``system``: ``edge`` names the second system (see :mod:`.edge`); a file
without it is a study of backbone, exits and clocks (see :mod:`.config`).
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import ConfigError
from ..spaces.userfile import read_user_text

EDGE = "edge"
"""Value of the field ``system`` of a study of exits, quantization and mapping."""

_COMMENT_COLUMN = 27


class Section(BaseModel):
    """A section of a study file: nothing unknown in it, nothing converted in silence."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


Model = TypeVar("Model", bound=Section)


# -- reading -----------------------------------------------------------------------------------------


def read_study_file(path: Path) -> Any:
    """The parsed document of a study file.

    Raises:
        ConfigError: missing, empty or unreadable file, bad YAML (with the line), or of a system that there is not.
    """
    what = f"study file {path}"
    text = read_user_text(path, "study file", if_absent=f"write one with: hadas init {path}")
    document = parse_yaml(text, what)
    if document is None:
        raise ConfigError(f"{what}: is empty; write one with: hadas init {path} --force")
    if isinstance(document, dict) and document.get("system", EDGE) != EDGE:
        raise ConfigError(
            f"{what}: 'system' = {document['system']!r}: no such system; known: '{EDGE}' (exits, quantization and mapping); "
            "a study of backbone, exits and clocks has no such field"
        )
    return document


def is_edge(document: Any) -> bool:
    """Whether a parsed study file is of the system ``edge``."""
    return isinstance(document, dict) and document.get("system") == EDGE


def parse_yaml(text: str, what: str) -> Any:
    """A YAML document; ``what`` starts the message.

    Raises:
        ConfigError: not YAML, with the line where it is known.
    """
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{what}{line}: not YAML ({problem})") from error
    except ValueError as error:  # a date that is none, such as 2026-13-01
        raise ConfigError(f"{what}: not YAML ({error})") from error


def validated(model: type[Model], document: Any, *, source: str) -> Model:
    """Check a parsed document against the fields of a kind of study.

    Raises:
        ConfigError: names every field at fault; for an unknown field, the nearest known one.
    """
    if not isinstance(document, dict):
        raise ConfigError(f"{source}: a study is a mapping of fields, not {type(document).__name__}")
    try:
        return model.model_validate(document)
    except ValidationError as error:
        problems = [_explain(model, problem) for problem in error.errors()]
        raise ConfigError(f"{source}: " + "; ".join(problems)) from error


def _explain(model: type[BaseModel], problem: Any) -> str:
    location = ".".join(str(part) for part in problem["loc"])
    if problem["type"] != "extra_forbidden":
        message = problem["msg"].removeprefix("Value error, ")
        # Fields that do not go together are named in the message; their whole section says no more.
        whole = problem["type"] == "value_error" and isinstance(problem["input"], dict)
        if not location:
            return str(message)
        return f"'{location}': {message}" if whole else f"'{location}' = {problem['input']!r}: {message}"
    near = difflib.get_close_matches(
        str(problem["loc"][-1]), _known_fields(model, problem["loc"][:-1]), n=1, cutoff=0.5
    )
    return f"'{location}': no such field" + (f"; did you mean '{near[0]}'?" if near else "")


def _known_fields(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    for part in location:
        annotation = model.model_fields[str(part)].annotation
        if not isinstance(annotation, type) or not issubclass(annotation, BaseModel):
            return []
        model = annotation
    return list(model.model_fields)


# -- writing -----------------------------------------------------------------------------------------


def written(
    text: str, model: type[Model], presets: Mapping[str, Mapping[str, Any]], name: str, preset: str,
    changes: Mapping[str, Any] | None,
) -> str:  # fmt: skip
    """The commented YAML text that ``hadas init`` writes.

    Args:
        text: the template, see :func:`commented`.
        changes: fields that differ from the preset; those of a section as a mapping.

    Raises:
        ConfigError: no preset of that name, or a change that no study may have.
    """
    if preset not in presets:
        raise ConfigError(f"no preset '{preset}'; known: {sorted(presets)}")
    config = validated(model, merged(presets[preset], changes or {}), source=f"preset {preset}")
    return commented(text, name, config)


def merged(preset: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A preset with some fields changed; those of a section are given as a mapping."""
    document = dict(preset)
    for name, value in changes.items():
        document[name] = {**document.get(name, {}), **value} if isinstance(value, dict) else value
    return document


def commented(text: str, name: str, config: BaseModel) -> str:
    """A template of a study file with the values of a configuration, its comments in one column.

    Args:
        text: with ``{section.field}`` for every value and ``{name}`` for the file's.
    """
    fields_as_yaml = {
        key: SimpleNamespace(**{field: _as_yaml(v) for field, v in value.items()})
        if isinstance(value, dict)
        else _as_yaml(value)
        for key, value in config.model_dump(mode="json").items()
    }
    lines = text.format(name=name, **fields_as_yaml).splitlines()
    return "".join(_with_comment_in_line(line) + "\n" for line in lines)


def _as_yaml(value: Any) -> str:
    """A value as it stands behind a field's colon."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=math.inf)
    return text.removesuffix("\n").removesuffix("\n...")


def _with_comment_in_line(line: str) -> str:
    field, mark, comment = line.partition("  # ")
    return f"{field.rstrip():<{_COMMENT_COLUMN - 2}}  # {comment}" if mark else line


# -- comparing ---------------------------------------------------------------------------------------


def difference(
    defaults: dict[str, Any], old: dict[str, Any], new: dict[str, Any], free: AbstractSet[str]
) -> list[str]:
    """Lines ``field: old -> new`` for every field that differs and may not.

    A field that a study began without, because there was none yet, counts as its default: that is
    what was done before it could be said.

    Args:
        free: fields, as ``section.field``, that may differ.
    """
    return _difference(_overlaid(defaults, old), new, "", free)


def _overlaid(defaults: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """``values`` with what is missing in them, or in their sections, from ``defaults``."""
    found = defaults | values
    for key, default in defaults.items():
        if isinstance(default, dict) and isinstance(found[key], dict):
            found[key] = _overlaid(default, found[key])
    return found


def _difference(old: dict[str, Any], new: dict[str, Any], prefix: str, free: AbstractSet[str]) -> list[str]:
    lines: list[str] = []
    for key in sorted(set(old) | set(new)):
        name = f"{prefix}{key}"
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += _difference(before, after, f"{name}.", free)
        elif before != after and name not in free:
            lines.append(f"{name}: {before!r} -> {after!r}")
    return lines
