"""Faces: found, followed over time, and cut out."""
