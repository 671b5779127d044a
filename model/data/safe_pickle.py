"""Read the feature pickles that research code published, without running anything in them.

A pickle is a program. This reader lets it build plain Python values and numpy arrays of numbers or
text, and nothing else: every other name is refused. numpy's own unpickling is not used either (its
``__setstate__`` trusts its argument): array, dtype and scalar are rebuilt here from their published
layout, and sizes must agree.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from model.errors import DataError

LARGEST: Final = 2 << 30  # bytes; four RoBERTa vectors of 13,708 utterances are 225 MB as float32
DEEPEST: Final = 16  # containers inside containers
_PLAIN: Final = re.compile(r"[<>=|]?([biuf][0-9]{1,2}|[SU][0-9]{1,6}|\?)")


class Refused(DataError):
    """The file requests a name that is neither numpy nor plain; the message names it."""


def load_pickle(path: Path, *, largest: int = LARGEST) -> Any:
    """Read the pickle at `path`: tuples, lists, dicts, sets, numbers, texts, numpy arrays.

    Written by Python 2 or 3, protocol 0 to 5. Raises `DataError`, or `Refused` with the refused
    name.
    """
    try:
        size = path.stat().st_size
        if size > largest:
            raise DataError(f"{path} has {size} bytes, at most {largest} are read")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    try:
        return _finished(_Unpickler(io.BytesIO(content), encoding="latin1").load(), 0, {})
    except Refused as error:
        raise Refused(f"{path} {error}: nothing of it was run or read") from None
    # Damaged and hostile pickles raise anything at all, from a wrong argument to a huge memo.
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        raise DataError(f"{path} is no pickle of features, or damaged: {message}") from error


class _Unpickler(pickle.Unpickler):
    """An unpickler of the names in `_KNOWN`; each is our function or builds a plain value."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        newer = module_name.replace("numpy.core.", "numpy._core.")
        make = _KNOWN.get(f"{newer.replace('__builtin__', 'builtins')}.{global_name}")
        if make is None:
            raise Refused(f"asks for {module_name}.{global_name}")
        return _Maker(make)

    def persistent_load(self, pid: Any) -> Any:
        raise Refused(f"asks for an object kept elsewhere ({str(pid)[:60]!r})")


class _Maker:
    """A callable that a pickle cannot change (BUILD sets attributes of functions)."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setstate__(self, _state: Any) -> None:
        raise Refused("changes a function")


class _Dtype:
    """A stand-in for numpy.dtype while a pickle is read."""

    def __init__(self, code: Any, _align: Any = False, _copy: Any = True) -> None:
        code = _text(code)
        if not isinstance(code, str) or not _PLAIN.fullmatch(code):
            raise Refused(f"holds a numpy array of dtype {str(code)[:40]!r}, not numbers or text")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        """Take (version, byte order, subarray, names, fields, item size, …), as numpy writes it."""
        order = _text(state[1])
        if any(part is not None for part in state[2:5]) or order not in ("<", ">", "=", "|"):
            raise Refused("holds a numpy array of structures, not numbers or text")
        if order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """A stand-in for an array while a pickle is read; `value` is None before its state."""

    value: np.ndarray[Any, Any] | None = None

    def __init__(self, _kind: Any, _shape: Any, _code: Any) -> None:
        """Take the arguments of numpy's `_reconstruct`, which creates an empty array."""

    def __setstate__(self, state: Any) -> None:
        """Take (version, shape, dtype, Fortran order, bytes), as numpy writes it."""
        _version, shape, dtype, fortran, raw = state
        self.value = _array(raw, dtype, shape, "F" if fortran else "C")


def _array(raw: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray[Any, Any]:
    """Return the array of numpy's `_frombuffer`, sizes checked."""
    if not isinstance(dtype, _Dtype):
        raise Refused("holds a numpy array without a dtype")
    content = raw.encode("latin1") if isinstance(raw, str) else raw  # Python 2 had no bytes
    if not isinstance(content, bytes | bytearray):
        raise Refused("holds a numpy array of objects")
    sizes = tuple(int(size) for size in shape)
    need = math.prod(sizes) * dtype.dtype.itemsize
    if min(sizes, default=0) < 0 or need != len(content):
        raise DataError(f"an array of shape {sizes} needs {need} bytes, it has {len(content)}")
    return np.ndarray(sizes, dtype.dtype, bytes(content), order=order)


def _ndarray(*_arguments: Any) -> Any:
    raise Refused("makes a numpy array of its own")


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Return bytes from the form in which Python 3 writes them for Python 2."""
    if not isinstance(text, str) or encoding != "latin1":
        raise Refused(f"asks for the codec {encoding!r}")
    return text.encode("latin1")


def _bytes(content: Any = b"") -> bytes:
    if not isinstance(content, bytes):
        raise Refused(f"makes bytes of {type(content).__name__}")
    return content


def _text(value: Any) -> Any:
    return value.decode("latin1") if isinstance(value, bytes) else value


_KNOWN: Final[Mapping[str, Callable[..., Any]]] = MappingProxyType(
    {
        "builtins.set": set,
        "builtins.frozenset": frozenset,
        "builtins.complex": complex,
        "builtins.bytes": _bytes,
        "builtins.bytearray": _bytes,
        "_codecs.encode": _encode,
        "numpy._core.multiarray._reconstruct": _Array,
        "numpy._core.multiarray.scalar": lambda dtype, raw: _array(raw, dtype, (), "C")[()],
        "numpy._core.numeric._frombuffer": _array,
        "numpy.dtype": _Dtype,
        "numpy.ndarray": _ndarray,
    }
)


def _finished(value: Any, depth: int, done: dict[int, Any]) -> Any:
    """Return `value` with arrays in place of their stand-ins; each container is walked once."""
    if isinstance(value, _Array):
        if value.value is None:
            raise DataError("an array that never got its numbers")
        return value.value
    if isinstance(value, _Dtype) or callable(value):
        raise Refused("holds a function or a type, not data")
    if not isinstance(value, dict | list | tuple | set | frozenset):
        return value
    if id(value) in done:
        return done[id(value)]
    if depth > DEEPEST:
        raise Refused(f"holds containers more than {DEEPEST} deep")
    done[id(value)] = None  # a container inside itself
    if isinstance(value, dict):
        pairs = ((_finished(k, depth + 1, done), v) for k, v in value.items())
        done[id(value)] = {k: _finished(v, depth + 1, done) for k, v in pairs}
    else:
        done[id(value)] = type(value)(_finished(item, depth + 1, done) for item in value)
    return done[id(value)]
