"""Every Prometheus series with its help text and buckets; the writer and reader of /metrics.

May import events; the only room that imports prometheus_client.
Begin with `catalogue`: one line a metric.
"""
