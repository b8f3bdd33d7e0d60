"""A clip in, features out: the one path of training and inference."""
