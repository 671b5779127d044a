"""Labelled conversations: in memory, in our folder format, from tables and published files.

May import `model.errors` and `model.interface`; numpy only, no torch.
Begin with `dataset`, then `reader` and `convert`.
"""
