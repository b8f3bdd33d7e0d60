"""Metrics, errors and small helpers."""
