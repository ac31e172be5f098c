"""`keras-apa` in a process of its own, also one that is killed."""

from backends import CURRENT, environment
from warm import run_warm

PROGRAM = "import sys; from training.cli.main import main; sys.exit(main())"
# Kills its own process at the beginning of a step, as no Python code could hinder.
KILLED = """
import os, signal, sys
import keras
train_on = keras.callbacks.CallbackList.on_train_batch_begin
def count(self, batch, logs=None, seen=[0]):
    seen[0] += 1
    if seen[0] == {step}:
        os.kill(os.getpid(), signal.SIGKILL)
    return train_on(self, batch, logs)
keras.callbacks.CallbackList.on_train_batch_begin = count
from training.cli.main import main
sys.exit(main())
"""


def process(*arguments, program=PROGRAM, cwd=None, **variables):
    """Run a command line of `keras-apa` on the current backend; the completed process with its output as text."""
    return run_warm(program, *arguments, env=environment(CURRENT, **variables), cwd=cwd)
