"""From a prediction to events: the alert rule, and the bytes that are stored and sent.

Pure; may import events, `model.interface` and `state`. Worker, rebuild and verifier share it.
Begin with `apply`, then `shift_rule` (when to alert) and `outbox` (what is stored and sent).
"""
