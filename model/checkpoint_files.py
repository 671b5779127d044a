"""A model on disk: a folder of weights, settings and a digest over both, without pickle.

model.safetensors    matrices as float16 (the model *is* its float16 weights), the rest float32
config.json          sizes, labels, recurrence, calibration, thresholds, extractors, version, the
                     text encoder that the text vectors come from, and the languages it knows
encoder.safetensors  the tuned encoder's change of weights (`delta_of`), if tuned
digest               sha256 over the files above: names the model in states and predictions
README.md            the model card
"""

from __future__ import annotations

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from model.atomic_files import write_whole
from model.errors import CheckpointError
from model.interface import DEFAULT_KIND, ModelInfo
from model.serving.calibration import Calibration, Thresholds
from model.text.languages import Judge, Languages
from model.text.sentence_encoder import TextEncoder
from state.window import Recurrence

if TYPE_CHECKING:  # they import scikit-learn, which serving does without
    from model.data.dataset import Dialogue
    from model.scoring.answers import Answers, WholeLogits

FORMAT: Final = 3  # 1 had no text encoder, 2 no evidence head
LANGUAGES_FORMAT: Final = 4  # of a checkpoint that states languages: before, they were not judged
WEIGHTS_FILE: Final = "model.safetensors"
CONFIG_FILE: Final = "config.json"
ENCODER_FILE: Final = "encoder.safetensors"
DIGEST_FILE: Final = "digest"
CARD_FILE: Final = "README.md"
CHECKPOINTS: Final = Path(__file__).parent / "checkpoints"  # shipped


class ModelConfig(Protocol):
    """The settings that every model has."""

    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def sentiment(self) -> Mapping[str, str]: ...
    @property
    def classes(self) -> int: ...
    @property
    def widths(self) -> Mapping[str, int]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedCheckpoint(ABC):
    """A checkpoint in memory; each model derives its own, which answers whole conversations."""

    config: ModelConfig
    text: TextEncoder | None = None  # None: the text vectors' encoder is not known
    languages: Languages | None = None  # None: it states none, and none is judged
    weights: Mapping[str, Tensor]  # float32, matrices of float16 values
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
        self, dialogues: Sequence[Dialogue], encoder: Path | None, labels: Sequence[int] | None
    ) -> WholeLogits:
        """Answer whole dialogues in one pass, all utterances one after the other.

        `labels`, a label number for each utterance, replace the earlier answers that a model
        reads; a model that reads none ignores them. Raises `EncoderMissing`.
        """

    def judge(self) -> Judge | None:
        """Load the judge of the stated languages; None where none is stated."""
        return None if self.languages is None else Judge(self.languages)

    def info(self, inputs: Mapping[str, int], tuned: frozenset[str]) -> ModelInfo:
        """Return the description that a predictor of this checkpoint gives."""
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
            languages=() if self.languages is None else self.languages.known,
        )


Loaded = TypeVar("Loaded", bound=LoadedCheckpoint)


