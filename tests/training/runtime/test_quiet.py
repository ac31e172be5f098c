"""The command keeps TensorFlow's remarks to itself, and nothing else that is printed meanwhile."""

import os

import pytest
from backends import run

from training.runtime.quiet import _stderr_filtered

LINES = [
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "I0000 00:00:1795596803.904719    4317 port.cc:153] oneDNN custom operations are on.",
    "E0000 00:00:1795596803.904719    4317 cuda_fft.cc:467] Unable to register cuFFT factory",
]


def test_only_log_lines_are_dropped(capfd):
    with _stderr_filtered():
        for line in [*LINES, "keep this", "F0000 and why it ends"]:
            os.write(2, f"{line}\n".encode())
    assert capfd.readouterr().err == "keep this\nF0000 and why it ends\n"


@pytest.mark.any_backend
def test_tensorflow_is_imported_in_silence_and_whole():
    program = (
        "import sys\n"
        "from training.runtime.quiet import quiet_tensorflow\n"
        "with quiet_tensorflow():\n"
        "    import tensorflow as tf\n"
        "assert 'training.runtime.quiet' not in [type(finder).__module__ for finder in sys.meta_path]\n"
        "print(tf.TensorShape([1, 2]).num_elements(), tf.__spec__.name)\n"
    )
    result = run("tensorflow", "-c", program)
    assert (result.stdout, result.stderr) == ("2 tensorflow\n", "")
