"""Read a Dockerfile into stages of instructions, and find what packages bring, for the tests."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


@dataclass
class Stage:
    """One FROM and what follows it; `instructions` are (KEYWORD, rest on one line)."""

    name: str
    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, keyword: str) -> list[str]:
        return [rest for word, rest in self.instructions if word == keyword]

    def environment(self) -> dict[str, str]:
        pairs = (pair for rest in self.all("ENV") for pair in rest.split())
        return dict(pair.split("=", 1) for pair in pairs)


def read_stages(dockerfile: Path) -> dict[str, Stage]:
    """The stages by name, in order. Comments go, continued lines are joined."""
    text = re.sub(r"^\s*#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE)
    stages: dict[str, Stage] = {}
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if not line.strip():
            continue
        keyword, rest = line.split(None, 1)
        if keyword == "FROM":
            base, _, name = rest.partition(" AS ")
            stages[name] = Stage(name, base)
        else:
            list(stages.values())[-1].instructions.append((keyword, rest.strip()))
    return stages


def inherited(stages: dict[str, Stage], name: str) -> list[Stage]:
    """A stage and those it is built FROM, the outermost base first."""
    stage = stages[name]
    below = inherited(stages, stage.base) if stage.base in stages else []
    return [*below, stage]


def closure(name: str, extra: str) -> set[str]:
    """The distributions that a requirement brings on this machine, by their installed metadata."""
    found: set[str] = set()
    waiting = {(name, extra)}
    seen: set[tuple[str, str]] = set()
    while waiting:
        seen.add(current := waiting.pop())
        found.add(canonicalize_name(current[0]))
        try:
            requires = distribution(current[0]).requires or []
        except PackageNotFoundError:
            continue
        for wanted in map(Requirement, requires):
            if any(
                wanted.marker is None or wanted.marker.evaluate({"extra": each})
                for each in ("", current[1])
            ):
                waiting |= {(wanted.name, inner) for inner in wanted.extras or {""}} - seen
    return found
