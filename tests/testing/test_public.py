"""What a third person meets: light imports, a missing package named, a suite that pytest collects and that explains itself."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

import tidewarp.testing

pytest_plugins = ["pytester"]

SUITE = """
from tidewarp.testing.sources import SourceConformance
from tidewarp.connect.sources import schedule

class TestPlan(SourceConformance):
    test_the_decoder_is_pure = test_no_bytes_break_the_decoder = None  # it gives Readings
    messages = [(0, {"a": 1}), (10**9, {"b": "x"})]

    def create(self, folder):
        return schedule([(0, "a", 1), (1, "b", "y")])
"""


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_importing_the_package_imports_no_pytest():
    """Clock, faults and kill harness are of use without."""
    assert python("import sys, tidewarp.testing; print({'pytest', 'hypothesis'} & sys.modules.keys())") == "set()\n"


@pytest.mark.parametrize("missing", ["pytest", "hypothesis"])
@pytest.mark.parametrize("suite", ["sources", "redelivery", "sinks", "stores"])
def test_a_suite_without_its_packages_says_how_to_get_them(suite, missing):
    """MissingExtra, with the command."""
    code = f"import sys; sys.modules[{missing!r}] = None; import tidewarp.testing.{suite}"
    told = python(code).splitlines()[-1]
    assert told.startswith(f"tidewarp.errors.MissingExtra: package {missing}: ")
    assert told.endswith("; pip install 'tidewarp[test]'")


def test_every_public_name_is_there_and_documented():
    """`__all__` of each module, and the methods of its classes."""
    modules = [
        tidewarp.testing,
        *(
            importlib.import_module(f"tidewarp.testing.{one.name}")
            for one in pkgutil.iter_modules(tidewarp.testing.__path__)
        ),
    ]
    for module in modules:
        assert module.__doc__
        for name in module.__all__:
            found = getattr(module, name)
            members = vars(found).items() if isinstance(found, type) else []
            bare = [
                key
                for key, one in [(name, found), *members]
                if callable(one) and not key.startswith("_") and not one.__doc__
            ]
            assert not bare, f"{module.__name__}.{name}: {bare}"
    described = {line.split()[0] for line in (tidewarp.testing.__doc__ or "").splitlines() if "  " in line}
    assert described == {"check_model", "clock", "kill", "faults", "sources", "redelivery", "sinks", "stores", "kernel"}


def test_a_suite_in_somebodys_test_module_is_collected_and_explains_its_failures(pytester):
    """Their class alone is collected; a failure shows both sides and says what to mend."""
    pytester.makepyfile(test_mine=SUITE)
    result = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider", "-W", "error")
    result.assert_outcomes(passed=13, failed=1, skipped=1)
    result.stdout.fnmatch_lines(
        [
            "*mend the decoder, or `messages` of this suite*",
            "*At index 1 diff: (1000000000, {'b': 'y'}) != (1000000000, {'b': 'x'})*",
        ]
    )
