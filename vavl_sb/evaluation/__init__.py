"""Evaluation: robustness, protocols of many runs, statistics, comparison."""
