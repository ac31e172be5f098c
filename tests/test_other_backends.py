"""The whole suite on the two backends that this process does not run, in processes of their own.

They are started when the collection is done (see conftest.py) and run beside this one; here is waited for them.
"""

import pytest
from backends import OTHERS


def check(process, log, backend):
    """Wait for a suite and pass on what it found."""
    process.wait()
    text = log.read_text()
    print(f"{backend}: {text.strip().splitlines()[-1]}")
    assert process.returncode == 0, f"the suite failed on {backend}:\n{text[-12000:]}"
    assert " passed" in text.strip().splitlines()[-1]


@pytest.mark.parametrize("backend", OTHERS)
def test_the_suite_passes_on(backend, other_suites):
    check(*other_suites[backend], backend)


@pytest.mark.slow
@pytest.mark.parametrize("backend", OTHERS)
def test_the_slow_tests_pass_on(backend, other_suites):
    check(*other_suites[backend], backend)
