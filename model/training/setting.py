"""The meaning of a setting of a recipe or a model: for people, and to check a file against."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints


@dataclass(frozen=True, slots=True)
class Setting:
    """The description of one setting; its type and its default are those of its field."""

    about: str
    unit: str = ""
    least: float | None = None
    most: float | None = None
    given: str = ""  # what it follows from, where no file may state it


def described(kind: type) -> dict[str, tuple[Any, Setting]]:
    """Return the type and the description of each field, in order, by name.

    A class that only changes a default inherits the description.
    """
    found: dict[str, tuple[Any, Setting]] = {}
    types = get_type_hints(kind)
    for name in (field.name for field in fields(kind)):
        found[name] = types[name], Setting("")
        for base in kind.__mro__:
            hint = get_type_hints(base, include_extras=True).get(name)
            about = [one for one in get_args(hint) if isinstance(one, Setting)]
            if get_origin(hint) is Annotated and about:
                found[name] = types[name], about[0]
                break
    return found


def checked_value(value: Any, type_: Any, about: Setting) -> Any:
    """Return the value as its type has it; raise ValueError saying what was expected.

    YAML 1.1 reads 1e-3 as a text: a text that is a number is one.
    """
    if about.given:
        raise ValueError(f"follows from {about.given}: leave it out")
    if get_origin(type_) is Literal:
        if value not in get_args(type_):
            raise ValueError(f"is {value!r}, must be one of {', '.join(get_args(type_))}")
        return value
    if is_dataclass(type_):
        return _checked_fields(value, type_)
    if get_origin(type_) is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"is {value!r}, expected a list")
        return tuple(checked_value(one, get_args(type_)[0], about) for one in value)
    if type_ in (int, float):
        return _number(value, type_, about)
    if type_ in (str, bool) and not isinstance(value, type_):
        raise ValueError(f"is {value!r}, expected {'a text' if type_ is str else 'true or false'}")
    return value


def _checked_fields(value: Any, type_: Any) -> dict[str, Any]:
    """Check a mapping that holds some fields of a dataclass."""
    known = get_type_hints(type_)
    if not isinstance(value, Mapping):
        raise ValueError(f"is {value!r}, expected `name: value` lines of {', '.join(known)}")  # noqa: TRY004 -- one class for what a file has wrong
    checked = dict(value)
    for name in known.keys() & checked.keys():
        try:
            checked[name] = checked_value(checked[name], known[name], Setting(""))
        except ValueError as error:
            raise ValueError(f"has `{name}`, which {error}") from error
    return checked


def _number(value: Any, type_: type, about: Setting) -> Any:
    wanted = "a whole number" if type_ is int else "a number"
    bounds = [f"{about.least:g} or more"] if about.least is not None else []
    bounds += [f"{about.most:g} or less"] if about.most is not None else []
    expected = f"is {value!r}, expected {wanted}" + (f", {' and '.join(bounds)}" if bounds else "")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(expected)  # noqa: TRY004 -- as above
    try:
        number = float(value)
    except ValueError:
        raise ValueError(expected) from None
    whole = type_ is float or number.is_integer()
    low = -math.inf if about.least is None else about.least
    high = math.inf if about.most is None else about.most
    if not (math.isfinite(number) and whole and low <= number <= high):
        raise ValueError(expected)
    return type_(number)
