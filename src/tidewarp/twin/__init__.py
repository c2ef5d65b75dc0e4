"""The twin: one session composes gate, process model, journal, connectors.

session    Twin: what a build function receives, and what runs it
wiring     the part of it that a build function uses · declarations  of the model alone · options  of sources and sinks
handles    the part of it that a program uses beside a run · local  what it sets · control  when it pauses, its pace
opening    open_twin: a journal begun, or followed to where it stands
summary    what a run says of itself
run        pure: the model in step with its inputs, the two chains, the run digest
host       the loop: inbox, gate, the model in slices · outlook  how far a turn may go, how long the host may sleep
intake     threads of sources · dispatcher  threads of sinks · retries  what is to be tried again
admissions  inputs into the journal, before they are applied · marks  marks and cuts, once GVT has passed them
output_commit  when outputs leave · withheld  those that wait for GVT · early  sinks that do not
attended   the host for people · observations  what it measures of itself · outages  what its log says of connectors
collector  Python's garbage collector while a run has to be in time
repair     the two kinds of host, and how each puts late inputs in their place
forked     a run in a process of its own, its snapshots, its death · simulation, serving  the two ends of its connection
snapshots  which of them are kept
pace       which tick is due by the wall, and how late the run is
documents  the journal's documents of a run: open, resume, stop, mark, released
facts      the journal read back as typed facts, for the four below
follow     moving a run along its journal: what a recovery and a replay have in common
replay     the run again, compared with its marks · replaying  the same as an operation of programs
cuts       documents from which a run goes on, and a recovery may begin · recut  are they what the run says?
audit      checking a journal without its model
reading    the journal as rows for people
guard      stops model code that looks at the host's clock or at random numbers of its own
redrive    dead letters as inputs after all · redeliver  outputs that a sink lacks
whatif     a run on a branch of a journal
standby    a second process that follows a living writer, and takes its place
model      finding a model's code and naming it
sync       sessions and federations over Time Warp nodes (their names are in compat.twinsync) · divergence
"""

from __future__ import annotations

from tidewarp.twin.audit import Verified, verify
from tidewarp.twin.model import load_model
from tidewarp.twin.opening import open_twin
from tidewarp.twin.reading import journal_rows
from tidewarp.twin.recut import Recut, replay_cuts
from tidewarp.twin.redeliver import Redelivered, open_recorded, redeliver
from tidewarp.twin.redrive import Redriven
from tidewarp.twin.repair import HOSTS
from tidewarp.twin.replay import Replay, replay
from tidewarp.twin.session import CATCH_UP, Build, Twin
from tidewarp.twin.summary import Summary

__all__ = [
    "CATCH_UP",
    "HOSTS",
    "Build",
    "Recut",
    "Redelivered",
    "Redriven",
    "Replay",
    "Summary",
    "Twin",
    "Verified",
    "journal_rows",
    "load_model",
    "open_recorded",
    "open_twin",
    "redeliver",
    "replay",
    "replay_cuts",
    "verify",
]
