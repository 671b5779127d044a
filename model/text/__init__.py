"""Sentence and token encoders: loaded, tuned, and run over a data set.

May import `model.data`, `model.serving` and the layers below; torch and transformers.
Begin with `sentence_encoder`.
"""
