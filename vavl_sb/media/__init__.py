"""Decoding of media files in any container to frames and 16 kHz mono audio."""
