"""A rehearsal as JSON, and back. docs/rehearse.md has the format, field by field."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from enum import StrEnum
from pathlib import Path
from typing import Any

from . import summary
from .model import Rehearsal, Scenario

VERSION = 1


def render(rehearsal: Rehearsal) -> str:
    """Return one JSON object, in ASCII, with a newline at its end."""
    plain = dataclasses.asdict
    document = {"version": VERSION, "held": rehearsal.held, "summary": summary.sentence(rehearsal), **plain(rehearsal)}
    document["scenarios"] = [{**plain(row.scenario), "verdict": row.verdict} for row in summary.rows(rehearsal)]
    document["runs"] = [{**plain(run), "scenario": run.scenario.name, "drain": run.drain} for run in rehearsal.runs]
    return json.dumps(document, indent=2, allow_nan=False, default=str) + "\n"  # a path is text


def parse(text: str) -> Rehearsal:
    """Return the rehearsal that `render` made the text of. Fields that are not known are ignored.

    Raises ValueError, with a message that names the field, if it is of another version or not such a text.
    """
    document = json.loads(text, parse_constant=_no_constant)
    if not isinstance(document, dict) or document.get("version") != VERSION:
        found = document.get("version") if isinstance(document, dict) else None
        raise ValueError(f"version: {found!r} is not known; accepted: {VERSION}")
    scenarios = {scenario.name: scenario for scenario in _value(tuple[Scenario, ...], document, "scenarios", "")}
    runs = _value(tuple[dict[str, Any], ...], document, "runs", "")
    rehearsal: Rehearsal = _object(
        Rehearsal, {**document, "runs": [_with_scenario(run, scenarios) for run in runs]}, ""
    )
    return rehearsal


def _with_scenario(run: dict[str, Any], scenarios: dict[str, Scenario]) -> dict[str, Any]:
    """Return the run with its scenario in the place of the scenario's name."""
    name = run.get("scenario")
    if not isinstance(name, str) or name not in scenarios:
        raise ValueError(f"runs: {name!r} is not in scenarios")
    return {**run, "scenario": scenarios[name]}


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _value(kind: Any, found: dict[str, Any], name: str, path: str) -> Any:
    """Return the field `name` of an object as the model has it."""
    if name not in found:
        raise ValueError(f"{path}{name}: is missing")
    return _converted(kind, found[name], path + name)


def _object(kind: Any, found: Any, path: str) -> Any:
    """Return a dataclass of the model."""
    if not isinstance(found, dict):
        raise ValueError(f"{path or 'document'}: {type(found).__name__} in the place of an object")
    prefix = f"{path}." if path else ""
    hints = typing.get_type_hints(kind)
    fields = dataclasses.fields(kind)
    return kind(**{field.name: _value(hints[field.name], found, field.name, prefix) for field in fields})


def _converted(kind: Any, found: Any, path: str) -> Any:
    """Return a value as the model has it: `kind` is one of the annotations there."""
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is types.UnionType:
        return None if found is None else _converted(arguments[0], found, path)
    if typing.get_origin(kind) is tuple and isinstance(found, list):
        return tuple(_converted(arguments[0], item, f"{path}[{index}]") for index, item in enumerate(found))
    if typing.get_origin(kind) is dict and isinstance(found, dict):
        return {key: _converted(arguments[1], item, f"{path}.{key}") for key, item in found.items()}
    if kind is Any or (kind is Scenario and isinstance(found, Scenario)):
        return found
    if dataclasses.is_dataclass(kind):
        return _object(kind, found, path)
    if isinstance(kind, type) and issubclass(kind, Path | StrEnum) and isinstance(found, str):
        try:
            return kind(found)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    if kind is float and type(found) is int:
        return float(found)
    if kind in (str, int, float, bool) and type(found) is kind:
        return found
    raise ValueError(f"{path}: {type(found).__name__} is not accepted here")
