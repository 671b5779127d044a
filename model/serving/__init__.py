"""Shared by both models for serving: devices, batch-stable matrix products, calibration.

May import `model.interface` and `model.errors`; torch.
Begin with `row_stable`: why a row's bytes do not depend on its batch.
"""
