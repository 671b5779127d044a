"""The error tree of `stream`: faults a user can cure, each in one sentence that names the cure.

The console prints the message of an `EmotrackError` and ends with its `exit_code`, without a
traceback; anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

from typing import ClassVar


class EmotrackError(Exception):
    """Root of the errors a user can cause or cure. The message says what to do, in one line."""

    exit_code: ClassVar[int] = 1


class ConfigError(EmotrackError):
    """A setting or an argument that cannot be used; names it and the cure."""

    exit_code = 2


class BrokerUnreachable(EmotrackError):
    """No Kafka broker answers at the address given."""

    exit_code = 3


class TopicMissing(EmotrackError):
    """A topic does not exist; holds the command that creates it."""

    exit_code = 4


class TopicUnfit(EmotrackError):
    """A topic exists with settings that would break a promise (timestamps, sizes)."""

    exit_code = 4


class StoreUnfit(EmotrackError):
    """The state store is unreachable, too old, or may evict."""

    exit_code = 5


class ModelUnfit(EmotrackError):
    """The checkpoint or the sentence encoder cannot be used."""

    exit_code = 6


class SourceError(EmotrackError):
    """A source of utterances cannot be read; names the file and the line."""

    exit_code = 7


class InvalidUtterance(EmotrackError):
    """An utterance the worker would dead-letter, refused before it is sent; `code` tells why."""

    exit_code = 8

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


class NotDelivered(EmotrackError):
    """The broker did not acknowledge a record in time; it may or may not be in the log."""

    exit_code = 9


class AccessRefused(EmotrackError):
    """The broker refuses our credentials or certificate, or we refuse its certificate."""

    exit_code = 11


class StateMissing(EmotrackError):
    """Nothing is stored of a conversation; names the places that were searched."""

    exit_code = 12


class LetterUnfit(EmotrackError):
    """A dead letter does not exist, or cannot be sent again; names the reason."""

    exit_code = 13
