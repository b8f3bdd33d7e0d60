"""Media files: any container to frames and 16 kHz mono sound."""
