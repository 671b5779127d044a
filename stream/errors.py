"""The error tree of `stream`: faults a user can cure, each in one sentence that names the cure.

The console prints the message of an `EmotrackError` and ends with its `exit_code`, without a
traceback; anything else is a bug, and one line that says where (`stream.main.unknown`).
"""

from __future__ import annotations

from typing import ClassVar


class EmotrackError(Exception):
    """Root of the errors a user can cause or cure. The message says what to do, in one line."""

    exit_code: ClassVar[int] = 1

    def __init_subclass__(cls, *, exit_code: int | None = None) -> None:
        """Set the exit code where it is not that of the base."""
        if exit_code is not None:
            cls.exit_code = exit_code


class ConfigError(EmotrackError, exit_code=2):
    """A setting or an argument that cannot be used; names it and the cure."""


class BrokerUnreachable(EmotrackError, exit_code=3):
    """No Kafka broker answers at the address given."""


class TopicMissing(EmotrackError, exit_code=4):
    """A topic does not exist; holds the command that creates it."""


class TopicUnfit(EmotrackError, exit_code=4):
    """A topic exists with settings that would break a promise (timestamps, sizes)."""


class StoreUnfit(EmotrackError, exit_code=5):
    """The state store is unreachable, too old, or may evict."""


class StoreUnreachable(StoreUnfit):
    """No state store answers at the address given; it may be back by itself."""


class ModelUnfit(EmotrackError, exit_code=6):
    """The checkpoint or the sentence encoder cannot be used."""


class SourceError(EmotrackError, exit_code=7):
    """A source of utterances cannot be read; names the file and the line."""


class InvalidUtterance(EmotrackError, exit_code=8):
    """An utterance the worker would not answer, refused before it is sent; `code` tells why."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


class NotDelivered(EmotrackError, exit_code=9):
    """The broker did not acknowledge a record in time; it may or may not be in the log."""


class AccessRefused(EmotrackError, exit_code=11):
    """The broker refuses our credentials or certificate, or we refuse its certificate."""


class StateMissing(EmotrackError, exit_code=12):
    """Nothing is stored of a conversation; names the places that were searched."""


class LetterUnfit(EmotrackError, exit_code=13):
    """A dead letter does not exist, or cannot be sent again; names the reason."""


class Unanswered(EmotrackError, exit_code=14):
    """Utterances that were sent and checked have no answer; counts them by what became of them."""
