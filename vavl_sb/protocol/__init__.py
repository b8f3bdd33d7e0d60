"""The paper's protocol: many runs, their summary, and comparisons."""
