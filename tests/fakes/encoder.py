"""A tiny random text encoder in a folder, as a user's own would lie there."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import AutoModel, BertConfig, PreTrainedTokenizerFast, RobertaConfig

WORDS = [
    "we",
    "wrote",
    "it",
    "down",
    "oh",
    "really",
    "now",
    "it",
    "is",
    "so",
    "dark",
    "there",
    "he",
    "left",
    "us",
    "early",
    "what",
    "a",
    "lovely",
    "day",
    "this",
    "smells",
    "rotten",
    "stop",
    "doing",
    "that",
    "hello",
]


def write_tiny_encoder(
    folder: Path, *, layers: int = 3, width: int = 16, seed: int = 0, kind: str = "bert"
) -> Path:
    """Write a BERT or RoBERTa of random weights with a word-level tokenizer; returns the folder."""
    words = {word: i for i, word in enumerate(dict.fromkeys(["<pad>", "<s>", "<unk>", *WORDS]))}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", bos_token="<s>",
        model_max_length=32,
    )  # fmt: skip
    torch.manual_seed(seed)
    config = BertConfig if kind == "bert" else RobertaConfig
    sizes = config(
        vocab_size=len(words),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * width,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    AutoModel.from_config(sizes).save_pretrained(folder)  # type: ignore[no-untyped-call]
    fast.save_pretrained(folder)
    return folder
