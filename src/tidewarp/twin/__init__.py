"""The twin: one session composes gate, process model, journal, connectors.

session    Twin, open, replay: what users see
run        pure: the model in step with its inputs, the two chains, the run digest
host       the inline host: threads for connectors, group commit, pacing
replay     following a journal: recovery and replay
documents  the journal's byte forms of a run: open, resume, stop, mark, released
audit      checking a journal without its model
reading    the journal as rows for people
model      finding a model's code and naming it
"""

from __future__ import annotations

from tidewarp.twin.audit import Verified, verify
from tidewarp.twin.model import load_model
from tidewarp.twin.reading import journal_rows
from tidewarp.twin.replay import Replay, replay
from tidewarp.twin.session import Build, Summary, Twin, open_twin

__all__ = [
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
