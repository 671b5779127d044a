"""Write `docs/metrics.md`: `python -m deploy.metrics_page > docs/metrics.md`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from stream.metrics.catalogue import Entry, Metrics

SECTIONS: Final = (
    ("Counters", "counter", "`rate()` or `increase()` them; a restart sets them to 0."),
    (
        "Histograms",
        "histogram",
        "`_bucket{le}`, `_sum`, `_count`. Times are seconds, one observation a prediction: the "
        "sums of the seven stages explain at least 95 % of `emotrack_end_to_end_seconds_sum`.",
    ),
    (
        "Gauges",
        "gauge",
        "Written once a second (less often while a turn of the loop takes longer), or on a change.",
    ),
    ("Information", "info", "Always 1; the labels say it."),
)


def document(metrics: Metrics) -> str:
    """Return the whole page."""
    parts = [Path(__file__).with_name("metrics_head.md").read_text("utf-8")]
    for title, kind, text in SECTIONS:
        rows = [row(entry) for entry in metrics.entries if entry.kind == kind]
        parts.append(f"## {title}\n\n{text}\n\n| metric | what it says | labels |\n|---|---|---|")
        parts[-1] += "\n" + "\n".join(rows) + "\n"
    return "\n".join(parts)


def row(entry: Entry) -> str:
    """Return one metric as a row of the table."""
    labels = "; ".join(f"`{label}`: {values}" for label, values in entry.labels.items())
    text, bounds = entry.text, entry.bounds
    if bounds:
        text += f" Buckets {bounds[0]:g} … {bounds[-1]:g} ({len(bounds)})."
    return f"| `{entry.name}` | {text} | {labels} |"


if __name__ == "__main__":
    print(document(Metrics()), end="")
