"""Replaying a journal: the run again, without its sources and sinks, compared with every mark."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from tidewarp.clocks import WallClock
from tidewarp.connect.contract import Output
from tidewarp.errors import OperatorError
from tidewarp.observe import SILENT, Probe
from tidewarp.store import Journal, open_store
from tidewarp.twin.documents import ModelRecord
from tidewarp.twin.facts import Records, opening_of
from tidewarp.twin.follow import Follower
from tidewarp.twin.model import changed_files, load_model
from tidewarp.twin.run import tick_at
from tidewarp.twin.session import Build, Twin
from tidewarp.units import TICK_MAX, Duration, in_seconds

__all__ = ["Replay", "recorded_model", "replay", "rerun"]


@dataclass(frozen=True)
class Replay:
    """What a replay found, up to where it ended.

    ``recorded``: the digest that the journal has for that place; None after a kill, or short of the end.
    ``equal``: False if a mark on the way or that digest differs, True if the digest is the recorded one, else None.
    """

    digest: str
    recorded: str | None
    equal: bool | None
    marks: int
    virtual_time_s: float
    inputs: int
    events: int
    outputs: int
    wall_s: float
    speed_x: float
    first_difference: dict[str, Any] | None
    model_changed: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def replay(
    journal: str | Path | Journal,
    build: Build | None = None,
    *,
    until: Duration | datetime | None = None,
    guard: bool = False,
    probe: Probe = SILENT,
    outputs: Callable[[Sequence[Output]], None] = lambda _: None,
) -> Replay:
    """Run a journal again, without its sources and sinks, and compare every mark and the final digest.

    Args:
        journal: the file, or a journal, such as a branch; it is only read.
        build: the model; None loads it from the path that the file recorded, relative to its folder.
        until: stop the comparison at this virtual time.
        guard: as for ``tw.open``.
        probe: receives progress.
        outputs: is given the outputs of the run, in order, as they are made again: no journal holds them.

    Raises:
        OperatorError: not a journal, or no model. Corrupt: the chain is broken, with the record.
    """
    clock = WallClock()
    started_s = clock.now()
    with contextlib.ExitStack() as stack:
        records = _records(journal, stack)
        opened = opening_of(records)
        if build is None:
            if not isinstance(journal, str | Path):
                raise OperatorError("build=None", "only a file says where its model is", "give the build of the model")
            build = recorded_model(opened.model, Path(journal))
        limit = TICK_MAX if until is None else tick_at(until, opened.epoch_ns)
        twin, follower = rerun(records, build, until=limit, guard=guard, probe=probe, outputs=outputs)
        run = twin._run
        wall_s = clock.now() - started_s
        ended = follower.recorded if follower.recorded is not None and follower.recorded.tick == run.at else None
        same = follower.first_difference is None
        return Replay(
            digest=run.digest(),
            recorded=None if ended is None else ended.digest,
            equal=same if ended is not None or not same else None,
            marks=follower.compared,
            virtual_time_s=in_seconds(run.at),
            inputs=run.applied,
            events=twin.env.events,
            outputs=run.published,
            wall_s=wall_s,
            speed_x=in_seconds(run.at) / wall_s if wall_s > 0 else 0.0,
            first_difference=follower.first_difference,
            model_changed=changed_files(opened.model, twin._model),
        )


def _records(journal: str | Path | Journal, stack: contextlib.ExitStack) -> Records:
    """What is replayed. A file is open until ``stack`` is left."""
    if not isinstance(journal, str | Path):
        return journal
    return stack.enter_context(open_store(journal, read_only=True)).journal


def rerun(
    journal: Records,
    build: Build,
    *,
    until: int = TICK_MAX,
    seed: int | None = None,
    guard: bool = False,
    probe: Probe = SILENT,
    outputs: Callable[[Sequence[Output]], None] = lambda _: None,
) -> tuple[Twin, Follower]:
    """The twin of ``build`` after the run of ``journal``, to tick ``until`` (exclusive), and what has moved it there.

    ``seed`` is the journal's own unless another is given. The rest, and the errors, are as of :func:`replay`.
    """
    opened = opening_of(journal)
    twin = Twin(
        build,
        seed=opened.seed if seed is None else seed,
        epoch_ns=opened.epoch_ns,
        live=False,
        probe=probe,
        guard=guard,
    )
    twin._wire()
    follower = Follower(journal, twin._gate, twin._run, outputs, until=until, probe=probe)
    follower.follow()
    follower.follow_ahead(all_of_it=False)
    follower.follow_on()
    return twin, follower


def recorded_model(model: ModelRecord, journal: Path) -> Build:
    """The model whose path ``journal`` has recorded, relative to its folder. Raises OperatorError."""
    if model.path is None:
        raise OperatorError(
            str(journal), "its model was not read from a file", "name it: tidewarp replay FILE --model MODEL.py[:build]"
        )
    if not model.function.isidentifier():  # one that its program makes has no name that a file could be asked for
        value = f"{journal}: its model is {model.function}, which a program makes when it runs"
        action = "replay it there: tidewarp.replay(FILE, build), or with tidewarp.compat.dynamic_des env.replay(FILE)"
        raise OperatorError(value, "a model that is found by its name is a function of a file", action)
    return load_model(f"{journal.resolve().parent / model.path}:{model.function}")
