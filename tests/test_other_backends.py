"""The suites on the two backends that this process does not run, and that of tests/training, each in a process.

They are started when the collection is done (see conftest.py) and run beside this one; here is waited for them.
"""

import pytest
from backends import OTHERS
from suites import TRAINING


def check(process, log, suite):
    """Wait for a suite and pass on what it found."""
    process.wait()
    text = log.read_text()
    print(f"{suite}: {text.strip().splitlines()[-1]}")
    assert process.returncode == 0, f"the suite of {suite} failed:\n{text[-12000:]}"
    assert " passed" in text.strip().splitlines()[-1]


@pytest.mark.parametrize("suite", [*OTHERS, TRAINING])
def test_the_suite_passes(suite, other_suites):
    check(*other_suites[suite], suite)


@pytest.mark.slow
@pytest.mark.parametrize("suite", [*OTHERS, TRAINING])
def test_the_slow_tests_pass(suite, other_suites):
    check(*other_suites[suite], suite)
