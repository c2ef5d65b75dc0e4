"""`tidewarp run`: run a model, its inputs journaled."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Set
from dataclasses import asdict
from datetime import datetime
from functools import partial
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import click

from tidewarp.cli.frame import EXIT_INTERRUPTED, emit, json_option
from tidewarp.cli.progress import ProgressBar
from tidewarp.cli.values import parse_time
from tidewarp.errors import OperatorError
from tidewarp.twin import CATCH_UP, HOSTS, Twin, load_model, open_twin
from tidewarp.units import in_seconds, ticks

__all__ = ["command"]

EXIT_LATE = 1
_JOURNAL = click.Path(path_type=Path, readable=False)  # the store says what is wrong with it


@click.command()
@click.argument("model")
@click.option("--journal", required=True, type=_JOURNAL, help="The journal, NAME.tw.")
@click.option("--resume", is_flag=True, help="Go on where the journal ends; begin it if it is missing.")
@click.option(
    "--until",
    help="Virtual time to stop at: 8h, seconds, or an ISO time (UTC if it says no zone). Default: the end of all data.",
)
@click.option(
    "--factor",
    type=float,
    help="Wall seconds per simulated second; 0 = full speed. Default: 1 with a live source, else 0.",
)
@click.option("--go-live", is_flag=True, help="At full speed to the present, then in step with the wall (factor 1).")
@click.option(
    "--catch-up",
    type=click.Choice(CATCH_UP),
    default="fast",
    show_default=True,
    help="Does the time pass for a live twin in which it was down?",
)
@click.option(
    "--host",
    type=click.Choice(HOSTS),
    default="auto",
    show_default=True,
    help="Where the model runs: here, or in a process of its own with snapshots for late inputs. auto: if a source repairs.",
)
@click.option("--seed", type=int, help="Of all random streams; default 0. A journal keeps its own.")
@click.option("--epoch", help="ISO time of virtual time 0. Default: midnight UTC before the first event.")
@click.option("--journal-batch", type=int, default=8_192, show_default=True, help="Inputs per journal record, at most.")
@click.option("--accept-model", is_flag=True, help="Go on although the model's files changed.")
@click.option(
    "--standby",
    is_flag=True,
    help="While another process writes the journal, follow it; go on in its place when it has gone. Implies --resume.",
)
@click.option(
    "--guard", is_flag=True, help="End at the model's first look at the host's clock or own random number. Slow."
)
@click.option("--lag-limit", type=float, help="Stop in order, and exit 1, when the run is so many wall seconds late.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@json_option
def command(
    model: str,
    journal: Path,
    resume: bool,
    until: str | None,
    factor: float | None,
    go_live: bool,
    catch_up: str,
    host: str,
    seed: int | None,
    epoch: str | None,
    journal_batch: int,
    accept_model: bool,
    standby: bool,
    guard: bool,
    lag_limit: float | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Run MODEL (a file, FILE.py or FILE.py:function), its inputs journaled.

    The journal is the run: kill this command at any moment, start it again with --resume, and the result is the
    one that it would have had. The head that it prints, kept elsewhere, shows later that no record is missing.
    """
    build = load_model(model)
    end = None if until is None else parse_time(until)
    if not isinstance(end, datetime | None) and ticks(end) < 0:
        raise OperatorError(f"--until {until}", "time begins at the epoch, 0 s", "give a later time")
    with (
        _Signals(waits=standby) as signals,
        ProgressBar("running", quiet=quiet) as bar,
        open_twin(
            journal,
            build,
            seed=seed,
            factor=factor,
            epoch=epoch,
            batch=journal_batch,
            resume=resume or standby,
            standby=standby,
            accept_model=accept_model,
            catch_up=catch_up,
            host=host,
            guard=guard,
            probe=bar,
        ) as twin,
    ):
        signals.twin = twin
        summary = twin.run(end, go_live=go_live, lag_limit=lag_limit)
        has_no_end = twin.follows_the_wall and end is None
        end_s = (end - twin.epoch).total_seconds() if isinstance(end, datetime) else in_seconds(ticks(end or 0))
    if signals.twin is None:
        emit({"interrupted": True, "journal": journal}, as_json, lambda _: "interrupted while it stood by")
        return 0
    was_there = end is not None and summary.reason == "end" and end_s < summary.virtual_time_s
    emit({**asdict(summary), "journal": journal}, as_json, partial(_render, until=until if was_there else None))
    if summary.reason == "lag":
        return EXIT_LATE
    return EXIT_INTERRUPTED if summary.interrupted and not has_no_end else 0


