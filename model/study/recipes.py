"""Every setting of every model with value, unit and meaning: a recipe file, and docs/recipe.md.

    python -m model.study.recipes > docs/recipe.md

Both come from the fields of the dataclasses, so neither can go stale.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from typing import Any, Final, Literal, get_args, get_origin

from model.interface import DEFAULT_KIND
from model.registry import KINDS, kind_named
from model.training.options import TrainingOptions
from model.training.setting import Setting, described

# What a data set decides, unless a file does.
BY_THE_DATA: Final = ("text", "audio", "video", "persona", "sentiment")
MEANING_AT: Final = 34  # the column of a recipe file in which a setting's meaning begins
_HEAD: Final = """\
# Recipes

Written by `python -m model.study.recipes > docs/recipe.md`; do not edit.

Every setting of a training, with its default and unit. `emotrack train --show-recipe` (or `emotrack
train hrg-ssa --show-recipe`) prints the same as a file: keep the lines you change, and give it back
with `--recipe FILE`:

```yaml
recipe:
  learning_rate: 1e-3
model:
  hidden: 64
```

Options win over the file, the file over the defaults. A name that does not exist, a value of
another type and one out of bounds are refused by name. `epochs` means the same in a file and as
`--epochs`: so many passes at most, however few steps they are, unless `steps_at_least` is stated
too. Training ends earlier after `patience` epochs without a better dev score.
"""


def recipe_file(kind: str, options: TrainingOptions, command: str) -> str:
    """Return a recipe file in YAML with every setting of these options. Raises `RecipeError`."""
    recipe, model = kind_named(kind).settings(options)
    lines = [
        f"# {command}: every setting, its value, unit and meaning.",
        "# Keep the lines that you change and give the file back with --recipe FILE.",
    ]
    for section, found in (("recipe", recipe), ("model", model)):
        lines.append(f"{section}:")
        for name, value, about in _settings(found):
            stated = f"  {name}: {_yaml(value)}"
            if about.given or (section == "model" and name in BY_THE_DATA):
                stated = f"  # {name}: by {about.given or 'the data set'}"
            lines.append(f"{stated:<{MEANING_AT}}  # {_meaning(about)}".rstrip(" #"))
    return "\n".join(lines) + "\n"


def recipe_page() -> str:
    """Return docs/recipe.md."""
    return "\n".join([_HEAD, *_chapters()])


def _chapters() -> Iterator[str]:
    for kind in KINDS:
        named = kind_named(kind)
        recipe, model = named.settings(named.options())
        yield f"## {kind}{', the default model' if kind == DEFAULT_KIND else ''}\n"
        other = named.recipe("frozen", {})
        changes = {
            field.name: getattr(other, field.name)
            for field in fields(other)
            if getattr(other, field.name) != getattr(recipe, field.name)
        }
        yield "### recipe\n"
        if changes:
            yield (
                "Defaults are those of a set with sentences (`--text adapted`); in brackets those "
                "of `--text frozen` and `vectors`.\n"
            )
        yield _table(recipe, changes)
        yield "### model\n"
        yield _table(model, {})


def _table(found: Any, other: Mapping[str, Any]) -> str:
    lines = ["| setting | default | type | unit | meaning |", "|---|---|---|---|---|"]
    types = described(type(found))
    for name, value, about in _settings(found):
        default = f"`{_yaml(value)}`" if name not in BY_THE_DATA else "by the data set"
        default = f"by {about.given}" if about.given else default
        default += f" (`{_yaml(other[name])}`)" if name in other else ""
        unit = about.unit or ("none" if types[name][0] in (int, float) else "")
        cells = [f"`{name}`", default, _type(types[name][0]), unit, about.about]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _settings(found: Any) -> Iterator[tuple[str, Any, Setting]]:
    for name, (_, about) in described(type(found)).items():
        yield name, getattr(found, name), about


def _meaning(about: Setting) -> str:
    return f"[{about.unit}] {about.about}" if about.unit else about.about


def _type(type_: Any) -> str:
    if get_origin(type_) is Literal:
        return "one of " + ", ".join(get_args(type_))
    if get_origin(type_) is tuple:
        return "list"
    return {int: "whole number", float: "number", str: "text", bool: "true or false"}.get(
        type_, "`name: value` lines"
    )


def _yaml(value: Any) -> str:
    """Return a value in the notation of YAML, on one line."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_yaml(one)}" for name, one in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value)


if __name__ == "__main__":
    print(recipe_page(), end="")