def find_checkpoint(named: Path | None) -> Path:
    """Return the folder given, or the shipped one of a model's name ("hrg-ssa"), or the default.

    An existing folder wins over a model of that name. Raises `CheckpointError` in a build that
    ships no default.
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
    with _opened(find_checkpoint(named)) as files:
        text = text_encoder_from(files.config.get("text_encoder"), files.tuned)
    if text is None:
        raise CheckpointError(f"checkpoint {named} has no text encoder to hear words through")
    return text


def save_model(
    folder: Path,
    model: nn.Module,
    *,
    name: str,
    calibration: Calibration,
    thresholds: Thresholds,
    extractors: Mapping[str, str],
    card: str,
    text: TextEncoder | None = None,
    languages: Languages | None = None,
    version: str = "1",
) -> str:
    """Write a checkpoint folder and return its digest; the same model gives the same bytes.

    `name` is the model's in `model.registry.KINDS`. Matrices are rounded to float16 here: evaluate
    the checkpoint read back, not `model`. All files are on the disk before the first replaces an
    old one. Raises `CheckpointError` where that fails (on a full disk, for instance), and leaves
    the folder unchanged.
    """
    settings: Any = model.config  # a dataclass
    config: dict[str, Any] = {
        "format": FORMAT if languages is None else LANGUAGES_FORMAT,
        "name": name,
        "version": version,
        "model": asdict(settings),
        "calibration": asdict(calibration),
        "thresholds": asdict(thresholds),
        "extractors": dict(extractors),
    }
    weights = save({name: _stored(name, value) for name, value in model.state_dict().items()})
    tuned = save(dict(text.delta)) if text is not None and text.delta else b""
    if text is not None:
        named = {"base": text.base, "name": text.name, "layers": text.layers}
        config["text_encoder"] = named | {"tuned": bool(tuned)}
    if languages is not None:
        config["languages"] = asdict(languages)
    described = _described(config)
    digest = hashlib.sha256(weights + described + tuned).hexdigest()
    files = {WEIGHTS_FILE: weights, CONFIG_FILE: described, CARD_FILE: card.encode()}
    files |= ({ENCODER_FILE: tuned} if tuned else {}) | {DIGEST_FILE: f"{digest}\n".encode()}
    _write(folder, files, remove=() if tuned else (ENCODER_FILE,))
    return digest


def write_card(folder: Path, card: str) -> None:
    """Write the card, which is no part of the digest. Raises `CheckpointError`."""
    _write(folder, {CARD_FILE: card.encode()})


def check_new_folder(folder: Path) -> None:
    """Raise `CheckpointError` where a checkpoint written there could take the place of anything."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CheckpointError(
            f"{folder} is there already: name a new folder with --out; a checkpoint is never "
            "replaced"
        )


def save_with_thresholds(folder: Path, out: Path, thresholds: Thresholds, remark: str) -> None:
    """Write the checkpoint of `folder` with other thresholds, and so another digest, to `out`.

    Weights and all other settings keep their bytes; the card begins with the remark. Raises
    `CheckpointError` where `out` is not empty or the thresholds are those it has.
    """
    check_new_folder(out)
    with _opened(folder) as files:
        config = files.config | {"thresholds": asdict(thresholds)}
        described = _described(config)
        if config == files.config:
            raise CheckpointError(
                f"the checkpoint in {folder} has these thresholds: nothing was written"
            )
        digest = hashlib.sha256(files.weights + described + files.tuned).hexdigest()
        written = {WEIGHTS_FILE: files.weights, CONFIG_FILE: described}
        written |= {ENCODER_FILE: files.tuned} if files.tuned else {}
        card = (folder / CARD_FILE).read_text("utf-8") if (folder / CARD_FILE).exists() else ""
    title = re.search(r"^# .*\n", card, re.MULTILINE)
    at = title.end() if title else 0
    card = f"{card[:at]}\n{remark}\n{card[at:]}"
    _write(out, {**written, CARD_FILE: card.encode(), DIGEST_FILE: f"{digest}\n".encode()})


def _described(config: Mapping[str, Any]) -> bytes:
    return (json.dumps(config, indent=1, sort_keys=True) + "\n").encode()


def _write(folder: Path, files: Mapping[str, bytes], remove: Collection[str] = ()) -> None:
    try:
        write_whole(folder, files, remove)
    except OSError as error:
        raise CheckpointError(
            f"{folder} cannot be written ({error.strerror}): nothing in it was changed; make room "
            "or name another folder, and run it again"
        ) from error


@dataclass(frozen=True, slots=True)
class _Files:
    """The files of a checkpoint, verified against its digest."""

    weights: bytes
    config: dict[str, Any]
    tuned: bytes  # the encoder's change of weights; empty where it was not tuned
    digest: str


