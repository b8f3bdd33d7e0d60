"""Everything that touches media, manifests and cached features."""
