"""Prometheus' text format of a registry's families.

prometheus_client's own writer spends most of its time on checks of names that cannot change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

SUFFIX: Final = {"counter": "_total", "info": "_info"}  # of the family's name on the page
SHOWN_AS: Final = {"info": "gauge", "unknown": "untyped"}


class Family(Protocol):
    """One metric with its samples: (name, labels, value, ...)."""

    @property
    def name(self) -> str: ...
    @property
    def documentation(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def samples(self) -> Sequence[Any]: ...


def to_text(families: Iterable[Family]) -> bytes:
    """Write the page."""
    lines: list[str] = []
    for family in families:
        name = family.name + SUFFIX.get(family.type, "")
        lines.append(f"# HELP {name} {escaped_help(family.documentation)}")
        lines.append(f"# TYPE {name} {SHOWN_AS.get(family.type, family.type)}")
        lines += [f"{s.name}{labels_text(s.labels)} {s.value!r}" for s in family.samples]
    return ("\n".join(lines) + "\n").encode()


def labels_text(labels: Mapping[str, str]) -> str:
    """`{name="value",…}`; nothing where there are none."""
    if not labels:
        return ""
    return "{" + ",".join([f'{name}="{escaped(value)}"' for name, value in labels.items()]) + "}"


def escaped(value: str) -> str:
    """A label's value with backslash, quote and line end escaped."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def escaped_help(text: str) -> str:
    """Help may hold quotes, but neither backslash nor line end."""
    return text.replace("\\", "\\\\").replace("\n", "\\n")