@contextmanager
def _opened(folder: Path) -> Iterator[_Files]:
    """Read and verify a folder's files; what does not parse in the body is of another version.

    Raises `CheckpointError`.
    """
    weights, settings = _read(folder, WEIGHTS_FILE), _read(folder, CONFIG_FILE)
    tuned = _read(folder, ENCODER_FILE) if (folder / ENCODER_FILE).exists() else b""
    digest = hashlib.sha256(weights + settings + tuned).hexdigest()
    recorded = _read(folder, DIGEST_FILE).decode(errors="replace").strip()
    if recorded != digest:
        raise CheckpointError(
            f"{folder / DIGEST_FILE} does not match {WEIGHTS_FILE} and {CONFIG_FILE}: a file is "
            "missing, damaged or was edited; copy the checkpoint again or train it anew"
        )
    with _of_this_version(folder):
        yield _Files(weights, json.loads(settings), tuned, digest)


def kind_of(folder: Path) -> str:
    """Return the model's name in a checkpoint's settings. Raises `CheckpointError`."""
    with _of_this_version(folder):
        return str(json.loads(_read(folder, CONFIG_FILE))["name"])


@contextmanager
def _of_this_version(folder: Path) -> Iterator[None]:
    """Raise `CheckpointError` for whatever does not parse in the body."""
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
    config_of: Callable[..., ModelConfig],
    formats: Collection[int] = (FORMAT, LANGUAGES_FORMAT),
) -> Loaded:
    """Read and verify a checkpoint folder; `config_of` takes the model's settings by name.

    Raises `CheckpointError`, one sentence naming the file, the fault and the cure.
    """
    with _opened(folder) as files:
        stored = files.config
        if stored["format"] not in formats:
            readable = ", ".join(map(str, formats))
            raise ValueError(f"format {stored['format']}, this version reads {readable}")
        languages = languages_from(stored.get("languages"))
        return kind(
            config=config_of(**_settings(stored["model"])),
            text=text_encoder_from(stored.get("text_encoder"), files.tuned),
            weights={name: tensor.float() for name, tensor in load(files.weights).items()},
            calibration=calibration_from(stored["calibration"]),
            thresholds=Thresholds(**stored["thresholds"]),
            extractors=stored["extractors"],
            name=stored["name"],
            version=stored["version"],
            languages=languages,
            digest=files.digest if languages is None else languages.digest(files.digest),
        )


def _settings(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model's settings from their JSON, which knows no tuples and no recurrence."""
    settings = {n: tuple(v) if isinstance(v, list) else v for n, v in stored.items()}
    return settings | {"recurrence": Recurrence(**stored["recurrence"])}


def calibration_from(stored: Mapping[str, Any]) -> Calibration:
    """Read a calibration from its JSON; an older version's has no maps."""
    maps = {name: tuple(stored.get(name, ())) for name in ("offsets", "shift_map")}
    return Calibration(**{**stored, **maps})


def languages_from(stored: Mapping[str, Any] | None) -> Languages | None:
    """Read the stated languages from the settings; older checkpoints state none."""
    return None if stored is None else Languages(**{**stored, "known": tuple(stored["known"])})


def text_encoder_from(named: Mapping[str, Any] | None, tuned: bytes) -> TextEncoder | None:
    """Read a text encoder from the settings and the bytes of encoder.safetensors."""
    if named is None:
        return None
    if bool(tuned) != named["tuned"]:
        raise ValueError(f"{ENCODER_FILE} and {CONFIG_FILE} disagree")
    delta = load(tuned) if tuned else {}
    return TextEncoder(named["base"], named["name"], named["layers"], delta)


def _stored(name: str, value: Tensor) -> Tensor:
    matrix = value.dim() >= 2 and "bias" not in name and "b_" not in name
    return value.detach().cpu().to(torch.float16 if matrix else torch.float32).contiguous()


def _read(folder: Path, name: str) -> bytes:
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{folder / name} cannot be read ({error.strerror}): a checkpoint is a folder with "
            f"{WEIGHTS_FILE}, {CONFIG_FILE} and {DIGEST_FILE}, as `emotrack train` writes it"
        ) from error
