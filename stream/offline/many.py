"""Answer utterances of many conversations as they come, in their order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

from stream.events.messages import Utterance
from stream.offline.answered import Answered
from stream.offline.loaded import LoadedModel, State


def answers_in_order(
    model: LoadedModel,
    utterances: Iterable[Utterance],
    *,
    at_once: int,
    counts: Mapping[str, int] | None = None,
) -> Iterator[tuple[Utterance, Answered | None]]:
    """Yield each utterance with its answer; None where its conversation has had its id.

    `at_once` utterances are read before they are answered (1: each as it comes); those of
    different conversations share batches. `counts`, the utterances of each conversation, frees a
    conversation's state after its last one. Raises as `LoadedModel` does.
    """
    states: dict[str, State] = {}
    left = Counter(counts or {})
    waiting = iter(utterances)
    while block := list(islice(waiting, at_once)):
        found: dict[int, Answered | None] = {}
        for batch in _batches(block):
            asked = [(states.get(block[i].conversation_id), block[i]) for i in batch]
            for i, (state, answer) in zip(batch, model.answer_each(asked), strict=True):
                found[i] = answer
                _remember(states, left, block[i].conversation_id, state, bounded=bool(counts))
        yield from ((utterance, found[i]) for i, utterance in enumerate(block))


def _batches(block: list[Utterance]) -> list[list[int]]:
    """Return the places of a block's utterances: in a batch one of each conversation."""
    batches: list[list[int]] = []
    met: Counter[str] = Counter()
    for i, utterance in enumerate(block):
        turn = met[utterance.conversation_id]
        met[utterance.conversation_id] += 1
        if turn == len(batches):
            batches.append([])
        batches[turn].append(i)
    return batches


def _remember(
    states: dict[str, State], left: Counter[str], name: str, state: State, *, bounded: bool
) -> None:
    left[name] -= 1
    if bounded and left[name] == 0:
        states.pop(name, None)
        del left[name]
    else:
        states[name] = state
