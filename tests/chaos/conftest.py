"""One broker and one Redis for all scenarios of a run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.plant import Servers, servers
from tests.conftest import enter


@pytest.fixture(scope="session")
def chaos_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Servers that scenarios may break; each leaves them running."""
    context = servers(tmp_path_factory.mktemp("chaos"))
    yield enter(context)
    context.__exit__(None, None, None)


@pytest.fixture(scope="session")
def default_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """The same, with the broker's own defaults for groups: sessions of 45 s by its protocol."""
    context = servers(tmp_path_factory.mktemp("defaults"), defaults=True)
    yield enter(context)
    context.__exit__(None, None, None)
