"""Networks and encoders."""
