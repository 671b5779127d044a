"""A sentence encoder while it is tuned: the upper layers are trained, the lower ones run once.

The states of frozen layers never change, so those below the trained layers are computed once and
stored; an epoch of half the layers takes half the time of an epoch of all.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from model.errors import EncoderMissing
from model.text.sentence_encoder import (
    TextEncoder,
    apply_delta,
    by_length,
    delta_of,
    mixed,
    open_encoder,
    tokens_of,
)

CHUNK = 24  # sentences run together, sorted by length for little padding


class TunedEncoder(nn.Module):
    """The trained upper layers of an encoder, with the base weights to save them as a delta."""

    def __init__(self, folder: Path, *, trained: int, layers: int) -> None:
        """Train the last `trained` layers and average the states of the last `layers`.

        The state right below the trained layers can be averaged too. Raises `EncoderMissing` for an
        encoder that is no stack of layers (as BERT and RoBERTa are).
        """
        super().__init__()
        opened = open_encoder(folder)
        network = opened.network
        stack = getattr(getattr(network, "encoder", None), "layer", None)
        if not isinstance(stack, nn.ModuleList):
            raise EncoderMissing(
                f"{folder} cannot be tuned: only encoders built like BERT can; use --text frozen"
            )
        if not 1 <= trained <= len(stack) or layers > trained + 1:
            raise EncoderMissing(
                f"the encoder in {folder} has {len(stack)} layers: cannot train {trained} of them "
                f"and average {layers}"
            )
        self.width = int(network.config.hidden_size)
        self.layers, self.first = layers, len(stack) - trained
        self.base, self.name = opened.text.base, opened.text.name
        self._opened = opened  # not a module: its parameters are not trained
        self.upper = self._upper_of(network)

    def _upper_of(self, network: Any) -> Any:
        upper = _with_layers(network, list(network.encoder.layer)[self.first :])
        upper.embeddings = _Passed()
        upper.pooler = None  # unused
        return upper

    @torch.no_grad()
    def lower(self, sentences: Sequence[str]) -> list[Tensor]:
        """Return the states below the trained layers, [tokens, width] float16 a sentence."""
        network, tokenizer = self._opened.network, self._opened.tokenizer
        below = _with_layers(network, list(network.encoder.layer)[: self.first]).eval()
        tokens = [tokens_of(tokenizer, sentence, self._opened.longest) for sentence in sentences]
        states: list[Tensor] = [torch.empty(0)] * len(tokens)

        def run(ids: list[list[int]]) -> Tensor:
            state: Tensor = below(input_ids=torch.tensor(ids)).last_hidden_state
            return state.half()

        for i, state in by_length(tokens, run):
            states[i] = state.clone()
        return states

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """Return vectors of length 1, [N, width], from the states of `lower`."""
        order = sorted(range(len(states)), key=lambda i: len(states[i]))
        vectors = []
        for at in range(0, len(order), CHUNK):
            part = [states[i] for i in order[at : at + CHUNK]]
            x = pad_sequence(part, batch_first=True).float()  # [n, tokens, width]
            lengths = torch.tensor([len(state) for state in part])
            there = (torch.arange(x.shape[1]) < lengths[:, None]).float()
            out = self.upper(inputs_embeds=x, attention_mask=there, output_hidden_states=True)
            y = mixed(out.hidden_states, self.layers)
            vectors.append((y * there[..., None]).sum(1) / there.sum(1, keepdim=True))
        back = torch.empty(len(order), dtype=torch.long)
        back[torch.tensor(order)] = torch.arange(len(order))
        return nn.functional.normalize(torch.cat(vectors)[back], dim=1)

    def text_encoder(self) -> TextEncoder:
        """Return the part that a checkpoint stores."""
        tuned = {}
        for name, value in self.upper.named_parameters():
            number, _, rest = name.removeprefix("encoder.layer.").partition(".")
            # in the whole encoder layers count from the bottom
            tuned[f"encoder.layer.{int(number) + self.first}.{rest}"] = value
        delta = delta_of(dict(self._opened.network.named_parameters()), tuned)
        return TextEncoder(self.base, self.name, self.layers, delta)

    def as_saved(self) -> TunedEncoder:
        """Return a copy with the weights as a checkpoint restores them, in evaluation mode."""
        saved = copy.copy(self)
        network = copy.deepcopy(self._opened.network)
        apply_delta(network, self.text_encoder().delta)
        saved._modules = {"upper": self._upper_of(network)}
        return saved.eval()


class _Passed(nn.Module):
    """Pass states to the upper layers, in place of the embeddings."""

    def forward(self, *, inputs_embeds: Tensor, **_: Any) -> Tensor:
        return inputs_embeds


def _with_layers(network: Any, layers: Sequence[nn.Module]) -> Any:
    """Return a copy of the network with these layers only; nothing is shared with it."""
    whole, network.encoder.layer = network.encoder.layer, nn.ModuleList()
    part = copy.deepcopy(network)
    network.encoder.layer = whole
    part.encoder.layer = nn.ModuleList(copy.deepcopy(layer) for layer in layers)
    return part
