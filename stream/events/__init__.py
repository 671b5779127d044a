"""The wire: utterances, predictions, alerts and dead letters, and their bytes, headers and schemas.

May import `state.window`, `model.interface` and the ports; no client library, no I/O.
Begin with `messages` (the events), then `decode` (bytes to an utterance, or why not).
"""
