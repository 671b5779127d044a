"""Features of recordings, faces and sentences: what `emotrack extract` computes.

May import the registry and the layers below; never a model.
Begin with `praat` (audio), `openface` (video) or `sentences` (text).
"""