class _Signals:
    """The first SIGINT or SIGTERM stops the run at a completed instant; a second ends the process at once.

    Until there is a run (a recovery may take long, and can be left at any moment) the first ends the command. One that
    ``waits`` for its turn has no end of its own: to end it then is nothing out of order.
    """

    def __init__(self, *, waits: bool) -> None:
        self.twin: Twin | None = None
        self._waits = waits
        self._asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        return self._waits and self.twin is None and kind is KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            os._exit(EXIT_INTERRUPTED)
        self._asked = True
        if self.twin is None:
            raise KeyboardInterrupt
        self.twin.stop()


def _render(document: Mapping[str, Any], until: str | None = None) -> str:
    """What happened; of what seldom does, that which did. ``until``: where the run was to end, if it stood beyond."""
    state = {"end": "done", "lag": "stopped, too late,"}.get(document["reason"], "interrupted")
    if until is not None:
        state = f"beyond {until} already,"
    dead = ", ".join(f"{rule} {count}" for rule, count in document["dead"].items())
    lines = [
        f"{state} at {document['virtual_time_s']:,.3f} s of virtual time, {document['wall_s']:.2f} s of wall time",
        f"inputs       {document['inputs']:,} ({document['late']} late, {document['duplicates']} duplicates)",
        f"dead letters {document['dead_letters']:,}" + (f" ({dead})" if dead else ""),
        f"outputs      {document['outputs']:,}",
        *(
            f"{what:<12} {document[what]:,}"
            for what in ("repaired", "clamped", "dropped", "gaps", "refused", "undeliverable")
            if document[what]
        ),
        *([f"lag          {document['lag_s_max']:.3f} s of wall time, at most"] if document["lag_s_max"] else []),
        f"digest       {document['digest']}",
        f"head         {document['head']}",
        f"journal      {document['journal']} ({document['journal_records']:,} records)",
    ]
    if document["dead_letters"]:
        lines.append(f"see them     tidewarp log {document['journal']} --dead")
    lines += [
        f"source {name}: {told}"
        for name, one in document["sources"].items()
        if (told := ", ".join(filter(None, (_down(one), _named(one, one.keys() - {"state", "reason", "dropped"})))))
    ]
    lines += [f"source {name}: {count:,} shed" for name, count in document["shed"].items() if count]
    lines += [_sink_line(name, sink) for name, sink in document["sinks"].items()]
    return "\n".join([*lines, *(f"sink {name} is behind: {told}" for name, told in document["behind"].items())])


_TOLD = frozenset({"sent", "skipped", "retried", "spilled", "dead", "refusal", "behind", "state", "reason", "last_id"})


def _down(one: Mapping[str, Any]) -> str:
    """Of a source or sink that cannot be reached at the end, as words; "" of any other."""
    return f"down ({one['reason']})" if one["state"] == "down" else ""


def _named(counts: Mapping[str, Any], names: Set[str]) -> str:
    """Those that are not zero, as words."""
    return ", ".join(f"{counts[name]:,} {name.replace('_', ' ')}" for name in counts if name in names and counts[name])


def _sink_line(name: str, sink: Mapping[str, Any]) -> str:
    parts = [f"{sink['sent']:,} sent", f"{sink['skipped']:,} held already"]
    if sink["retried"]:
        parts.append(f"{sink['retried']:,} retried")
    if sink["spilled"]:
        parts.append(f"{sink['spilled']:,} waited in a file")
    if sink["dead"]:
        parts.append(f"{sink['dead']:,} refused for good ({sink['refusal']})")
    if own := _named(sink, sink.keys() - _TOLD):
        parts.append(own)
    if down := _down(sink):
        parts.append(down)
    if sink["last_id"]:
        parts.append(f"last id {sink['last_id']}")
    return f"sink {name}: {', '.join(parts)}"
