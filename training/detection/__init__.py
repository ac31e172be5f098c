"""Training, evaluation and reports of detectors."""
