"""The twin: one session composes gate, process model, journal, connectors.

session    Twin: what a build function receives, and what runs it
wiring     the part of it that a build function uses
opening    open_twin: a journal begun, or followed to where it stands
summary    what a run says of itself
run        pure: the model in step with its inputs, the two chains, the run digest
host       the inline host: threads for connectors, group commit, pacing, repair
pace       which tick is due by the wall, and how late the run is
documents  the journal's documents of a run: open, resume, stop, mark, released
facts      the journal read back as typed facts, for the four below
follow     moving a run along its journal: what a recovery and a replay have in common
replay     the run again, compared with its marks
audit      checking a journal without its model
reading    the journal as rows for people
model      finding a model's code and naming it
sync       sessions and federations over Time Warp nodes (their names are in compat.twinsync) · divergence
"""

from __future__ import annotations

from tidewarp.twin.audit import Verified, verify
from tidewarp.twin.model import load_model
from tidewarp.twin.opening import open_twin
from tidewarp.twin.reading import journal_rows
from tidewarp.twin.replay import Replay, replay
from tidewarp.twin.session import CATCH_UP, Build, Twin
from tidewarp.twin.summary import Summary

__all__ = [
    "CATCH_UP",
    "Build",
    "Replay",
    "Summary",
    "Twin",
    "Verified",
    "journal_rows",
    "load_model",
    "open_twin",
    "replay",
    "verify",
]
