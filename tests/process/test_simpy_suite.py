"""SimPy's own tests, of its source package, on our environment."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

SUBSTITUTE = '''
"""Puts our environment in the place of SimPy's, before SimPy's conftest.py makes one; writes the counts of outcomes.

The tests of RealtimeEnvironment, which stays SimPy's, allow 20 ms of delay: here only sleeping moves the clock.
"""

import collections
import json
import time

now = 0.0


def monotonic():
    global now
    now += 1e-6  # so that sums of sleeps are not below what they are compared with, by rounding
    return now


def sleep(seconds):
    global now
    now += seconds


time.monotonic, time.sleep = monotonic, sleep

import simpy

from tidewarp.process import Environment

simpy.Environment = Environment
outcomes = collections.Counter()


def pytest_runtest_logreport(report):
    if report.when == "call" or report.outcome != "passed":
        outcomes[report.outcome] += 1


def pytest_sessionfinish():
    with open("outcomes.json", "w") as file:
        json.dump(outcomes, file)
'''

FAULT = '''
"""A second too much in every timeout of ours, and of nobody else's."""

from tidewarp.process import Environment

timeout = Environment.timeout
Environment.timeout = lambda self, delay=0, value=None: timeout(self, delay + 1, value)
'''


@pytest.fixture(scope="module")
def simpy_folder(simpy_archive: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked source package, with our plugins beside its tests."""
    folder = tmp_path_factory.mktemp("simpy")
    with tarfile.open(fileobj=io.BytesIO(simpy_archive)) as archive:
        archive.extractall(folder, filter="data")
    (source,) = folder.iterdir()
    (source / "substitute.py").write_text(SUBSTITUTE)
    (source / "fault.py").write_text(FAULT)
    return source


def outcomes(folder: Path, *plugins: str) -> tuple[dict[str, int], str]:
    """How often SimPy's tests, but its benchmarks, came to each outcome; and what pytest printed."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not benchmark", "tests"]
    for plugin in plugins:
        command += ["-p", plugin]
    # The directory in front of the path is `folder`: its `src` holds SimPy's code, which so is not imported.
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    variables["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    ended = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300)
    screen = ended.stdout + ended.stderr
    assert ended.returncode in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED), screen
    return json.loads((folder / "outcomes.json").read_text()), screen


def test_simpys_own_tests_pass_on_our_environment(simpy_folder: Path) -> None:
    """None fails and none is skipped: a SimPy model cannot tell the difference."""
    counts, screen = outcomes(simpy_folder, "substitute")
    assert set(counts) == {"passed"}, screen
    assert counts["passed"] >= 141


def test_the_tests_of_simpy_run_on_ours_and_not_on_simpys(simpy_folder: Path) -> None:
    """A fault that is planted in our class alone fails them; it would not, were SimPy's under test."""
    counts, screen = outcomes(simpy_folder, "substitute", "fault")
    assert counts.get("failed", 0) > 20, screen
