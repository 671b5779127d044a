"""Raw text to token states: what a generative model's encoder hears, one utterance at a time.

The default is the sentence encoder of `model.text.sentence_encoder`, every layer frozen, the states
of its last layers averaged; a folder with a T5 (or another encoder-decoder) gives its encoder's
last states.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from model.atomic_files import write_whole
from model.data.arrays import npz
from model.data.dataset import Dialogue
from model.text.sentence_encoder import TextEncoder, content_key, mixed, open_encoder, same_length


class TokenEncoder:
    """A frozen encoder; `cut` counts the texts that were longer than is read."""

    def __init__(self, tokenizer: Any, network: Any, text: TextEncoder, most_tokens: int) -> None:
        self.tokenizer, self._network, self.text = tokenizer, network, text
        self.most_tokens, self.cut = most_tokens, 0
        self.width = int(network.config.hidden_size)

    @classmethod
    def load(
        cls, folder: Path, text: TextEncoder | None = None, *, layers: int = 1, most_tokens: int
    ) -> Self:
        """Load a folder's encoder, the one that `text` names where it is given.

        Raises `EncoderMissing` if it will not load or is not the one a checkpoint was made with.
        """
        opened = open_encoder(folder, text, layers=layers)
        most = min(most_tokens, opened.longest)
        return cls(opened.tokenizer, opened.network, opened.text, most)

    def states(self, sentence: str) -> Tensor:
        """[tokens, width] float16 of one text, run alone and unpadded; [0, width] without words."""
        tokens = self._tokens(sentence)
        return self._run([tokens])[0] if tokens else self._nothing()

    def states_many(
        self, sentences: Sequence[str], on_share: Callable[[float], None] | None = None
    ) -> list[Tensor]:
        """As `states`, texts of one length together: equal but for the last bits.

        For training and evaluation, not for serving. `on_share` hears (0..1].
        """
        tokens = [self._tokens(sentence) for sentence in sentences]
        states: list[Tensor] = [self._nothing()] * len(tokens)
        spoken = [i for i, found in enumerate(tokens) if found]
        done = 0
        for batch in same_length([len(tokens[i]) for i in spoken]):
            numbers = [spoken[i] for i in batch]
            found = self._run([tokens[i] for i in numbers])
            for i, state in zip(numbers, found, strict=True):
                states[i] = state.clone()  # a view would keep the whole batch alive
            done += len(numbers)
            if on_share:
                on_share(done / len(spoken))
        return states

    def _tokens(self, sentence: str) -> list[int]:
        if not sentence.strip():
            return []
        ids: list[int] = self.tokenizer(sentence, verbose=False)["input_ids"]
        if len(ids) <= self.most_tokens:
            return ids
        self.cut += 1
        limit = self.most_tokens
        kept: list[int] = self.tokenizer(sentence, truncation=True, max_length=limit)["input_ids"]
        return kept

    def _run(self, tokens: list[list[int]]) -> Tensor:
        with torch.inference_mode():
            out = self._network(input_ids=torch.tensor(tokens), output_hidden_states=True)
            return mixed(out.hidden_states, self.text.layers).half()

    def _nothing(self) -> Tensor:
        return torch.zeros(0, self.width, dtype=torch.float16)


def token_states(
    encoder: TokenEncoder,
    dialogues: Sequence[Dialogue],
    *,
    cache: Path | None = None,
    on_share: Callable[[float], None] | None = None,
) -> list[tuple[Tensor, ...]]:
    """Token states of every sentence, by dialogue; kept in the folder `cache` where one is given.

    Raises OSError when the cache cannot be written.
    """
    sentences = [sentence for d in dialogues for sentence in d.sentences]
    key = content_key(encoder.text, sentences, encoder.most_tokens)
    file = None if cache is None else cache / f"tokens-{key}.npz"
    if file is not None and file.is_file():
        states = _read(file)
    else:
        states = encoder.states_many(sentences, on_share)
        if file is not None:
            _write(file, states)
    ends = np.cumsum([len(d) for d in dialogues]).tolist()
    starts = [0, *ends[:-1]]
    return [tuple(states[i:j]) for i, j in zip(starts, ends, strict=True)]


def _write(file: Path, states: Sequence[Tensor]) -> None:
    lengths = np.array([len(state) for state in states], np.int64)
    arrays = {"lengths": lengths, "states": torch.cat(list(states)).numpy()}
    write_whole(file.parent, {file.name: npz(arrays, compressed=False)})


def _read(file: Path) -> list[Tensor]:
    with np.load(file, allow_pickle=False) as arrays:
        everything, lengths = torch.from_numpy(arrays["states"]), arrays["lengths"].tolist()
    return list(torch.split(everything, lengths))
