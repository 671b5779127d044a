"""The torch half of `emotrack bench hrg-ssa`: an answer from words, and the same by re-encoding.

Values in, values out: clocks are passed in by `stream.bench.hrg_ssa`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from model.hrg_ssa.collate import Talk, collate_talks
from model.hrg_ssa.config import FELT
from model.hrg_ssa.model import past_of
from model.hrg_ssa.predictor import HrgSsaPredictor
from model.interface import ServingOptions, Turn
from model.serving.timing import Clock, TimedConversations
from model.text.sentence_encoder import find_encoder
from model.text.token_encoder import TokenEncoder
from state.window import Window


@dataclass
class Conversations(TimedConversations[HrgSsaPredictor]):
    """Conversations of the same sentences side by side; two speakers take turns."""

    utterances: int = 0  # answered so far, of each

    @staticmethod
    def begin(folder: Path, count: int) -> Conversations:
        """Load a checkpoint on the CPU, one thread. Raises `CheckpointError`."""
        predictor = HrgSsaPredictor.load(folder, ServingOptions(device="cpu"))
        predictor.warm_up()
        return Conversations(predictor, [Window.empty(predictor.spec) for _ in range(count)])

    def step(self, sentence: str, clock: Clock) -> float:
        """Answer one utterance of each conversation; return the seconds `predict` took."""
        speaker = f"speaker {self.utterances % 2}"
        turns = [Turn(window, speaker, {}, None, sentence) for window in self.windows]
        self.utterances += 1
        return self.predict(turns, clock)


class Reencoding:
    """The same answer without a state: every utterance of the window is encoded again."""

    def __init__(self, predictor: HrgSsaPredictor) -> None:
        checkpoint = predictor.checkpoint
        self._model, self._config = checkpoint.model(), checkpoint.config
        self._words = TokenEncoder.load(
            find_encoder(), checkpoint.text, most_tokens=self._config.most_tokens
        )

    def seconds(self, sentences: Sequence[str], clock: Clock) -> float:
        """Return the seconds of answering the last of `sentences` after the others."""
        count = len(sentences)
        every, last = torch.arange(count), torch.tensor([count - 1])
        begun = clock()
        with torch.inference_mode():
            states = tuple(self._words.states_many(sentences))
            felt = {name: torch.zeros(count, self._config.widths[name]) for name in FELT}
            speakers = tuple(f"speaker {i % 2}" for i in range(count))
            none = torch.zeros(count, len(FELT), dtype=torch.bool)
            batch = collate_talks(
                [Talk(states, **felt, present=none, speakers=speakers)], self._config
            )
            encoded = self._model.encode(*batch.inputs(every))
            memory = self._model.remember(encoded, torch.zeros(count, dtype=torch.long))
            pooled = self._model.decoder.past_keys_values(memory.pooled)
            now = type(encoded)(*(part[last] for part in encoded))
            past = past_of(batch, last, pooled, memory.nodes)
            self._model.decide(now, past, self._model.prompt(1))
        return clock() - begun
