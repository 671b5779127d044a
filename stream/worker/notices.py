"""Log lines about single conversations and about servers that go and come.

Ids are named, words never. How often a line may be repeated is `throttle`'s.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import structlog

from stream.worker.pipeline import Result
from stream.worker.window_cache import Split

NAMED_AT_MOST: Final = 10_000  # split conversations that are not named again

log = structlog.get_logger()


class Notices:
    """The conversations that were named lately."""

    def __init__(self) -> None:
        self._split: OrderedDict[str, None] = OrderedDict()

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
        """Log utterances that were dropped because of a reused id."""
        for result in results:
            record, key = result.item.record, result.item.key
            assert key is not None, "only an utterance repeats an id"
            log.warning(
                "utterance dropped: its id is that of another utterance",
                per="partition",
                partition=record.partition,
                offset=record.offset,
                conversation_id=key.conversation_id,
                utterance_id=getattr(result.item.message, "utterance_id", None),
            )


class Presence:
    """Logs once when a server goes, and once when it is back. Used by one thread."""

    def __init__(self, server: str, clock_s: Callable[[], float]) -> None:
        self._gone, self._returned, self._clock_s = (
            f"{server} is away",
            f"{server} is back",
            clock_s,
        )
        self._away_since: float | None = None

    def away(self, reason: str) -> None:
        """The server does not answer, for this reason."""
        if self._away_since is None:
            self._away_since = self._clock_s()
            log.warning(self._gone, reason=reason)

    def back(self) -> None:
        """The server answers."""
        if self._away_since is not None:
            away_s = round(self._clock_s() - self._away_since, 1)
            self._away_since = None
            log.warning(self._returned, away_s=away_s)
