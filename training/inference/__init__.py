"""What `keras-apa predict` does, as a library."""
