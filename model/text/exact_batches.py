"""Run token sequences together only where each gets the bytes that it has alone.

A product adds up in another order for another number of rows, so a text's last bits may depend on
what runs with it. Not for every length: long texts take the kernel of many rows alone, too, and
some short ones still that of few rows together. Which is found by trying, on this machine, with the
first texts of each length. Pure over `run`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

Tokens = tuple[int, ...]
Vector = NDArray[np.float16]
Batch = list[Tokens]
Vectors = NDArray[np.float16]
Run = Callable[[list[list[int]]], Vectors]
Map = Callable[[Callable[[Batch], Vectors], Iterable[Batch]], Iterable[Vectors]]
# Texts of a length that must have equal bytes in a batch. Where the kernels differ, fewer than half
# of the texts were equal all the same: twelve are by chance once in 20,000 times.
SAMPLES: Final = 12
SIZES: Final = (4, 16)


class ExactBatches:
    """Vectors of texts, as `run` gives each alone; of one length in batches where it may be."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._seen: dict[int, dict[Tokens, Vector]] = defaultdict(dict)  # alone, by length
        self.sizes: dict[int, tuple[int, ...]] = {}  # by length: what is proven; () is none

    def vectors(self, texts: Sequence[Tokens], each: Map = map) -> dict[Tokens, Vector]:
        """Return the vector of each of these different texts; `each` may run several at a time."""
        batches = list(self._batches(texts))
        found: dict[Tokens, Vector] = {}
        for batch, rows in zip(batches, each(self._padded, batches), strict=True):
            found.update(zip(batch, rows, strict=False))
        for ids in texts:
            samples = self._seen[len(ids)]
            if len(ids) not in self.sizes and len(samples) < SAMPLES:
                samples[ids] = found[ids]  # it ran alone: nothing is proven yet
        return found

    def _batches(self, texts: Sequence[Tokens]) -> Iterator[Batch]:
        by_length: dict[int, list[Tokens]] = defaultdict(list)
        for ids in texts:
            by_length[len(ids)].append(ids)
        for length, group in by_length.items():
            largest = max(self._sizes(length), default=1)
            yield from (group[at : at + largest] for at in range(0, len(group), largest))

    def _padded(self, batch: Batch) -> Vectors:
        """Run a batch, filled up to a size that is proven."""
        sizes = (1, *self.sizes.get(len(batch[0]), ()))
        size = next(size for size in sizes if size >= len(batch))
        rows = [*batch, *[batch[0]] * (size - len(batch))]
        return self._run([list(ids) for ids in rows])

    def _sizes(self, length: int) -> tuple[int, ...]:
        """Return the proven sizes of a length; try them once it has been met often enough."""
        if length not in self.sizes:
            samples = self._seen[length]
            if len(samples) < SAMPLES:
                return ()
            self.sizes[length] = self._proven(samples)
            samples.clear()
        return self.sizes[length]

    def _proven(self, alone: Mapping[Tokens, Vector]) -> tuple[int, ...]:
        """Return the sizes, up to the first that fails, whose rows have the bytes of `alone`."""
        texts = list(alone)
        proven: list[int] = []
        for size in SIZES:
            for at in range(0, len(texts), size):
                batch = [texts[(at + k) % len(texts)] for k in range(size)]
                rows = zip(batch, self._run([list(ids) for ids in batch]), strict=True)
                if any(row.tobytes() != alone[ids].tobytes() for ids, row in rows):
                    return tuple(proven)
            proven.append(size)
        return tuple(proven)
