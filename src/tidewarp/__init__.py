"""A digital-twin runtime whose live run is the replay of its own journal.

    import tidewarp as tw

    with tw.open("plant.tw", build, seed=7) as twin:
        twin.run(until="8h")
    assert tw.replay("plant.tw", build).equal

The packages, from the top down; each may import only what stands below it (docs/ARCHITECTURE.md):

    cli        the commands
    worlds     models that ship
    twin       the session: open, run, resume, replay
    process    SimPy with a registry, mutable resources and inputs
    store      the journal · connect  sources, the gate, sinks
    clocks     event key, wall clock, pacing · codec  one byte form per value
    errors, units, observe, seeds
"""

from __future__ import annotations

from tidewarp.connect import sinks, sources
from tidewarp.errors import TidewarpError
from tidewarp.twin import Replay, Summary, Twin, replay
from tidewarp.twin import open_twin as open  # noqa: A004 - users write tw.open(...), as they write gzip.open

__version__ = "0.1.0"

__all__ = ["Replay", "Summary", "TidewarpError", "Twin", "__version__", "open", "replay", "sinks", "sources"]
