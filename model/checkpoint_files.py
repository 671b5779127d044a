"""A model on disk: a folder of weights, settings and a digest over both. No pickle anywhere.

model.safetensors    matrices as float16 (the model *is* its float16 weights), the rest float32
config.json          sizes, labels, recurrence, calibration, thresholds, extractors, version, and
                     which text encoder the text vectors come from
encoder.safetensors  what training added to that encoder (`text.weight_delta`), where it was tuned
digest               sha256 over the files above: names the model in states and predictions
README.md            the model card
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from model.atomic_files import write_whole
from model.errors import CheckpointError
from model.interface import ModelInfo
from model.serving.calibration import Calibration, Thresholds
from model.text.sentence_encoder import TextEncoder

FORMAT: Final = 3  # 1 knew no text encoder, 2 no evidence head
WEIGHTS_FILE: Final = "model.safetensors"
CONFIG_FILE: Final = "config.json"
ENCODER_FILE: Final = "encoder.safetensors"
DIGEST_FILE: Final = "digest"
CARD_FILE: Final = "README.md"
DEFAULT: Final = "pcgnet-meld"
SHIPPED: Final = {"pcgnet": DEFAULT, "hrg-ssa": "hrg-ssa-meld"}  # by the model's name


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What any loaded checkpoint holds beside its model's settings and text encoder.

    `weights` are float32 tensors that float16 matrices were read into.
    """

    weights: Mapping[str, Tensor]
    calibration: Calibration
    thresholds: Thresholds
    extractors: Mapping[str, str]
    name: str
    version: str
    digest: str

    def info(
        self,
        labels: tuple[str, ...],
        sentiment: Mapping[str, str],
        inputs: Mapping[str, int],
        tuned: frozenset[str],
    ) -> ModelInfo:
        """What the checkpoint says of itself, in a worker's words."""
        return ModelInfo(
            name=self.name,
            version=self.version,
            digest=self.digest,
            labels=labels,
            sentiment=sentiment,
            inputs=inputs,
            extractors=self.extractors,
            tuned=tuned,
            calibration=str(self.calibration),
            abstain_below=self.thresholds.abstain_below,
            shift_threshold=self.thresholds.shift,
            shift_exit=self.thresholds.shift_exit,
        )


def find_checkpoint(named: Path | None) -> Path:
    """The folder given, or the shipped one of a model's name ("hrg-ssa"), or the default.

    A folder of that name wins. Raises `CheckpointError` in a build that does not ship it.
    """
    if named is None:
        return default_checkpoint()
    if str(named) in SHIPPED and not named.exists():
        return default_checkpoint(SHIPPED[str(named)])
    return named


def default_checkpoint(name: str = DEFAULT) -> Path:
    """Where a shipped checkpoint lies; raises `CheckpointError` in a build without it."""
    folder = Path(__file__).parent / "checkpoints" / name
    if not (folder / WEIGHTS_FILE).is_file():
        raise CheckpointError(
            f"this build ships no checkpoint at {folder}: name one with --checkpoint, "
            "or make one with `emotrack train`"
        )
    return folder


def write_files(
    folder: Path,
    state: Mapping[str, Tensor],
    settings: Mapping[str, Any],
    text: TextEncoder | None,
    card: str,
) -> str:
    """Write any model's checkpoint: weights, settings, text encoder and card; return its digest."""
    config: dict[str, Any] = {"format": FORMAT, **settings}
    weights = save(_stored(state))
    tuned = save(dict(text.delta)) if text is not None and text.delta else b""
    if text is not None:
        named = {"base": text.base, "name": text.name, "layers": text.layers}
        config["text_encoder"] = named | {"tuned": bool(tuned)}
    described = (json.dumps(config, indent=1, sort_keys=True) + "\n").encode()
    digest = _digest(weights, described, tuned)
    files = {WEIGHTS_FILE: weights, CONFIG_FILE: described, CARD_FILE: card.encode()}
    files |= ({ENCODER_FILE: tuned} if tuned else {}) | {DIGEST_FILE: f"{digest}\n".encode()}
    _write(folder, files, remove=() if tuned else (ENCODER_FILE,))
    return digest


