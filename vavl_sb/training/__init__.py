"""The Brain of the recipes, resuming, export and reports."""
