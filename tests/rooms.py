"""Measure the structure of the product: `python -m tests.rooms` prints it, `test_rooms` holds it.

Reads the code as text (imports anywhere in a file count, those of a function and those for types
alone too) and the layers from the import contracts in pyproject.toml.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from model.registry import KINDS
from tests.conftest import ROOT

PACKAGES: Final = ("stream", "model", "state")
QUESTION_WORDS: Final = frozenset(("What", "Whether", "How", "Where", "Who", "Which", "Whose"))
# Files that may name a model: the line in the registry, the row of the study, and what measures the
# worth of a model's parts, which a model need not have.
NAMED_BY: Final = frozenset(("model.registry", "model.study.rows", "model.study.ablations"))
Graph = Mapping[str, frozenset[str]]


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured row: what must hold, and what does."""

    name: str
    before: str  # the rooms
    must: int | None  # None: printed only, as features add to it
    value: int
    found: tuple[str, ...] = ()  # the offenders, for people

    @property
    def holds(self) -> bool:
        return self.must is None or self.value <= self.must


def sources() -> dict[str, Path]:
    """Return every product module by its dotted name; a room's `__init__` has the room's name."""
    named: dict[str, Path] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            named[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return named


@cache
def tree_of(path: Path) -> ast.Module:
    """Return the parsed file."""
    return ast.parse(path.read_text("utf-8"))


def import_graph(modules: Mapping[str, Path]) -> dict[str, frozenset[str]]:
    """Return which product modules each one imports, wherever in its file."""
    return {
        name: frozenset(_imported(tree_of(path), modules)) - {name}
        for name, path in modules.items()
    }


def _imported(tree: ast.Module, modules: Mapping[str, Path]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield from (
                    m for m in (inner if inner in modules else node.module,) if m in modules
                )
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)


def circles(graph: Graph) -> list[tuple[str, ...]]:
    """Return the sets of modules that import each other, however far round (Kosaraju, 1978)."""
    order: list[str] = []
    seen: set[str] = set()
    for start in graph:
        _finish(start, graph, seen, order)
    back: dict[str, set[str]] = {name: set() for name in graph}
    for name, targets in graph.items():
        for target in targets:
            back[target].add(name)
    found, seen = [], set()
    for start in reversed(order):
        component: list[str] = []
        _finish(start, back, seen, component)
        if len(component) > 1:
            found.append(tuple(sorted(component)))
    return found


def _finish(
    start: str, graph: Mapping[str, Iterable[str]], seen: set[str], order: list[str]
) -> None:
    """Append `start` and all it reaches to `order`, each after what it reaches."""
    if start in seen:
        return
    seen.add(start)
    stack = [(start, iter(graph[start]))]
    while stack:
        name, rest = stack[-1]
        step = next((target for target in rest if target not in seen), None)
        if step is None:
            order.append(name)
            stack.pop()
        else:
            seen.add(step)
            stack.append((step, iter(graph[step])))


def contracts() -> list[dict[str, Any]]:
    """Return the import contracts of pyproject.toml."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    found: list[dict[str, Any]] = settings["tool"]["importlinter"]["contracts"]
    return found


def floors() -> dict[str, tuple[str, int]]:
    """Return package and floor (0 on top) of each room or file.

    From the contracts' layers; every model of the registry is on PCGNet's floor.
    """
    found: dict[str, tuple[str, int]] = {}
    for contract in contracts():
        for container in contract.get("containers", ()):
            for floor, layer in enumerate(contract["layers"]):
                for name in layer.replace("|", ":").split(":"):
                    found[f"{container}.{name.strip()}"] = (container, floor)
    return found | dict.fromkeys(KINDS.values(), found[KINDS["pcgnet"]])


def up_going(graph: Graph) -> list[str]:
    """Return imports of a higher floor or a higher package."""
    of = floors()
    found = []
    for name, targets in graph.items():
        for target in targets:
            here, there = of.get(_room(name)), of.get(_room(target))
            if here is None or there is None:  # a room's `__init__` above it, say `model`
                continue
            higher = PACKAGES.index(there[0]) < PACKAGES.index(here[0])
            two_models = {_room(name), _room(target)} <= set(KINDS.values())
            if (
                higher
                or (there[0] == here[0] and there[1] < here[1])
                or (two_models and _room(name) != _room(target))
            ):
                found.append(f"{name} -> {target}")
    return found


def without_floor(modules: Mapping[str, Path]) -> list[str]:
    """Return modules that no contract gives a floor."""
    known = floors()
    return [name for name in modules if "." in name and _room(name) not in known]


def _room(module: str) -> str:
    return ".".join(module.split(".")[:2])


def named_one_by_one(modules: Mapping[str, Path]) -> list[str]:
    """Return files of ours, not rooms, that protected and forbidden contracts name."""
    named = (
        entry
        for contract in contracts()
        if contract["type"] != "layers"
        for key in ("source_modules", "forbidden_modules", "allowed_importers")
        for entry in contract.get(key, ())
    )
    return sorted({n for n in named if n in modules and modules[n].name != "__init__.py"})


def opening_words(paths: Iterable[Path]) -> list[str]:
    """Return docstrings that open with a question word, by file and line."""
    found = []
    for path in paths:
        for node in ast.walk(tree_of(path)):
            kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
            if not isinstance(node, kinds):
                continue
            words = (ast.get_docstring(node) or "").split()
            if words and words[0].strip(",:") in QUESTION_WORDS:
                line = getattr(node, "lineno", 1)
                found.append(f"{path.relative_to(ROOT)}:{line}")
    return found


def names_a_model(modules: Mapping[str, Path], graph: Graph) -> list[str]:
    """Return files outside the models' folders that import a model or decide by its name."""
    kinds = tuple(KINDS.values())
    found = []
    for name, path in modules.items():
        if name.startswith(kinds) or name.startswith("stream.bench") or name in NAMED_BY:
            continue
        compared = any(
            isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value in KINDS
            for node in ast.walk(tree_of(path))
            if isinstance(node, ast.Compare)
            for part in ast.walk(node)
        )
        if compared or any(target.startswith(kinds) for target in graph[name]):
            found.append(name)
    return found


def callers_of(function: str, modules: Mapping[str, Path]) -> list[str]:
    """Return the modules that call a function of that name."""
    return [
        name
        for name, path in modules.items()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == function
    ]


def measured() -> list[Figure]:
    """Measure everything that can be read from the code."""
    modules = sources()
    graph = import_graph(modules)
    loops = [" ".join(circle) for circle in circles(graph)]
    flat = {p: [path.name for path in (ROOT / p).glob("*.py")] for p in PACKAGES}
    others = (path for folder in ("tests", "deploy") for path in (ROOT / folder).rglob("*.py"))
    texts = opening_words([*modules.values(), *others])
    named = named_one_by_one(modules)
    up = up_going(graph)
    alone = without_floor(modules)
    meanings = callers_of("prediction_event", modules)
    models = names_a_model(modules, graph)
    lines = sum(len(path.read_text("utf-8").splitlines()) for path in modules.values())
    return [
        Figure("circles of files", "2", 0, len(loops), tuple(loops)),
        Figure("imports of a higher floor", "5", 0, len(up), tuple(up)),
        Figure("files without a floor", "-", 0, len(alone), tuple(alone)),
        Figure("files directly in stream/", "102", 8, len(flat["stream"])),
        Figure("files directly in model/", "71", 12, len(flat["model"])),
        Figure("files named one by one in contracts", "45", 10, len(named), tuple(named)),
        Figure("places where an answer's meaning is written", "3", 1, len(meanings)),
        Figure("files that name a model, outside its folder", "16", 2, len(models), tuple(models)),
        Figure("docstrings that open with a question word", "281", 0, len(texts), tuple(texts)),
        Figure("product lines", "30,737", None, lines),
    ]


def main() -> None:
    """Print the table, and what exceeds it."""
    table = Table("", "before the rooms", "at most", "is", title="structure")
    figures = measured()
    for figure in figures:
        must = "-" if figure.must is None else f"{figure.must:,}"
        mark = "" if figure.holds else " (!)"
        table.add_row(figure.name, figure.before, must, f"{figure.value:,}{mark}")
    console = Console()
    console.print(table)
    for figure in figures:
        if not figure.holds:
            console.print(figure.name, *figure.found, sep="\n  ", highlight=False)


if __name__ == "__main__":
    main()
