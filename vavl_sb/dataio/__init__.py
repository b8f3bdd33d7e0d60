"""Manifests, corpus preparation, datasets and samplers."""
