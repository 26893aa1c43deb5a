"""Results read back are what their types say: a damaged document is told at once, not by what draws it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

# What rebuilding a result from another document raises; the last for a number beyond all others.
DAMAGED = (LookupError, TypeError, AttributeError, ValueError, ArithmeticError)
T = TypeVar("T")


def checked(result: T) -> T:
    """Return a dataclass as it is; raises TypeError, naming the place, for a value that its field's type does not take.

    Whole numbers count as floats, NaN and infinities do not: no document holds them.
    """
    place = _fault(result, type(result))
    if place is not None:
        raise TypeError(f"{place.lstrip('.')} is of the wrong kind")
    return result


def _fault(value: Any, hint: Any) -> str | None:
    """Return the place in a value, "" for itself, that does not fit a type, None where all does."""
    if hint is Any:
        return None
    kind = get_origin(hint) or hint
    if is_dataclass(kind):
        kind = _dataclass
    rule = RULES.get(kind)
    if rule is None:
        return None if isinstance(value, kind) else ""
    return rule(value, hint)


def _float(value: Any, _: Any) -> str | None:
    try:
        return None if type(value) in (int, float) and math.isfinite(value) else ""
    except OverflowError:  # a whole number beyond all floats
        return ""


def _int(value: Any, _: Any) -> str | None:
    return None if type(value) is int else ""


def _union(value: Any, hint: Any) -> str | None:
    found = [_fault(value, one) for one in get_args(hint)]
    return None if None in found else max((place for place in found if place is not None), key=len)


def _tuple(value: Any, hint: Any) -> str | None:
    inside = get_args(hint)
    if not isinstance(value, tuple):
        return ""
    kinds = [inside[0]] * len(value) if inside[-1] is ... else inside
    if len(kinds) != len(value):
        return ""
    return _first((f"[{i}]", one, kind) for i, (one, kind) in enumerate(zip(value, kinds, strict=True)))


def _list(value: Any, hint: Any) -> str | None:
    if not isinstance(value, list):
        return ""
    return _first((f"[{i}]", one, get_args(hint)[0]) for i, one in enumerate(value))


def _dict(value: Any, hint: Any) -> str | None:
    if not isinstance(value, dict):
        return ""
    keys, values = get_args(hint)
    return _first((f"[{key!r}]", *pair) for key, one in value.items() for pair in ((key, keys), (one, values)))


def _dataclass(value: Any, hint: Any) -> str | None:
    if not isinstance(value, hint):
        return ""
    return _first((f".{name}", getattr(value, name), kind) for name, kind in _hints(hint))


def _first(parts: Iterable[tuple[str, Any, Any]]) -> str | None:
    """Return the first place among named values that does not fit its type."""
    return next((name + place for name, value, kind in parts if (place := _fault(value, kind)) is not None), None)


@cache
def _hints(kind: Any) -> tuple[tuple[str, Any], ...]:
    known = get_type_hints(kind)
    return tuple((field.name, known[field.name]) for field in fields(kind))


RULES: dict[Any, Callable[[Any, Any], str | None]] = {
    float: _float,
    int: _int,
    Union: _union,
    UnionType: _union,
    tuple: _tuple,
    list: _list,
    dict: _dict,
    _dataclass: _dataclass,
}
