"""Inspection of one conversation's state and of dead letters: show, count, send again.

May import answers, events, brokers and `state.redis_reader`; never the worker.
Begin with `dead_letters` or `conversation`.
"""
