"""A run folder: who owns it, what is in it, how it goes on, what its report says."""
