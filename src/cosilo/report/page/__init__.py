"""The HTML report's parts: one file per section, its style sheet and its script."""
