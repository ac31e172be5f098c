"""The suites that run beside that of the current backend."""

# The tests of tests/training that belong to no backend, on PyTorch.
TRAINING = "training"
