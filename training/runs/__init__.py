"""A run folder: its owner, its contents, how to resume it, and the lines of its report."""
