"""What a run says of itself when it ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Summary"]


@dataclass(frozen=True)
class Summary:
    """What a run did.

    ``events``, ``inputs``, ``outputs``, ``late``, ``clamped``, ``dropped``, ``coalesced``, ``refused`` and dead letters are of the whole
    journal, earlier lives included; ``duplicates``, ``sinks``, ``lag_s_max`` and ``wall_s`` of this life.
    """

    digest: str  # the run digest, hex
    reason: str  # "end", "interrupted" or "lag"
    virtual_time_s: float  # all instants below it are done
    journal_records: int
    head: str  # hash of the journal's last record, hex
    events: int  # of the simulation
    inputs: int  # messages admitted, each with all paths that it sets
    outputs: int
    undeliverable: int  # outputs whose value had no canonical form
    late: int  # below the highest event time before them in their partition
    repaired: int  # of these, put in their place below the clock, and everything after them executed again
    clamped: int  # of these, moved to the watermark
    dropped: int  # of these, made dead letters
    coalesced: int  # messages that became no inputs, because a later one of the same drain set the same variable
    duplicates: int  # messages at a position that the journal held already
    refused: int  # inputs that the state of the moment forbade
    dead_letters: int
    gaps: int  # that the operator accepted
    dead: dict[str, int]  # dead letters by rule
    sinks: dict[str, dict[str, Any]]  # name -> what it was sent, and what it dropped or altered
    lag_s_max: float  # wall seconds that the run was behind its pace, at most
    seed: int
    epoch: str  # tick 0, ISO 8601
    factor: float  # wall seconds per simulated second; 0 = full speed
    resumed: bool  # did the journal hold a run before this one?
    interrupted: bool
    wall_s: float
    shed: dict[str, int] = field(default_factory=dict)  # source -> messages that its full queue let go
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)  # source -> state, reason, its own counts
    behind: dict[str, str] = field(default_factory=dict)  # sink that lacks outputs -> how many, why, what to do
    repairs: int = 0  # how often this life executed anew
    horizon_cuts: int = 0  # how often GVT was moved up because too many outputs waited for the horizon
