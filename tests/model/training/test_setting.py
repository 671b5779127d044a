"""Settings: each is described, a file's values are checked, and the page is what the code says."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from model.errors import RecipeError
from model.hrg_ssa.config import HrgSsaConfig
from model.hrg_ssa.recipe import HrgRecipe
from model.pcgnet.config import PcgnetConfig
from model.pcgnet.kind import PcgnetOptions
from model.pcgnet.recipe import Recipe
from model.registry import KINDS, kind_named
from model.study.recipes import recipe_file, recipe_page
from model.training.options import Run
from model.training.setting import Setting, checked_value, described
from model.training.settings import changes_of
from state.window import Recurrence
from tests.conftest import ROOT


@pytest.mark.parametrize("kind", [Recipe, PcgnetConfig, HrgRecipe, HrgSsaConfig])
def test_every_setting_is_described_and_every_number_has_bounds(kind: type) -> None:
    for name, (type_, about) in described(kind).items():
        assert about.about, name
        assert about.least is not None or type_ not in (int, float), name


def test_the_page_of_recipes_is_what_the_code_says() -> None:
    """Mended by `python -m model.study.recipes > docs/recipe.md`."""
    assert (ROOT / "docs" / "recipe.md").read_text("utf-8") == recipe_page()


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_shown_recipe_given_back_changes_nothing(kind: str, tmp_path: Path) -> None:
    named = kind_named(kind)
    shown = recipe_file(kind, named.options(), f"emotrack train {kind}")
    file = tmp_path / "shown.yaml"
    file.write_text(shown, "utf-8")
    assert named.settings(named.options(recipe=file)) == named.settings(named.options())
    recipe, _ = named.settings(named.options())
    assert set(yaml.safe_load(shown)["recipe"]) == set(described(type(recipe)))


@pytest.mark.parametrize(
    ("value", "type_", "about", "found"),
    [
        ("1e-3", float, Setting(""), 0.001),  # what YAML 1.1 makes of 1e-3
        (1, float, Setting(""), 1.0),
        (3, int, Setting("", least=1), 3),
        ("log-sum", Literal["fixed", "log-sum"], Setting(""), "log-sum"),
        ([1, 2], tuple[int, ...], Setting(""), (1, 2)),
        ({"window": 3}, Recurrence, Setting(""), {"window": 3}),
    ],
)
def test_a_value_of_the_type_is_taken(value: Any, type_: Any, about: Setting, found: Any) -> None:
    taken = checked_value(value, type_, about)
    assert (taken, type(taken)) == (found, type(found))


@pytest.mark.parametrize(
    ("value", "type_", "about", "says"),
    [
        ("fast", float, Setting(""), "is 'fast', expected a number"),
        (True, int, Setting(""), "is True, expected a whole number"),
        (2.5, int, Setting(""), "is 2.5, expected a whole number"),
        (None, float, Setting(""), "is None, expected a number"),
        (float("nan"), float, Setting(""), "expected a number"),
        (-1, float, Setting("", least=0), "is -1, expected a number, 0 or more"),
        (7, float, Setting("", least=0, most=1), "expected a number, 0 or more and 1 or less"),
        ("x", Literal["a", "b"], Setting(""), "must be one of a, b"),
        (3, tuple[int, ...], Setting(""), "expected a list"),
        (["x"], tuple[int, ...], Setting(""), "expected a whole number"),
        (3, Recurrence, Setting(""), "expected `name: value` lines of window"),
        ({"window": "wide"}, Recurrence, Setting(""), "has `window`, which is 'wide'"),
        (["a"], tuple[str, ...], Setting("", given="the data set"), "follows from the data set"),
    ],
)
def test_a_value_of_another_type_is_said_to_be_one(
    value: Any, type_: Any, about: Setting, says: str
) -> None:
    with pytest.raises(ValueError) as raised:
        checked_value(value, type_, about)
    assert says in str(raised.value)


@pytest.mark.parametrize(
    ("content", "options", "meant"),
    [
        ("recipe: {epochs: 2}", {}, (2, 1)),
        ("recipe: {epochs: 2}", {"epochs": 3}, (3, 1)),
        ("recipe: {epochs: 2, steps_at_least: 90}", {}, (2, 90)),
        ("recipe: {patience: 2}", {"epochs": 3}, (3, 1)),
        ("recipe: {patience: 2}", {}, (None, None)),
    ],
)
def test_epochs_mean_the_same_in_a_file_and_as_an_option(
    tmp_path: Path, content: str, options: dict[str, Any], meant: tuple[int | None, int | None]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(content, "utf-8")
    made = PcgnetOptions(recipe=file, **options)
    changes, _ = changes_of(made, Run(command=""), Recipe, PcgnetConfig)
    assert (changes.get("epochs"), changes.get("steps_at_least")) == meant


def test_a_file_that_is_no_text_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="cannot read"):
        changes_of(PcgnetOptions(recipe=file), Run(command=""), Recipe, PcgnetConfig)
