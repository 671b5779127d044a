"""Features of recordings, faces and sentences: what `emotrack extract` computes.

May import the registry and what lies below; never a model.
Begin with `praat` (audio), `openface` (video) or `sentences` (text).
"""
