"""Check a topic against its promises by recomputing it from the log.

May import answers, events and brokers' readers; never the worker or a store that writes.
Begin with `report` (the promises), then `check` and `timelines`.
"""
