"""Losses, masking, normalization, calibration and linear models."""
