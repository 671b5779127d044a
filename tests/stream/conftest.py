"""Small models for the worker's tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from model.interface import Predictor
from tests.fakes.predictor import SmallPredictor


@pytest.fixture
def predictor() -> Predictor:
    """A fresh small model."""
    return SmallPredictor()


@pytest.fixture(scope="session")
def make_predictor() -> Callable[..., Predictor]:
    """Make small models with settings of their own."""
    return SmallPredictor
