"""The Brain of the recipes, and what a finished run leaves behind."""
