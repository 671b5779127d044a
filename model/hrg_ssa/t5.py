"""A pretrained T5 under HRG-SSA, from a local folder: its encoder, its decoder, its vocabulary.

The encoder is frozen and read through `model.text.token_encoder`; the decoder's weights start that
of `model.hrg_ssa.model`, which has the same blocks and others of its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.errors import EncoderMissing
from model.hrg_ssa.label_words import LabelWords, tokenizer_label_words
from model.text.sentence_encoder import load_network


@dataclass(frozen=True, slots=True)
class T5Start:
    """An HRG-SSA's start from a T5: sizes for its settings, and weights by this model's names."""

    sizes: dict[str, Any]
    words: LabelWords
    weights: dict[str, Tensor]


def is_t5(folder: Path) -> bool:
    """Return whether a folder is of a T5, by its config.json."""
    return bool(json.loads((folder / "config.json").read_text("utf-8")).get("model_type") == "t5")


def t5_start(folder: Path, labels: Sequence[str]) -> T5Start:
    """Read a T5's decoder.

    Raises `LabelWordsError` where a label is not one token of its vocabulary, `EncoderMissing`
    where its feed-forward layers are gated (T5 1.1), which this decoder lacks.
    """
    network, tokenizer = load_network(folder)
    c = network.config
    if c.is_gated_act or c.dense_act_fn != "relu":
        raise EncoderMissing(
            f"{folder} is a T5 with gated feed-forward layers: use T5 1.0 (t5-base)"
        )
    words = tokenizer_label_words(tokenizer, labels)
    layers = int(c.num_decoder_layers)
    sizes = {
        "text": int(c.d_model),
        "width": int(c.d_model),
        "heads": int(c.num_heads),
        "head_width": int(c.d_kv),
        "feed_forward": int(c.d_ff),
        "graph_heads": int(c.num_heads),
        "decoder_layers": layers,
        "node_layers": tuple(range(layers // 2, layers)),
    }
    return T5Start(sizes, words, _weights(network, words.size, layers))


@torch.no_grad()
def _weights(network: Any, vocabulary: int, layers: int) -> dict[str, Tensor]:
    state = dict(network.state_dict())
    embed = state["shared.weight"][:vocabulary]
    missing = vocabulary - len(embed)  # markers beyond the table: the mean word, slightly moved
    if missing > 0:
        more = embed.mean(0) + 0.1 * embed.std() * torch.randn(missing, embed.shape[1])
        embed = torch.cat((embed, more))
    position = "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    ours = {
        "decoder.embed.weight": embed,
        "decoder.position.table.weight": state[position],
        "decoder.norm.weight": state["decoder.final_layer_norm.weight"],
    }
    for i in range(layers):
        theirs, mine = f"decoder.block.{i}.layer.", f"decoder.blocks.{i}."
        for part in "qkvo":
            ours[f"{mine}own.{part}.weight"] = state[f"{theirs}0.SelfAttention.{part}.weight"]
            across = state[f"{theirs}1.EncDecAttention.{part}.weight"]
            ours[f"{mine}crosses.0.{part}.weight"] = across
        for part in ("wi", "wo"):
            ours[f"{mine}{part}.weight"] = state[f"{theirs}2.DenseReluDense.{part}.weight"]
        for number, name in enumerate(("own_norm", "cross_norms.0", "feed_norm")):
            ours[f"{mine}{name}.weight"] = state[f"{theirs}{number}.layer_norm.weight"]
    # the decoder's input keeps the size of the encoder's states, which T5 scales itself
    size = state["encoder.final_layer_norm.weight"].square().mean().sqrt()
    ours["text_norm.weight"] = torch.full((embed.shape[1],), float(size))
    return {name: value.detach().clone().float() for name, value in ours.items()}
