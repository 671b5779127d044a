"""The accuracy study: which models are trained and compared, and the page of their scores.

May import everything in `model`.
Begin with `rows` (what is trained), then `run` and `page`.
"""
