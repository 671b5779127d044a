"""A histogram that one thread writes and any thread reads, and the page of all series.

prometheus_client's own takes 1.8 us for an observation (a lock, a scan of the bounds) and cannot
take a batch's common time once for all of its utterances; this one takes 0.5 us.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

SUFFIX: Final = {"counter": "_total", "info": "_info"}  # of the family's name on the page
SHOWN_AS: Final = {"info": "gauge", "unknown": "untyped"}
HELP: Final = str.maketrans({"\\": "\\\\", "\n": "\\n"})
LABEL: Final = HELP | str.maketrans({'"': '\\"'})


class BatchHistogram(Collector):
    """Counts of values by upper bound (inclusive, as Prometheus' `le`), and their sum."""

    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        """`bounds` must ascend; an infinite one is added."""
        self.bounds: Final = tuple(bounds)
        self._name, self._text = name, text
        self._labels = [*(repr(float(bound)) for bound in bounds), "+Inf"]
        self._counts = [0] * len(self._labels)
        self._sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value `times` times."""
        self._counts[bisect_left(self.bounds, value)] += times
        self._sum += value * times

    def observe_all(self, values: Sequence[float]) -> None:
        """Count each of these values, in a third of the time of single observations."""
        counts, bounds = self._counts, self.bounds
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        self._sum += sum(values)

    def read(self) -> tuple[list[int], float]:
        """Return the number of values at or below each bound, then of all values; and their sum.

        During an observation the sum may lack the last value.
        """
        return list(accumulate(self._counts)), self._sum

    def collect(self) -> Iterator[Metric]:
        counts, total = self.read()
        buckets = list(zip(self._labels, counts, strict=True))
        yield HistogramMetricFamily(self._name, self._text, buckets, total)


def to_text(families: Iterable[Metric]) -> bytes:
    """Return a registry's families in Prometheus' text format.

    prometheus_client's own writer checks every name again: 68 ms of CPU for 10,000 series, 39 here.
    """
    lines: list[str] = []
    for family in families:
        name = family.name + SUFFIX.get(family.type, "")
        lines.append(f"# HELP {name} {family.documentation.translate(HELP)}")
        lines.append(f"# TYPE {name} {SHOWN_AS.get(family.type, family.type)}")
        for sample in family.samples:
            labels = ",".join([f'{k}="{v.translate(LABEL)}"' for k, v in sample.labels.items()])
            lines.append(f"{sample.name}{f'{{{labels}}}' if labels else ''} {sample.value!r}")
    return ("\n".join(lines) + "\n").encode()
