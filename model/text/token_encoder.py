"""Raw text to token states, the input of a generative model's encoder, one utterance at a time.

The default is the sentence encoder of `model.text.sentence_encoder`, every layer frozen, the states
of its last layers averaged; a folder with a T5 (or another encoder-decoder) yields its encoder's
last states.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from model.atomic_files import write_whole
from model.data.arrays import npz
from model.data.dataset import Dialogue
from model.text.sentence_encoder import (
    OnShare,
    OpenedEncoder,
    TextEncoder,
    by_length,
    content_key,
    mixed,
    mostly_unknown,
    open_encoder,
    tokens_of,
)


class TokenEncoder:
    """A frozen encoder; `cut` counts the texts that were cut to `most_tokens`."""

    def __init__(self, opened: OpenedEncoder, most_tokens: int, remembered: int = 0) -> None:
        self.tokenizer, self._network, self.text = opened.tokenizer, opened.network, opened.text
        self.most_tokens, self.cut = min(most_tokens, opened.longest), 0
        self.width = int(opened.network.config.hidden_size)
        self._empty = torch.zeros(0, self.width, dtype=torch.float16)
        # As many of the last ones are kept as were asked for: 9 KB for a short sentence.
        self._known = lru_cache(remembered)(self._alone) if remembered else self._alone

    @classmethod
    def load(
        cls,
        folder: Path,
        text: TextEncoder | None = None,
        *,
        layers: int = 1,
        most_tokens: int,
        remembered: int = 0,
    ) -> Self:
        """Load a folder's encoder, which must be that of `text` if not None.

        Raises `EncoderMissing` if it does not load or is another.
        """
        return cls(open_encoder(folder, text, layers=layers), most_tokens, remembered)

    def states(self, sentence: str) -> Tensor:
        """Return [tokens, width] float16, run alone and unpadded; [0, width] without words."""
        tokens = self._tokens(sentence)
        return self._known(tuple(tokens)) if tokens else self._empty

    def _alone(self, tokens: tuple[int, ...]) -> Tensor:
        return self._run([list(tokens)])[0]

    def states_many(
        self, sentences: Sequence[str], on_share: OnShare | None = None
    ) -> list[Tensor]:
        """Return `states` of each, texts of one length run together: equal but for the last bits.

        For training and evaluation, not for serving. `on_share` receives (0..1].
        """
        states: list[Tensor] = [self._empty] * len(sentences)
        for i, state in by_length([self._tokens(s) for s in sentences], self._run, on_share):
            states[i] = state.clone()  # a view would keep the whole batch alive
        return states

    def knows_little_of(self, sentence: str) -> bool:
        """Return whether most tokens of a sentence stand for something that is not known."""
        tokens = tokens_of(self.tokenizer, sentence, self.most_tokens)
        return mostly_unknown(self.tokenizer, tokens)

    def _tokens(self, sentence: str) -> list[int]:
        if not sentence.strip():
            return []
        ids: list[int] = self.tokenizer(sentence, verbose=False)["input_ids"]
        if len(ids) <= self.most_tokens:
            return ids
        self.cut += 1
        return tokens_of(self.tokenizer, sentence, self.most_tokens)

    def _run(self, tokens: list[list[int]]) -> Tensor:
        with torch.inference_mode():
            out = self._network(input_ids=torch.tensor(tokens), output_hidden_states=True)
            return mixed(out.hidden_states, self.text.layers).half()


def token_states(
    encoder: TokenEncoder,
    dialogues: Sequence[Dialogue],
    *,
    cache: Path | None = None,
    on_share: OnShare | None = None,
) -> list[tuple[Tensor, ...]]:
    """Return token states of every sentence, by dialogue, cached in the folder `cache` if not None.

    Raises OSError when the cache cannot be written.
    """
    sentences = [sentence for d in dialogues for sentence in d.sentences]
    key = content_key(encoder.text, sentences, encoder.most_tokens)
    file = None if cache is None else cache / f"tokens-{key}.npz"
    if file is not None and file.is_file():
        with np.load(file, allow_pickle=False) as stored:
            whole, lengths = torch.from_numpy(stored["states"]), stored["lengths"]
            states = list(torch.split(whole, lengths.tolist()))
    else:
        states = encoder.states_many(sentences, on_share)
        if file is not None:
            lengths = np.array([len(state) for state in states], np.int64)
            arrays = {"lengths": lengths, "states": torch.cat(states).numpy()}
            write_whole(file.parent, {file.name: npz(arrays, compressed=False)})
    rest = iter(states)
    return [tuple(islice(rest, len(d))) for d in dialogues]
