"""Opening a twin: its journal is begun, or followed to where an earlier life stopped or was killed."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tidewarp.clocks import Clock, Pacer, WallClock
from tidewarp.codec import pack, unpack
from tidewarp.connect.documents import PathTable
from tidewarp.errors import CodecError, ModelChanged, ModelError, OperatorError
from tidewarp.observe import SILENT, Probe
from tidewarp.store import Store, open_store
from tidewarp.twin.documents import OPEN, Opened, entry, platform_of
from tidewarp.twin.facts import opening_of, released_before
from tidewarp.twin.follow import Follower
from tidewarp.twin.host import InlineHost
from tidewarp.twin.model import changed_files, refuse_while_loading
from tidewarp.twin.session import Build, Twin
from tidewarp.twin.wiring import BATCH_MAX
from tidewarp.units import in_seconds, parse_instant

__all__ = ["open_twin"]

_YEAR = re.compile(r"[12]\d{3}", re.ASCII)


def open_twin(
    journal: str | Path,
    build: Build,
    *,
    seed: int | None = None,
    factor: float = 0.0,
    epoch: datetime | str | None = None,
    batch: int = BATCH_MAX,
    resume: bool = True,
    accept_model: bool = False,
    clock: Clock | None = None,
    probe: Probe = SILENT,
) -> Twin:
    """Open a twin: begin its journal, or come back to where an earlier life stopped or was killed.

    An existing journal is replayed at full speed, work in progress included; every mark on the way is
    compared. An existing journal keeps the seed and the epoch that it was begun with.

    Args:
        journal: the file (``NAME.tw``); its key and lock stand beside it. ":memory:" keeps nothing.
        build: the model: a function that wires the twin it is given.
        seed: of all random streams, 0 to 2^64 - 1; 0 by default. An existing journal refuses another one.
        factor: wall seconds per simulated second; 0 = full speed.
        epoch: the instant of tick 0 (aware datetime or ISO 8601). Default: midnight UTC before the first event
            of the first source that has times of its own; without one 1970-01-01.
        batch: inputs per journal record, 1 to 8,192.
        resume: go on with a journal that was begun; False refuses it.
        accept_model: go on although the model's files changed.
        clock: the wall clock; tests hand in a simulated one.
        probe: receives counts and progress.

    Raises:
        OperatorError: the journal cannot be opened, is not one, or belongs to another model or seed.
        StoreLocked: another process runs this twin.
        ModelError: the model came out differently from its own journal.
    """
    refuse_while_loading()
    if not 1 <= batch <= BATCH_MAX:
        raise OperatorError(f"batch={batch}", f"1 to {BATCH_MAX} inputs per record", "give a number in this range")
    if seed is not None and not 0 <= seed < 1 << 64:
        raise OperatorError(f"seed={seed}", "a seed is 0 to 2^64 - 1", "give a number in this range")
    Pacer(factor)  # refuses a factor that is none, before anything is begun
    path, epoch_ns = Path(journal), _epoch_ns(epoch)
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(contextlib.closing(open_store(journal, create=True)))
        begun = opening_of(store.journal) if store.journal.size else None
        if begun is not None:
            if not resume:
                rule = "it holds a run, and this one begins its own journal"
                raise OperatorError(str(path), rule, "add --resume, or name another file")
            _refuse_other(begun, path, seed=seed, epoch_ns=epoch_ns)
            seed, epoch_ns = begun.seed, begun.epoch_ns
        twin = Twin(build, seed=seed or 0, epoch_ns=epoch_ns, live=True, batch=batch, probe=probe)
        stack.push(twin)
        if begun is not None and not accept_model:
            _refuse_changed_files(begun, twin, path)
        twin._wire()
        if begun is not None and not accept_model:
            _refuse_changed_sources(begun, twin, path)
        _follow(twin, store, path, clock or WallClock(), factor)
        stack.pop_all()
    return twin


def _follow(twin: Twin, store: Store, path: Path, clock: Clock, factor: float) -> None:
    """Bring a wired twin to where its journal stands, and begin the journal if it is empty."""
    journal, table = store.journal, PathTable()
    identity = twin._identity(journal.domain)
    host = InlineHost(twin._run, twin._gate, twin._outbox, journal, table, identity, clock, twin._probe)
    twin._attach(store, host, clock, factor)
    follower = Follower(journal, twin._gate, twin._run, host.release_and_wait, table=table, probe=twin._probe)
    host.open_sinks(twin._sinks, released_before(journal))
    if not journal.size:  # last of all: what could not start has begun no journal
        _refuse_older_outputs(host.last_ids(), path)
        model = twin._model.record(path)
        opened = Opened(identity.domain, identity.epoch_ns, twin.seed, model, twin._policies, **platform_of())
        journal.append([entry(OPEN, 0, opened.document())])
    follower.follow()
    if follower.first_difference is not None:
        # What has changed was accepted, or it would have been refused before.
        changed = changed_files(opening_of(journal).model, twin._model)
        raise _differs(follower.first_difference, changed)


def _refuse_older_outputs(held: Mapping[str, str], path: Path) -> None:
    """A key outlives its journal, and sinks know a run by its key: they would drop what is new as seen before."""
    if held:
        name, last_id = next(iter(held.items()))
        raise OperatorError(
            f"sink {name!r}: it holds outputs up to {last_id} of an earlier journal with the key {path}.key",
            f"{path} is new, and its outputs have the same ids",
            "move what the sink holds away, or the key, or bring the journal back",
        )


def _refuse_other(begun: Opened, path: Path, *, seed: int | None, epoch_ns: int | None) -> None:
    for what, asked, kept in (("seed", seed, begun.seed), ("epoch_ns", epoch_ns, begun.epoch_ns)):
        if asked is not None and asked != kept:
            raise OperatorError(f"{what}={asked}", f"{path} was begun with {kept}", "leave it out to go on")


def _refuse_changed_files(begun: Opened, twin: Twin, path: Path) -> None:
    """Before the model is wired: what is wrong with it then may come of the change."""
    changed = changed_files(begun.model, twin._model)
    if changed:
        raise ModelChanged(
            f"{path}: {', '.join(changed)} changed since this journal was begun",
            "a run goes on with the model that began it",
            "restore the files, or pass --accept-model (accept_model=True) if the change cannot alter the past",
        )


def _refuse_changed_sources(begun: Opened, twin: Twin, path: Path) -> None:
    before, now = begun.sources, unpack(pack(twin._policies))  # as a journal gives them back: tuples are arrays there
    names = sorted(repr(name) for name in {*before, *now} if before.get(name) != now.get(name))
    if names:
        raise ModelChanged(
            f"{path}: source {', '.join(names)} is connected in another way",
            "a run goes on with the sources that began it",
            "connect them as before, or pass --accept-model (accept_model=True)",
        )


def _differs(difference: Mapping[str, Any], changed: Sequence[str]) -> ModelError:
    if changed:
        action = f"begin a new journal: what changed in {', '.join(changed)} alters the past"
    else:
        action = "look for the order of sets, id(), time, random, files; run tidewarp replay for the whole comparison"
    return ModelError(
        f"the mark at {in_seconds(difference['tick']):.3f} s (record {difference['mark']}): "
        f"{', '.join(difference['parts'])} came out differently",
        "a model is a function of its inputs and its seed",
        action,
    )


def _epoch_ns(epoch: datetime | str | None) -> int | None:
    if epoch is None:
        return None
    if isinstance(epoch, datetime):
        if epoch.tzinfo is None:
            raise OperatorError(f"epoch={epoch!r}", "an instant needs a time zone", "give tzinfo=datetime.UTC")
        epoch = epoch.isoformat()
    if _YEAR.fullmatch(epoch.strip()):
        rule = "a bare number is Unix seconds, and this one looks like a year"
        raise OperatorError(f"epoch={epoch!r}", rule, f"write {epoch.strip()}-01-01T00:00:00Z")
    try:
        return parse_instant(epoch, UTC)
    except CodecError as error:
        raise OperatorError(f"epoch={epoch!r:.80}", error.rule, error.action) from error
