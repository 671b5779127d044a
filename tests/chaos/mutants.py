"""Workers that break one promise each, to prove that the verifier sees it: the test of the tests.

`python -m tests.chaos.mutants serve` with EMOTRACK_MUTANT set. Each mutation is a few lines over
the real worker; each is caught by the invariant named beside it, not by a crash.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from msgspec import structs

from model.interface import Prediction, Turn
from state.redis_store import RedisStore
from state.store import Restore, Save, Saved
from state.window import NO_OFFSET
from stream.worker.batcher import Item
from stream.worker.loop import Worker
from stream.worker.pipeline import Lease, Pipeline, Result, Step
from tests.fakes.predictor import SmallPredictor
from tests.integration.serve_small import serve_small


def commit_before_write() -> None:
    """Commit what was polled at once: a kill loses it (I1)."""
    read = Worker._read

    def eager(self: Worker) -> None:
        read(self)
        ends = {p: max(r.offset for r in i) + 1 for p, i in queued(self).items()}
        if ends:
            self._source.commit(ends, {p: self._partitions[p].note for p in ends})

    Worker._read = eager  # type: ignore[method-assign]


def queued(worker: Worker) -> Mapping[int, list[Any]]:
    """Records read and not answered, by partition."""
    found: dict[int, list[Any]] = {}
    for queue in worker._batcher._queues.values():
        for _, item in queue:
            found.setdefault(item.record.partition, []).append(item.record)
    return found


def no_fencing() -> None:
    """Whoever writes last wins, whatever is stored by then: a zombie takes the state back (I4)."""

    def blindly(self: RedisStore, saves: Sequence[Save]) -> list[Saved]:
        stored = self.load_many([save.key for save in saves])
        written = zip(saves, stored, strict=True)
        return self.restore_many(
            [Restore(s.key, 2**52, found.offset, s.change.after) for s, found in written]
        )

    RedisStore.save_many = blindly  # type: ignore[method-assign]


def shared_buffer() -> None:
    """All rows of a batch keep views of one buffer, which the last one has filled (I5)."""
    predict = SmallPredictor.predict

    def sharing(self: SmallPredictor, turns: Sequence[Turn]) -> list[Prediction]:
        answers = predict(self, turns)
        return [structs.replace(a, applied=answers[-1].applied) for a in answers]

    SmallPredictor.predict = sharing  # type: ignore[method-assign]


def replay_recomputed() -> None:
    """A position met again is answered again, from the state that it has already changed (I2)."""
    replay = Pipeline._replay

    def again(self: Pipeline, item: Item, found: Any) -> Result:
        lease = Lease(0, NO_OFFSET, proves_new=True)
        opened = self._open_one(item, found, lease)
        new = structs.replace(opened.question, repeats=None)  # its own id is in the state already
        return self._answer([structs.replace(opened, question=new)], Step())[0][1]

    assert replay is not again
    Pipeline._replay = again  # type: ignore[method-assign]


def dead_letter_dropped() -> None:
    """Pass over records that cannot be read, in silence (I1)."""
    refused = Pipeline._refused

    def silent(self: Pipeline, item: Item) -> Result:
        return structs.replace(refused(self, item), send=())

    Pipeline._refused = silent  # type: ignore[method-assign]


MUTANTS: Final[Mapping[str, Callable[[], None]]] = {
    mutant.__name__: mutant
    for mutant in (
        commit_before_write,
        no_fencing,
        shared_buffer,
        replay_recomputed,
        dead_letter_dropped,
    )
}


if __name__ == "__main__":
    MUTANTS[os.environ.pop("EMOTRACK_MUTANT")]()
    serve_small()
