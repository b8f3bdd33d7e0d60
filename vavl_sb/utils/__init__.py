"""Metrics, errors, checkpoints, files and other helpers."""