def write_card(folder: Path, card: str) -> None:
    """Put a card beside what was written: no part of the digest. Raises `CheckpointError`."""
    _write(folder, {CARD_FILE: card.encode()})


def _write(folder: Path, files: Mapping[str, bytes], remove: Collection[str] = ()) -> None:
    try:
        write_whole(folder, files, remove)
    except OSError as error:
        raise CheckpointError(
            f"{folder} cannot be written ({error.strerror}): nothing in it was changed; make room "
            "or name another folder, and run it again"
        ) from error


def read_files(folder: Path) -> tuple[bytes, bytes, bytes, str]:
    """Weights, settings, what was tuned of the encoder, and their digest, which must be recorded.

    Raises `CheckpointError`.
    """
    weights, settings = _read(folder, WEIGHTS_FILE), _read(folder, CONFIG_FILE)
    tuned = _read(folder, ENCODER_FILE) if (folder / ENCODER_FILE).exists() else b""
    digest = _digest(weights, settings, tuned)
    recorded = _read(folder, DIGEST_FILE).decode(errors="replace").strip()
    if recorded != digest:
        raise CheckpointError(
            f"{folder / DIGEST_FILE} does not match {WEIGHTS_FILE} and {CONFIG_FILE}: a file is "
            "missing, damaged or was edited; copy the checkpoint again or train it anew"
        )
    return weights, settings, tuned, digest


def kind_of(folder: Path) -> str:
    """Which model a checkpoint is of, by the name in its settings. Raises `CheckpointError`."""
    with fitting(folder):
        return str(json.loads(_read(folder, CONFIG_FILE))["name"])


@contextmanager
def fitting(folder: Path) -> Iterator[None]:
    """Say of whatever does not parse that the checkpoint is of another version."""
    try:
        yield
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"checkpoint {folder} does not fit this version of emotrack ({error}); "
            "use the version that wrote it or train it anew"
        ) from error


def described(config: Mapping[str, Any], weights: bytes, digest: str) -> dict[str, Any]:
    """The fields of `Described`."""
    return {
        "weights": {name: tensor.float() for name, tensor in load(weights).items()},
        "calibration": calibration_from(config["calibration"]),
        "thresholds": Thresholds(**config["thresholds"]),
        "extractors": config["extractors"],
        "name": config["name"],
        "version": config["version"],
        "digest": digest,
    }


def calibration_from(stored: Mapping[str, Any]) -> Calibration:
    """Read what `asdict` and JSON made of one; without a map where an older version wrote it."""
    maps = {name: tuple(stored.get(name, ())) for name in ("offsets", "shift_map")}
    return Calibration(**{**stored, **maps})


def text_encoder_from(named: Mapping[str, Any] | None, tuned: bytes) -> TextEncoder | None:
    """What the settings and encoder.safetensors say of the text encoder."""
    if named is None:
        return None
    if bool(tuned) != named["tuned"]:
        raise ValueError(f"{ENCODER_FILE} and {CONFIG_FILE} disagree")
    delta = load(tuned) if tuned else {}
    return TextEncoder(named["base"], named["name"], named["layers"], delta)


def _stored(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    stored = {}
    for name, value in state.items():
        kept = value.detach().to("cpu", torch.float32)
        matrix = kept.dim() >= 2 and "bias" not in name and "b_" not in name
        stored[name] = kept.to(torch.float16).contiguous() if matrix else kept.contiguous()
    return stored


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{folder / name} cannot be read ({error.strerror}): a checkpoint is a folder with "
            f"{WEIGHTS_FILE}, {CONFIG_FILE} and {DIGEST_FILE}, as `emotrack train` writes it"
        ) from error


def _digest(weights: bytes, settings: bytes, tuned: bytes) -> str:
    return hashlib.sha256(weights + settings + tuned).hexdigest()
