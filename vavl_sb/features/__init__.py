"""Feature extraction from clips, and the feature cache."""
