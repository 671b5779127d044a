"""A small spec, utterances built from their offset, and conversations as comparable values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from state.window import (
    FIELDS_BYTES,
    Applied,
    ArraySpec,
    Change,
    Conversation,
    Recurrence,
    StateSpec,
    apply,
    open_at,
)


@pytest.fixture
def make_spec() -> Callable[..., StateSpec]:
    """A spec of a few bytes; arguments are those of `Recurrence`, and `model` names the weights."""

    def make(*, model: str = "m1", **recurrence: Any) -> StateSpec:
        return StateSpec(
            utterance=(ArraySpec("f", (3, 2)), ArraySpec("p", (5,))),
            conversation=(ArraySpec("ctx_h", (2, 2)),),
            speaker=(ArraySpec("party_h", (3, 2)),),
            recurrence=Recurrence(**recurrence),
            model_digest=model,
        )

    return make


@pytest.fixture
def say() -> Callable[..., Change]:
    """Open and apply one utterance whose arrays follow from its offset alone."""

    def one(
        spec: StateSpec,
        before: Conversation | None,
        offset: int,
        *,
        speaker_id: str = "ada",
        utterance_id: str | None = None,
        fields: bytes | None = None,
        timestamp_ms: int | None = None,
        truncated: bool = False,
        **more: Any,
    ) -> Change:
        at = 1_000_000 + offset if timestamp_ms is None else timestamp_ms
        opening = open_at(before, spec=spec, timestamp_ms=at, offset=offset, truncated=truncated)
        rng = np.random.default_rng(offset)
        sizes = (spec.row_bytes, spec.conversation_bytes, spec.speaker_bytes)
        row, arrays, speaker = (rng.integers(0, 256, n, np.uint8) for n in sizes)
        return apply(
            opening,
            Applied(row, arrays, speaker),
            recurrence=spec.recurrence,
            utterance_id=f"u{offset}" if utterance_id is None else utterance_id,
            fields=rng.bytes(FIELDS_BYTES) if fields is None else fields,
            speaker_id=speaker_id,
            offset=offset,
            timestamp_ms=at,
            **more,
        )

    return one


@pytest.fixture
def plain() -> Callable[[Conversation | None], Any]:
    """A conversation as nested tuples: equal exactly when every value and order in it is."""

    def flatten(c: Conversation | None) -> Any:
        if c is None:
            return None
        w = c.window
        speakers = tuple(
            (name, s.last_index, s.last_utterance_id, s.arrays.tobytes())
            for name, s in w.speakers.items()
        )
        rows = tuple(row.tobytes() for row in w.rows)
        arrays = None if w.arrays is None else w.arrays.tobytes()
        window = (rows, w.row_speakers, w.row_utterances, arrays, speakers, w.count)
        return (window, c.session, c.offset, c.clock_ms, c.recent, c.alert, c.id_reused)

    return flatten
