"""The demo's conversations."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

import msgspec

from stream.events.messages import Utterance

CONVERSATIONS: Final = ("call", "attic", "kitchen")


def conversations() -> dict[str, list[Utterance]]:
    """Return the demo's conversations by name, in spoken order."""
    decoder = msgspec.json.Decoder(Utterance)
    folder = files("stream.local") / "demo_conversations"
    return {
        name: [decoder.decode(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        for name in CONVERSATIONS
    }


def demo_sentences() -> list[str]:
    """Return all sentences of the demo's conversations."""
    return [u.text for spoken in conversations().values() for u in spoken if u.text]
