"""Tools for tests of models, sources, sinks and stores. Public; imported by no other part of the package.

check_model  a kernel model in every engine and tier, and each of its events twice
clock      ManualClock: a wall clock that moves when the test says so, for ``tw.open(..., clock=...)``
kill       KillTrial: kill a twin anywhere, as often as wanted, and check what is left; lives, remains, report are its parts
faults     armed, hearing: have something happen at the n-th arrival at a stage
sources    SourceConformance: what every source has to keep, as a class of tests to derive from; readings is its part
redelivery  RedeliveryConformance: the same for sources that give again what was not confirmed, and count
sinks      SinkConformance: the same for sinks
stores     StoreConformance: the same for stores; journals (JournalConformance: of a journal alone), machine, contents, domains are its parts
kernel     cases, optimistic_options, check_parity: random models, and ways to execute them, against the sequential reference

``sources``, ``redelivery``, ``sinks``, ``stores`` and ``kernel`` are imported by their own names and need pytest and Hypothesis: ``pip install 'tidewarp[test]'``.
What all suites share is in ``suites``.
"""

from __future__ import annotations

import sys

from tidewarp.testing.check_model import Checked, check_model
from tidewarp.testing.clock import ManualClock
from tidewarp.testing.faults import armed, die, hearing, raising
from tidewarp.testing.kill import KillTrial

__all__ = ["Checked", "KillTrial", "ManualClock", "armed", "check_model", "die", "hearing", "raising"]

# Under pytest a failed assertion of a suite shows both sides, as one of the author's own does.
if (_pytest := sys.modules.get("pytest")) is not None:
    for _name in (
        "kernel",
        "sources",
        "readings",
        "redelivery",
        "sinks",
        "stores",
        "journals",
        "machine",
        "contents",
        "domains",
        "artifact_machine",
    ):
        _pytest.register_assert_rewrite(f"{__name__}.{_name}")
