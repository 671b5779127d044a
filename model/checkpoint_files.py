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
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from model.atomic_files import write_whole
from model.errors import CheckpointError
from model.interface import DEFAULT_KIND, ModelInfo
from model.serving.calibration import Calibration, Thresholds
from model.text.sentence_encoder import TextEncoder

if TYPE_CHECKING:  # scikit-learn comes with them: not for a process that only serves
    from model.data.dataset import Dialogue
    from model.scoring.answers import Answers, WholeLogits

FORMAT: Final = 3  # 1 knew no text encoder, 2 no evidence head
WEIGHTS_FILE: Final = "model.safetensors"
CONFIG_FILE: Final = "config.json"
ENCODER_FILE: Final = "encoder.safetensors"
DIGEST_FILE: Final = "digest"
CARD_FILE: Final = "README.md"
CHECKPOINTS: Final = Path(__file__).parent / "checkpoints"  # what is shipped


class ModelConfig(Protocol):
    """What is read of any model's settings."""

    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def sentiment(self) -> Mapping[str, str]: ...
    @property
    def classes(self) -> int: ...
    @property
    def widths(self) -> Mapping[str, int]: ...


class Saved(Protocol):
    """A model that can be saved: a torch module whose `config` is a dataclass."""

    @property
    def config(self) -> Any: ...
    def state_dict(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedCheckpoint(ABC):
    """A checkpoint in memory; a model derives its own, which answers whole conversations.

    `weights` are float32 tensors that float16 matrices were read into.
    """

    config: ModelConfig
    text: TextEncoder | None = None  # None: text vectors of an encoder we do not know
    weights: Mapping[str, Tensor]
    calibration: Calibration
    thresholds: Thresholds
    extractors: Mapping[str, str]
    name: str
    version: str
    digest: str

    @abstractmethod
    def answers(self, dialogues: Sequence[Dialogue], encoder: Path | None) -> Answers:
        """Answer whole dialogues under the stored precision, to be scored.

        Sentences are read through the checkpoint's text encoder, whose base is in the folder
        `encoder` (None: the installed one). Raises `EncoderMissing`.
        """

    @abstractmethod
    def whole(
        self, dialogues: Sequence[Dialogue], encoder: Path | None, told: Sequence[int] | None
    ) -> WholeLogits:
        """Answer whole dialogues in one pass, all utterances one after the other.

        `told` has a label number for each utterance: what a model that reads its own earlier
        answers is to read in their place. Others ignore it. Raises `EncoderMissing`.
        """

    def info(self, inputs: Mapping[str, int], tuned: frozenset[str]) -> ModelInfo:
        """Return what the checkpoint says of itself, in a worker's words."""
        return ModelInfo(
            name=self.name,
            version=self.version,
            digest=self.digest,
            labels=self.config.labels,
            sentiment=self.config.sentiment,
            inputs=inputs,
            extractors=self.extractors,
            tuned=tuned,
            calibration=str(self.calibration),
            abstain_below=self.thresholds.abstain_below,
            shift_threshold=self.thresholds.shift,
            shift_exit=self.thresholds.shift_exit,
        )


Loaded = TypeVar("Loaded", bound=LoadedCheckpoint)


def find_checkpoint(named: Path | None) -> Path:
    """Return the folder given, or the shipped one of a model's name ("hrg-ssa"), or the default.

    A folder of that name wins. Raises `CheckpointError` in a build that ships no default.
    """
    if named is None:
        return default_checkpoint()
    shipped = _shipped(str(named))
    return shipped if shipped.is_dir() and not named.exists() else named


def default_checkpoint(kind: str = DEFAULT_KIND) -> Path:
    """Return the shipped checkpoint of a model; raises `CheckpointError` in a build without it."""
    folder = _shipped(kind)
    if not (folder / WEIGHTS_FILE).is_file():
        raise CheckpointError(
            f"this build ships no checkpoint at {folder}: name one with --checkpoint, "
            "or make one with `emotrack train`"
        )
    return folder


def _shipped(kind: str) -> Path:
    return CHECKPOINTS / f"{kind}-meld"


def text_encoder_of(named: Path) -> TextEncoder:
    """Return the text encoder of a checkpoint; raises `CheckpointError` where it has none."""
    folder = find_checkpoint(named)
    _, settings, tuned, _ = read_files(folder)
    with fitting(folder):
        text = text_encoder_from(json.loads(settings).get("text_encoder"), tuned)
    if text is None:
        raise CheckpointError(f"checkpoint {named} has no text encoder to hear words through")
    return text


def save_model(
    folder: Path,
    model: Saved,
    *,
    name: str,
    calibration: Calibration,
    thresholds: Thresholds,
    extractors: Mapping[str, str],
    card: str,
    text: TextEncoder | None = None,
    version: str = "1",
) -> str:
    """Write a checkpoint folder and return its digest; the same model gives the same bytes.

    `name` is the model's in `model.registry.KINDS`. Matrices are rounded to float16 here: evaluate
    what is loaded again, not `model`. All files are written next to their names before any is put
    in its place. Raises `CheckpointError` where that fails (a full disk, say): what was there stays
    as it was.
    """
    config: dict[str, Any] = {
        "format": FORMAT,
        "name": name,
        "version": version,
        "model": asdict(model.config),
        "calibration": asdict(calibration),
        "thresholds": asdict(thresholds),
        "extractors": dict(extractors),
    }
    weights = save(_stored(model.state_dict()))
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


def read_checkpoint(
    folder: Path,
    kind: type[Loaded],
    config_of: Callable[[dict[str, Any]], ModelConfig],
    formats: Collection[int] = (FORMAT,),
) -> Loaded:
    """Read and verify a checkpoint folder; `config_of` makes a model's settings of the stored ones.

    Raises `CheckpointError`, one sentence naming the file, what is wrong with it and the cure.
    """
    weights, settings, tuned, digest = read_files(folder)
    with fitting(folder):
        stored = json.loads(settings)
        if stored["format"] not in formats:
            readable = ", ".join(map(str, formats))
            raise ValueError(f"format {stored['format']}, this version reads {readable}")
        return kind(
            config=config_of(stored["model"]),
            text=text_encoder_from(stored.get("text_encoder"), tuned),
            weights={name: tensor.float() for name, tensor in load(weights).items()},
            calibration=calibration_from(stored["calibration"]),
            thresholds=Thresholds(**stored["thresholds"]),
            extractors=stored["extractors"],
            name=stored["name"],
            version=stored["version"],
            digest=digest,
        )


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
