"""Neural networks that learn or embed: tensors in, tensors out, no files."""
