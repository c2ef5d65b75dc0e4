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

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidewarp.connect import sinks, sources
    from tidewarp.errors import TidewarpError
    from tidewarp.twin.opening import open_twin as open  # noqa: A004 - users write tw.open(...), as they write gzip.open
    from tidewarp.twin.replay import Replay, replay
    from tidewarp.twin.session import Twin
    from tidewarp.twin.summary import Summary

__version__ = "0.1.0"

__all__ = ["Replay", "Summary", "TidewarpError", "Twin", "__version__", "open", "replay", "sinks", "sources"]

# Loaded at the first use: a command that only shows its help, and the first moment of every other, need none of them.
_PLACES = {
    "Replay": ("tidewarp.twin", "Replay"),
    "Summary": ("tidewarp.twin", "Summary"),
    "TidewarpError": ("tidewarp.errors", "TidewarpError"),
    "Twin": ("tidewarp.twin", "Twin"),
    "open": ("tidewarp.twin", "open_twin"),
    "replay": ("tidewarp.twin", "replay"),
    "sinks": ("tidewarp.connect", "sinks"),
    "sources": ("tidewarp.connect", "sources"),
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PLACES[name]
    found = globals()[name] = getattr(import_module(module), attribute)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
