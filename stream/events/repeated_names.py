"""Find a field that a JSON object has twice, with two values.

JSON leaves open which of them counts, and most readers keep the last in silence: one of two texts,
or one of two speakers, would be lost. For these two every record is looked at by counting bytes
(another field only where one of them may repeat); only what may have a repeat is read again.
"""

from __future__ import annotations

import json
from typing import Any, Final

from stream.events.messages import Utterance
from stream.events.poison import Reason, Rejected

_FIELDS: Final = frozenset(Utterance.__struct_fields__)
_SPEAKER: Final = b'"speaker_id"'
_TEXT: Final = b'"text"'  # also the name of a modality in `features`
_TEXTS: Final = (b'"text":"', b'"text": "')


def may_repeat(value: bytes) -> bool:
    """Return whether an object may have its text or its speaker twice; 2 us for 3 KB."""
    if value.count(_SPEAKER) > 1:
        return True
    if value.count(_TEXT) < 2:
        return False
    return b'"features"' not in value or sum(map(value.count, _TEXTS)) > 1


def require_once(value: bytes) -> None:
    """Raise `Rejected` for an object that has one of our fields twice, with two values.

    Returns for what is no JSON: its reader names that better.
    """
    outer: list[tuple[str, Any]] = []

    def keep(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal outer
        outer = pairs  # the last call is that of the outermost object
        return dict(pairs)

    try:
        found = json.loads(value, object_pairs_hook=keep, parse_int=str)
    except (ValueError, RecursionError):
        return
    if not isinstance(found, dict):
        return
    for name, one in outer:
        if name in _FIELDS and one != found[name]:
            raise Rejected(
                Reason.BAD_JSON,
                f"field `{name}` is there twice, with two values: which of them counts is not "
                "defined in JSON. Send it once",
            )
