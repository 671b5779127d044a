"""Read a worker's own `/metrics` page: totals, and quantiles from its histograms."""

from __future__ import annotations

import math
import urllib.request
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class ScrapedHistogram:
    """Cumulative bucket counts by upper bound (seconds or another base unit), labels summed."""

    buckets: Mapping[float, float]
    total: float
    count: float

    def quantile(self, q: float) -> float:
        """Estimate as Prometheus' histogram_quantile does: linear in the bucket; NaN if empty."""
        if not self.count:
            return math.nan
        rank, below, floor = q * self.count, 0.0, 0.0
        for bound, reached in sorted(self.buckets.items()):
            if reached >= rank:
                if math.isinf(bound):
                    return floor
                inside = reached - below
                return bound if not inside else floor + (bound - floor) * (rank - below) / inside
            below, floor = reached, bound
        return floor

    def minus(self, earlier: ScrapedHistogram) -> ScrapedHistogram:
        """Return what was observed since an earlier scrape."""
        return ScrapedHistogram(
            {le: n - earlier.buckets.get(le, 0.0) for le, n in self.buckets.items()},
            self.total - earlier.total,
            self.count - earlier.count,
        )


@dataclass(frozen=True, slots=True)
class Page:
    """One scrape: every sample by name and labels."""

    samples: Mapping[tuple[str, Labels], float] = field(repr=False)

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of the samples of this name and these labels; 0 where there is none."""
        wanted = set(labels.items())
        return sum(v for (n, have), v in self.samples.items() if n == name and wanted <= set(have))

    def by_label(self, name: str, label: str) -> dict[str, float]:
        """Return the samples of this name, summed by one label's value."""
        sums: defaultdict[str, float] = defaultdict(float)
        for (sample, labels), value in self.samples.items():
            if sample == name and (key := dict(labels).get(label)) is not None:
                sums[key] += value
        return sums

    def histogram(self, name: str) -> ScrapedHistogram:
        """Return the histogram of this name, summed over its labels."""
        buckets = {float(le): n for le, n in self.by_label(f"{name}_bucket", "le").items()}
        return ScrapedHistogram(buckets, self.value(f"{name}_sum"), self.value(f"{name}_count"))


def parse(text: str) -> Page:
    """Parse the Prometheus text format (comments and timestamps are ignored)."""
    families = text_string_to_metric_families(text)
    return Page({(s.name, tuple(s.labels.items())): s.value for f in families for s in f.samples})


def scrape(url: str, timeout_s: float = 5.0) -> Page:
    """Fetch and parse `url`. Raises OSError when it does not answer."""
    with urllib.request.urlopen(url, timeout=timeout_s) as answer:
        return parse(answer.read().decode())
