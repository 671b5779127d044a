"""The loop of one worker: poll, batch, step, send, commit; rebuild of lost states; health.

May import answers, events, metrics, ports, settings, `model.interface` and `state`; no broker.
Begin with `loop`, then `pipeline.Pipeline.step`.
"""
