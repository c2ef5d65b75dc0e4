"""Opening a twin: its journal is begun, or followed to where an earlier life stopped or was killed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from tidewarp.clocks import Clock, Pacer, WallClock
from tidewarp.codec import pack, unpack
from tidewarp.connect.documents import PathTable
from tidewarp.errors import CodecError, ModelChanged, OperatorError
from tidewarp.observe import SILENT, Probe
from tidewarp.store import Journal, JournalHolder, open_store
from tidewarp.twin.cuts import cuts_of, latest_cut
from tidewarp.twin.documents import OPEN, Opened, entry, platform_of
from tidewarp.twin.facts import holds_run, opening_of, released_before
from tidewarp.twin.follow import Follower, differs
from tidewarp.twin.forked import ForkedRun
from tidewarp.twin.host import Host
from tidewarp.twin.model import changed_files, refuse_while_loading
from tidewarp.twin.options import BATCH_MAX
from tidewarp.twin.repair import Rebuild, forked, forks, inline
from tidewarp.twin.run import Run
from tidewarp.twin.session import CATCH_UP, Build, Pacing, Twin
from tidewarp.twin.standby import Standby, stand_by
from tidewarp.twin.whatif import branch_of, keep_inside
from tidewarp.units import Duration, format_instant, in_seconds, parse_instant, ticks

__all__ = ["open_twin", "refuse_changed_files"]

_YEAR = re.compile(r"[12]\d{3}", re.ASCII)


def open_twin(
    journal: str | Path | Journal,
    build: Build,
    *,
    seed: int | None = None,
    factor: float | None = None,
    epoch: datetime | str | None = None,
    batch: int = BATCH_MAX,
    resume: bool = True,
    accept_model: bool = False,
    catch_up: str = "fast",
    observe: Duration = 1.0,
    host: str = "auto",
    guard: bool = False,
    standby: bool = False,
    clock: Clock | None = None,
    probe: Probe = SILENT,
) -> Twin:
    """Open a twin: begin its journal, or come back to where an earlier life stopped or was killed.

    An existing journal is replayed at full speed, work in progress included; every mark on the way is
    compared. An existing journal keeps the seed and the epoch that it was begun with.

    Args:
        journal: the file (``NAME.tw``); its key and lock stand beside it. ":memory:" keeps nothing. Or a branch of a
            journal (:meth:`Twin.branch`): then no sink of the model is opened, a live source has no more, and the run goes at
            full speed.
        build: the model: a function that wires the twin it is given.
        seed: of all random streams, 0 to 2^64 - 1; 0 by default. An existing journal refuses another one.
        factor: wall seconds per simulated second; 0 = full speed. Default: 1 with a live source, else 0.
        epoch: the instant of tick 0 (aware datetime or ISO 8601). Default: midnight UTC before the first event
            of the first source that has times of its own; without one the present if there is a live source, else
            1970-01-01.
        batch: inputs per journal record, 1 to 8,192; of a live source 512 at most.
        resume: go on with a journal that was begun; False refuses it.
        accept_model: go on although the model's files changed.
        catch_up: what the time means in which a live twin was down: "fast": it passed for the twin as well, which catches
            up at full speed; "pause": it did not.
        host: where the model runs. "inline": here; a late input that is repaired costs the run from its beginning.
            "forked": in a process of its own, with snapshots, from which repairs go on; it is restarted if it is killed. What
            the model does to other objects than registry and outputs is then not seen here, and of the registry what was
            there when the last `run` ended; it keeps no files open. "auto": forked where a source repairs, else inline.
        guard: stop model code that looks at the host's clock, or at random numbers of its own, with a ModelError that says
            where. Slow: for rehearsals.
        standby: as long as another process writes the journal, follow it and wait; go on in its place when it has gone.
            Blocks until then. What is left to do is what came behind its last mark, not the whole journal.
        observe: wall seconds between two observations (lag, backlogs, states of sources and sinks) for sinks that are
            connected with ``observe=True``; 0: none.
        clock: the wall clock; tests hand in a simulated one.
        probe: receives counts and progress.

    Raises:
        OperatorError: the journal cannot be opened, is not one, or belongs to another model or seed.
        StoreLocked: another process runs this twin.
        ModelError: the model came out differently from its own journal.
    """
    refuse_while_loading()
    branch = None if isinstance(journal, str | Path) else branch_of(journal)
    if branch is not None and standby:
        raise OperatorError("standby=True", "a branch has no other writer", "leave it out")
    if not 1 <= batch <= BATCH_MAX:
        raise OperatorError(f"batch={batch}", f"1 to {BATCH_MAX} inputs per record", "give a number in this range")
    if seed is not None and not 0 <= seed < 1 << 64:
        raise OperatorError(f"seed={seed}", "a seed is 0 to 2^64 - 1", "give a number in this range")
    Pacer(0.0 if factor is None else factor)  # refuses a factor that is none, before anything is begun
    forks(host, repairs=False)  # likewise a host
    if catch_up not in CATCH_UP:
        raise OperatorError(f"catch_up={catch_up!r}", f"one of {', '.join(CATCH_UP)}", "choose one of them")
    clock = clock or WallClock()
    file = journal if isinstance(journal, str | Path) else ":memory:"
    path, epoch_ns = Path(file), _epoch_ns(epoch)
    with contextlib.ExitStack() as stack:
        found = branch or (stand_by(file, clock) if standby else open_store(file, create=True))
        store = stack.enter_context(contextlib.closing(found))
        begun = opening_of(store.journal) if holds_run(store.journal) else None
        if begun is not None:
            if not resume:
                rule = "it holds a run, and this one begins its own journal"
                raise OperatorError(str(path), rule, "add --resume, or name another file")
            _refuse_other(begun, path, seed=seed, epoch=epoch, epoch_ns=epoch_ns)
            seed, epoch_ns = begun.seed, begun.epoch_ns
        twin = Twin(
            build,
            seed=seed or 0,
            epoch_ns=epoch_ns,
            live=True,
            batch=batch,
            probe=probe,
            present_ns=clock.unix_ns(),
            guard=guard,
        )
        stack.push(twin)
        if begun is not None and not accept_model:
            refuse_changed_files(begun, twin, path)
        twin._wire()
        if begun is not None and not accept_model:
            _refuse_changed_sources(begun, twin, path)
        if branch is not None:
            keep_inside(twin)
            factor = factor or 0.0
        twin._run.cuts_from = max((cut.tick for _, cut in cuts_of(store.journal)), default=0)
        run, rebuild = (forked if forks(host, twin._gate.sources.repairs) else inline)(twin, store.journal)
        stack.callback(run.close)  # it was begun before there is any thread, of connectors or the journal's
        _follow(twin, store, path, clock, Pacing(factor, catch_up, _observe_s(observe)), run, rebuild)
        stack.pop_all()
    twin._runner = None
    return twin


def _follow(
    twin: Twin,
    store: JournalHolder,
    path: Path,
    clock: Clock,
    pacing: Pacing,
    run: Run | ForkedRun,
    rebuild: Rebuild,
) -> None:
    """Bring a wired twin to where its journal stands, and begin its run if the journal holds none."""
    journal, table = store.journal, PathTable()
    identity = twin._identity(journal.domain)

    def begin(released: Mapping[str, str]) -> Host:
        host = Host(
            run,
            twin._gate,
            twin._outbox,
            journal,
            table,
            identity,
            clock,
            twin._probe,
            rebuild,
            partial(_spill_path, path),
            pacing.observe_s,
        )
        twin._attach(store, host, clock, pacing)
        host.open_sinks(twin._sinks, released)
        return host

    if isinstance(store, Standby):
        _follow_to_the_end(twin, store.follower(twin, run, table, begin), journal)
        return
    host = begin(released_before(journal))
    follower = Follower(journal, twin._gate, run, host.release_recovered, table=table, probe=twin._probe)
    if not holds_run(journal):  # last of all: what could not start has begun none
        model = twin._model.record(path)
        opened = Opened(
            identity.domain,
            identity.epoch_ns,
            twin.seed,
            model,
            twin._policies,
            **platform_of(),
            unix_ns=clock.unix_ns(),
        )
        journal.append([entry(OPEN, 0, opened.document())])
    if not changed_files(opening_of(journal).model, twin._model):
        cut = latest_cut(journal, host.last_ids(), twin._sinks)
        if cut is not None:
            host.release_recovered(run.restore(cut))
    _follow_to_the_end(twin, follower, journal)


def _follow_to_the_end(twin: Twin, follower: Follower, journal: Journal) -> None:
    follower.follow()
    follower.follow_ahead(all_of_it=True)
    twin._anchor = follower.anchor
    if follower.first_difference is not None:
        # What has changed was accepted, or it would have been refused before.
        changed = changed_files(opening_of(journal).model, twin._model)
        raise differs(follower.first_difference, changed)


def _spill_path(journal: Path, sink: str) -> Path:
    """Beside the journal, or in TIDEWARP_SPILL_DIR. A name of its own also where two sinks' names are spelled alike."""
    word = hashlib.sha256(f"{journal.resolve()}\0{sink}".encode()).hexdigest()[:12]
    beside = Path(tempfile.gettempdir()) if str(journal) == ":memory:" else journal.parent
    return Path(os.environ.get("TIDEWARP_SPILL_DIR") or beside) / f"{journal.stem.strip(':')}.{word}.spill"


def _refuse_other(
    begun: Opened, path: Path, *, seed: int | None, epoch: datetime | str | None, epoch_ns: int | None
) -> None:
    action = "leave it out to go on, or begin a new journal with it"
    if seed is not None and seed != begun.seed:
        raise OperatorError(f"seed={seed}", f"{path} was begun with {begun.seed}", action)
    if epoch_ns is not None and epoch_ns != begun.epoch_ns:
        raise OperatorError(f"epoch={epoch}", f"{path} was begun with {format_instant(begun.epoch_ns)}", action)


def refuse_changed_files(begun: Opened, twin: Twin, path: Path) -> None:
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


def _observe_s(observe: Duration) -> float:
    interval_s = in_seconds(ticks(observe))
    if interval_s < 0:
        raise OperatorError(f"observe={observe!r}", "seconds between two observations, 0 for none", "give 0 or more")
    return interval_s


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
