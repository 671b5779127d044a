"""The panels of Grafana's dashboards and their queries, see `dashboards`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

STAGES: Final = (
    "fetch_wait", "decode", "queue_wait", "state_load", "inference", "state_save", "produce",
)  # fmt: skip
TEAM: Final = 'job=~"$job", namespace=~"$namespace"'  # what is recorded has no instance
OURS: Final = f'{TEAM}, instance=~"$instance"'
WHOSE: Final = "{{job}} {{namespace}}"
SHARE: Final = "{{emotion}} {{job}} {{namespace}}"
RATE: Final = "[$__rate_interval]"
ALERTS: Final = f'ALERTS{{alertname=~"Emotrack.+", alertstate="firing", {TEAM}}}'


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: its queries as (expression, legend), and how it is drawn."""

    title: str
    queries: Sequence[tuple[str, str]]
    kind: str = "timeseries"  # or stat, table, bargauge
    unit: str = "short"
    width: int = 8
    height: int = 8
    stacked: bool = False
    note: str = ""


def rate(name: str, *by: str, where: str = "") -> str:
    """Sum of a counter's rates, by these labels."""
    chosen = ", ".join(part for part in (where, OURS) if part)
    grouped = f" by ({', '.join(by)})" if by else ""
    return f"sum{grouped} (rate(emotrack_{name}{{{chosen}}}{RATE}))"


def quantile(share: float, name: str) -> str:
    """A quantile of a histogram over the chosen workers."""
    return f"histogram_quantile({share}, {rate(f'{name}_bucket', 'le')})"


def mean(name: str) -> str:
    """The mean of a histogram over the chosen workers."""
    return f"{rate(f'{name}_sum')} / {rate(f'{name}_count')}"


OVERVIEW: Final = (
    Panel(
        "Conversations followed",
        [(f"sum(emotrack_conversations_active{{{OURS}}})", "")],
        "stat",
        width=4,
        height=4,
    ),
    Panel(
        "Predictions a second",
        [(f"sum(emotrack:predictions:rate5m{{{TEAM}}})", "")],
        "stat",
        width=4,
        height=4,
    ),
    Panel(
        "Shift alerts a minute",
        [(f"sum(emotrack:shift_alerts:per_minute{{{TEAM}}})", "")],
        "stat",
        width=4,
        height=4,
    ),
    Panel(
        "Answered within (p99)",
        [(f'max(emotrack:stage_seconds:p99{{stage="end_to_end", {TEAM}}})', "")],
        "stat",
        "s",
        4,
        4,
    ),
    Panel("Workers ready", [(f"sum(emotrack_ready{{{OURS}}})", "")], "stat", width=4, height=4),
    Panel("Alerts firing", [(f"count({ALERTS}) or vector(0)", "")], "stat", width=4, height=4),
    Panel(
        "Emotions, live",
        [(rate("predictions_emitted_total", "emotion"), "{{emotion}}")],
        unit="ops",
        width=16,
        height=10,
        stacked=True,
        note="Predictions a second by emotion: guesses about utterances, no findings on people.",
    ),
    Panel(
        "Mix of the last hour",
        [(f"sort_desc(emotrack:label_share:ratio1h{{{TEAM}}})", SHARE)],
        "bargauge",
        "percentunit",
        height=10,
    ),
    Panel(
        "Shifts a minute",
        [
            (
                "60 * " + rate("predictions_emitted_total", where='shift="yes"'),
                "shift more likely than not",
            ),
            ("60 * " + rate("shift_alerts_total"), "shift alerts"),
        ],
        width=16,
    ),
    Panel("What fires", [(ALERTS, "")], "table", note="The runbook has a section for each."),
)

OPERATIONS: Final = (
    Panel(
        "End to end",
        [(quantile(q, "end_to_end_seconds"), f"p{q * 100:.0f}") for q in (0.5, 0.95, 0.99)],
        unit="s",
        note="Broker append to acknowledged prediction; the aim is 99 % within 250 ms.",
    ),
    Panel(
        "Where the time goes (mean)",
        [(mean(f"{stage}_seconds"), stage) for stage in STAGES],
        unit="s",
        stacked=True,
        note="The seven stages add up to the mean of end to end.",
    ),
    Panel(
        "p99 by stage",
        [(f"max by (stage) (emotrack:stage_seconds:p99{{{TEAM}}})", "{{stage}}")],
        unit="s",
    ),
    Panel(
        "Lag",
        [
            (
                f"sum by (job, namespace, partition) (emotrack_consumer_lag_records{{{OURS}}})",
                f"partition {{{{partition}}}} {WHOSE}",
            ),
            (
                f"max by (job, namespace) (emotrack_group_lag_records{{{OURS}}})",
                f"all, nobody's too, not committed {WHOSE}",
            ),
        ],
        note="Records without an answer, read ones included; of partitions that nobody owns, too.",
    ),
    Panel(
        "Partitions",
        [
            (
                f"max by (job, namespace) (emotrack_topic_partitions{{{OURS}}})",
                f"of the topic {WHOSE}",
            ),
            (f"sum by (job, namespace) (emotrack_partitions_owned{{{OURS}}})", f"owned {WHOSE}"),
            (
                f"sum by (job, namespace) (emotrack_partitions_checking{{{OURS}}})",
                f"standing still: states are checked {WHOSE}",
            ),
        ],
        note="Fewer owned than there are: nobody reads the others.",
    ),
    Panel(
        "Newest answer's age",
        [
            (
                "time() - max by (job, namespace, partition) "
                f"(emotrack_last_processed_timestamp_seconds{{{OURS}}})",
                f"partition {{{{partition}}}} {WHOSE}",
            )
        ],
        unit="s",
    ),
    Panel(
        "Records in and out",
        [
            (rate("utterances_consumed_total"), "read"),
            (rate("records_committed_total"), "committed"),
        ],
        unit="ops",
    ),
    Panel(
        "Batch size", [(quantile(q, "batch_utterances"), f"p{q * 100:.0f}") for q in (0.5, 0.95)]
    ),
    Panel(
        "Queue and pauses",
        [
            (f"sum(emotrack_queue_depth{{{OURS}}})", "records queued"),
            (f"sum(emotrack_partitions_paused{{{OURS}}})", "partitions paused"),
        ],
    ),
    Panel("Commit", [(quantile(0.99, "commit_seconds"), "p99")], unit="s"),
    Panel(
        "State operations",
        [(rate("state_operations_total", "operation", "result"), "{{operation}} {{result}}")],
        unit="ops",
    ),
    Panel(
        "State of a conversation",
        [(quantile(q, "state_bytes"), f"p{q * 100:.0f}") for q in (0.5, 0.95)],
        unit="bytes",
    ),
    Panel("Windows held", [(f"emotrack_conversations_active{{{OURS}}}", "{{instance}}")]),
    Panel(
        "Outcomes", [(rate("outcomes_total", "outcome"), "{{outcome}}")], unit="ops", stacked=True
    ),
    Panel(
        "Dead letters by reason", [(rate("dead_letters_total", "reason"), "{{reason}}")], unit="ops"
    ),
    Panel(
        "What should be rare",
        [
            (rate("fencing_rejections_total"), "fenced writes"),
            (rate("context_truncated_total"), "truncated contexts"),
            (rate("state_rebuilds_total", "cause"), "rebuilt, {{cause}}"),
            (rate("seq_disorder_total"), "seq out of order"),
            (rate("ignored_fields_total", "field"), "ignored, {{field}}"),
            (rate("partition_moves_total"), "conversations on one more partition"),
            (rate("split_answers_total"), "answers that say moved"),
            (rate("offset_gaps_total"), "offset gaps"),
            (rate("offsets_lost_total"), "offsets lost"),
        ],
        unit="ops",
    ),
    Panel(
        "Repeats",
        [
            (rate("replays_total", "result"), "replay {{result}}"),
            (rate("duplicates_total", "kind"), "duplicate {{kind}}"),
        ],
        unit="ops",
    ),
    Panel("Rebalances", [(rate("rebalances_total", "kind"), "{{kind}}")], unit="ops"),
    Panel(
        "Up and ready",
        [
            (f"emotrack_ready{{{OURS}}}", "{{instance}} ready"),
            (f"emotrack_redis_up{{{OURS}}}", "{{instance}} Redis"),
            (f"emotrack_broker_up{{{OURS}}}", "{{instance}} Kafka"),
            (
                f"time() - emotrack_last_turn_timestamp_seconds{{{OURS}}}",
                "{{instance}} seconds since a turn",
            ),
        ],
    ),
    Panel(
        "CPU",
        [(f"rate(process_cpu_seconds_total{{{OURS}}}{RATE})", "{{instance}}")],
    ),
    Panel(
        "Memory",
        [
            (f"process_resident_memory_bytes{{{OURS}}}", "{{instance}}"),
            (f"emotrack_gpu_memory_bytes{{{OURS}}}", "{{instance}} device"),
        ],
        unit="bytes",
    ),
    Panel(
        "Broker clock ahead", [(f"emotrack_clock_skew_seconds{{{OURS}}}", "{{instance}}")], unit="s"
    ),
    Panel("What runs", [(f"emotrack_build_info{{{OURS}}}", "")], "table", width=24, height=5),
)

MODEL: Final = (
    Panel(
        "Confidence",
        [(quantile(q, "confidence"), f"p{q * 100:.0f}") for q in (0.1, 0.5, 0.9)],
        unit="percentunit",
        note="Calibrated probability of the predicted emotion.",
    ),
    Panel("Confidence by tenths", [(rate("confidence_bucket", "le"), "up to {{le}}")], unit="ops"),
    Panel(
        "Abstained",
        [(f"emotrack:abstain_rate:ratio5m{{{TEAM}}}", WHOSE)],
        unit="percentunit",
        note="Of all answers, those that say not to act on them.",
    ),
    Panel(
        "Abstained by reason",
        [(rate("abstentions_total", "reason"), "{{reason}}")],
        unit="ops",
        note="language, unknown_words: outside of what the model knows.",
    ),
    Panel(
        "Shift more likely than not",
        [(f"emotrack:shift_rate:ratio5m{{{TEAM}}}", WHOSE)],
        unit="percentunit",
    ),
    Panel(
        "Label mix, last hour",
        [(f"emotrack:label_share:ratio1h{{{TEAM}}}", SHARE)],
        unit="percentunit",
        stacked=True,
    ),
    Panel(
        "Against the last day",
        [
            (
                f"emotrack:label_share:ratio1h{{{TEAM}}} - emotrack:label_share:ratio1d{{{TEAM}}}",
                SHARE,
            )
        ],
        unit="percentunit",
        note="EmotrackLabelDrift fires beyond 20 points.",
    ),
    Panel(
        "Past utterances seen",
        [(quantile(q, "window_utterances"), f"p{q * 100:.0f}") for q in (0.5, 0.95)],
    ),
    Panel(
        "Truncated contexts",
        [(f"emotrack:context_truncated:ratio10m{{{TEAM}}}", WHOSE)],
        unit="percentunit",
    ),
    Panel(
        "Inference",
        [(quantile(q, "inference_seconds"), f"p{q * 100:.0f} of a batch") for q in (0.5, 0.99)],
        unit="s",
    ),
    Panel(
        "Workers by state",
        [
            (
                f'count by (state_digest) (emotrack_model_info{{{OURS}, state_digest!=""}})',
                "{{state_digest}}",
            )
        ],
        note="Of one state_digest, they continue each other's conversations. EmotrackMixedWorkers "
        "fires where two stay side by side.",
    ),
    Panel("Which model", [(f"emotrack_model_info{{{OURS}}}", "")], "table", width=24, height=5),
)

DASHBOARDS: Final = {"overview": OVERVIEW, "operations": OPERATIONS, "model": MODEL}
