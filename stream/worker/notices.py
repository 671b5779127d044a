"""Log lines about single conversations, limited so that a flood of causes is no flood of lines.

Ids are named, words never.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from stream.worker.pipeline import Result
from stream.worker.window_cache import Split

EVERY_S: Final = 60.0  # a line of a partition about reused ids
NAMED_AT_MOST: Final = 10_000  # split conversations that are not named again

log = structlog.get_logger()


@dataclass(slots=True)
class Reused:
    """Utterances dropped on a partition since its last line, and the last of them."""

    last: Result
    count: int = 0


class Notices:
    """The lines logged lately, by partition and conversation. `clock_s` is monotonic."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self._split: OrderedDict[str, None] = OrderedDict()
        self.waiting: dict[int, Reused] = {}  # counted and not logged yet, by partition
        self._logged_at: dict[int, float] = {}

    def splits(self, splits: Iterable[Split]) -> None:
        """Log each conversation that is on several partitions once."""
        for split in splits:
            if split.conversation_id in self._split:
                continue
            self._split[split.conversation_id] = None
            if len(self._split) > NAMED_AT_MOST:
                self._split.popitem(last=False)
            log.warning(
                "conversation on several partitions: its answers may lack context and say moved",
                conversation_id=split.conversation_id,
                partitions=list(split.partitions),
            )

    def reused(self, results: Sequence[Result]) -> None:
        """Log utterances that were dropped because of a reused id, once a minute a partition."""
        for result in results:
            waiting = self.waiting.setdefault(result.item.record.partition, Reused(result))
            waiting.last, waiting.count = result, waiting.count + 1
        self.due()

    def due(self) -> None:
        """Log what was counted and not logged, of the partitions whose minute has passed."""
        now = self._clock_s()
        for partition, reused in list(self.waiting.items()):
            if now - self._logged_at.get(partition, now - EVERY_S) < EVERY_S:
                continue
            self._logged_at[partition] = now
            del self.waiting[partition]
            record, key = reused.last.item.record, reused.last.item.key
            assert key is not None, "only an utterance repeats an id"
            log.warning(
                "utterances dropped: their ids are those of other utterances",
                partition=partition,
                count=reused.count,
                last_conversation_id=key.conversation_id,
                last_utterance_id=getattr(reused.last.item.message, "utterance_id", None),
                last_offset=record.offset,
            )
