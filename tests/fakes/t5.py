"""A tiny random T5 in a folder, as a user's own would lie there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast, T5Config, T5Model

from model.data.dataset import SENTIMENTS
from tests.fakes.conversations import GENERATED_LABELS
from tests.fakes.encoder import WORDS


def write_tiny_t5(
    folder: Path,
    *,
    known: Sequence[str] = (*GENERATED_LABELS, *SENTIMENTS),
    gated: bool = False,
    width: int = 16,
    layers: int = 2,
    heads: int = 2,
) -> Path:
    """Write random weights and a word-level tokenizer that has the `known` words."""
    words = ["<pad>", "</s>", "<unk>", *WORDS, *known]
    numbers = {word: i for i, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(WordLevel(numbers, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", numbers["</s>"])]
    )
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", eos_token="</s>",
        model_max_length=64,
    )  # fmt: skip
    torch.manual_seed(2)
    config = T5Config(
        vocab_size=len(numbers),
        d_model=width,
        d_kv=width // heads,
        d_ff=2 * width,
        num_layers=layers,
        num_decoder_layers=layers,
        num_heads=heads,
        feed_forward_proj="gated-gelu" if gated else "relu",
    )
    T5Model(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder
