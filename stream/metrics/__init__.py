"""Every Prometheus series: its name, help text and buckets, and how /metrics is written and read.

May import events; the only room that imports prometheus_client.
Begin with `catalogue`: one line a metric.
"""
