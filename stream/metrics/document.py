"""Write `docs/metrics.md`: `python -m stream.metrics.document > docs/metrics.md`."""

from __future__ import annotations

from typing import Final

from stream.metrics.catalogue import Entry, Metrics

HEAD: Final = """\
# Metrics

Written by `python -m stream.metrics.document` from the catalogue in `stream/metrics/catalogue.py`;
a test fails where they differ. Every worker shows its own at
`http://METRICS_HOST:METRICS_PORT/metrics`.

- Base units. No label holds a conversation, a speaker or an utterance: the number of series grows
  with owned partitions (two each) and the model's emotions, never with traffic.
- A counter whose labels are a closed set starts at 0, so that its first event is an increase.
- `process_*` (CPU, resident memory, file descriptors, start time) come from the Prometheus client.

How these become quantiles, alerts and dashboards: [operations.md](operations.md).
"""
SECTIONS: Final = (
    ("Counters", "counter", "`rate()` or `increase()` them; a restart sets them to 0."),
    (
        "Histograms",
        "histogram",
        "`_bucket{le}`, `_sum`, `_count`. Times are seconds, one observation a prediction: the "
        "sums of the seven stages explain at least 95 % of `emotrack_end_to_end_seconds_sum`.",
    ),
    ("Gauges", "gauge", "Written once a second, or when something changes."),
    ("Information", "info", "Always 1; the labels say it."),
)


def document(metrics: Metrics) -> str:
    """The whole page."""
    parts = [HEAD]
    for title, kind, words in SECTIONS:
        rows = [row(entry) for entry in metrics.entries if entry.kind == kind]
        parts.append(f"## {title}\n\n{words}\n\n| metric | what it says | labels |\n|---|---|---|")
        parts[-1] += "\n" + "\n".join(rows) + "\n"
    return "\n".join(parts)


def row(entry: Entry) -> str:
    """One metric as a row of the table."""
    labels = "; ".join(f"`{label}`: {values}" for label, values in entry.labels.items())
    buckets = f" Buckets {short(entry.bounds)}." if entry.bounds else ""
    return f"| `{entry.name}` | {entry.text}{buckets} | {labels} |"


def short(bounds: tuple[float, ...]) -> str:
    """The range of buckets."""
    return f"{bounds[0]:g} … {bounds[-1]:g} ({len(bounds)})"


if __name__ == "__main__":
    print(document(Metrics()), end="")
