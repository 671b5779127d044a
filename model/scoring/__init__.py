"""Scores of answers: F1, calibration, bootstrap intervals, report, pictures, page, card.

May import `model.serving` and `model.data`; sees answers, never a model.
Begin with `answers`, then `report`.
"""
