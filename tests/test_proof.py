"""``pytest -m proof`` ends with a table that tells of each claim whether it held."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import proof

TESTS = """
import pytest
from hypothesis import given, settings, strategies as st

pytestmark = pytest.mark.proof("of the module")

def test_of_the_module():
    pass

@pytest.mark.proof("of the test")
@pytest.mark.parametrize("trials", [100, 20])
def test_with_trials(trials, record_property):
    record_property("trials", trials)

@pytest.mark.proof("wrong")
@pytest.mark.parametrize("answer", [42, 43])
def test_that_fails(answer):
    assert answer == 42

@pytest.fixture
def broken():
    raise OSError("no disk")

@pytest.mark.proof("wrong before it began")
def test_without_its_fixture(broken):
    pass

@pytest.mark.proof("skipped")
def test_that_is_skipped():
    pytest.skip("no kernel for it")

@pytest.mark.proof("a property")
@settings(max_examples=17, database=None)
@given(st.integers())
def test_property(number):
    pass
"""
UNMARKED = "def test_outside():\n    pass\n"


def prove(folder: Path, *words: str) -> tuple[int, str]:
    """Exit code and output of ``pytest -m proof`` in ``folder``."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "proof", "-p", "no:cacheprovider", *words]
    env = {"PYTHONPATH": str(Path(proof.__file__).parent)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout + done.stderr


def table(output: str) -> dict[str, list[str]]:
    """Claim -> tests, trials, wrong, not run: the seconds are the machine's affair."""
    rows = re.findall(r"^(\S.*?) +([\d,]+) +([\d,]+) +([\d,]+) +([\d,]+) +\d+\.\d$", output, re.MULTILINE)
    return {claim: cells for claim, *cells in rows}


def test_each_claim_has_its_row(tmp_path):
    """Tests, trials, what failed, what did not run; and the exit code is that of pytest."""
    (tmp_path / "test_claims.py").write_text(TESTS + UNMARKED)
    code, output = prove(tmp_path, "-m", "proof")
    assert code == 1
    assert table(output) == {
        "of the module": ["2", "2", "0", "0"],
        "of the test": ["2", "120", "0", "0"],
        "wrong": ["2", "2", "1", "0"],
        "wrong before it began": ["1", "0", "1", "0"],
        "skipped": ["1", "0", "0", "1"],
        "a property": ["1", "17", "0", "0"],
        "all of them": ["9", "141", "2", "1"],
    }


def test_a_claim_that_was_not_reached_is_in_the_table(tmp_path):
    """A run that ended early does not look like one that was shorter."""
    (tmp_path / "test_claims.py").write_text(TESTS)
    code, output = prove(tmp_path, "-m", "proof", "-x")
    assert code == 1
    assert table(output)["a property"] == ["1", "0", "0", "1"]


def test_what_holds_ends_with_0_and_the_table(tmp_path):
    """Nothing but the closing line comes behind the row of all; what is not marked is not run."""
    (tmp_path / "test_claims.py").write_text(f"import pytest\n@pytest.mark.proof('it holds')\n{UNMARKED}")
    (tmp_path / "test_other.py").write_text(UNMARKED)
    code, output = prove(tmp_path, "-m", "proof")
    assert code == 0
    assert table(output)["all of them"] == ["1", "1", "0", "0"]
    assert output.splitlines()[-2].startswith("all of them")


def test_every_other_run_has_no_table(tmp_path):
    """Where all tests are run the claims say nothing."""
    (tmp_path / "test_claims.py").write_text(UNMARKED)
    code, output = prove(tmp_path)
    assert code == 0
    assert table(output) == {}


def test_a_proof_without_a_claim_is_refused(tmp_path):
    """A row without a name would say nothing."""
    (tmp_path / "test_claims.py").write_text(f"import pytest\n@pytest.mark.proof\n{UNMARKED}")
    code, output = prove(tmp_path, "-m", "proof")
    assert code == 4
    assert "test_claims.py::test_outside: a proof has one claim" in output
