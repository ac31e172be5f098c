"""What every `fit` has, whatever the task: checkpoints, resuming, callbacks, optimizers."""
