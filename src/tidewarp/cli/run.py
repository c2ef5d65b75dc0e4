"""`tidewarp run`: run a model, its inputs journaled."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any, Self

import click

from tidewarp.cli.frame import EXIT_INTERRUPTED, emit, json_option
from tidewarp.cli.progress import ProgressBar
from tidewarp.cli.values import parse_time
from tidewarp.errors import OperatorError
from tidewarp.twin import CATCH_UP, Twin, load_model, open_twin
from tidewarp.units import ticks

__all__ = ["command"]

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
@click.option("--seed", type=int, help="Of all random streams; default 0. A journal keeps its own.")
@click.option("--epoch", help="ISO time of virtual time 0. Default: midnight UTC before the first event.")
@click.option("--journal-batch", type=int, default=8_192, show_default=True, help="Inputs per journal record, at most.")
@click.option("--accept-model", is_flag=True, help="Go on although the model's files changed.")
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
    seed: int | None,
    epoch: str | None,
    journal_batch: int,
    accept_model: bool,
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
        _Signals() as signals,
        ProgressBar("running", quiet=quiet) as bar,
        open_twin(
            journal,
            build,
            seed=seed,
            factor=factor,
            epoch=epoch,
            batch=journal_batch,
            resume=resume,
            accept_model=accept_model,
            catch_up=catch_up,
            probe=bar,
        ) as twin,
    ):
        signals.twin = twin
        summary = twin.run(end, go_live=go_live)
        has_no_end = twin.follows_the_wall and end is None
    emit({**asdict(summary), "journal": journal}, as_json, _render)
    return EXIT_INTERRUPTED if summary.interrupted and not has_no_end else 0


class _Signals:
    """The first SIGINT or SIGTERM stops the run at a completed instant; a second ends the process at once.

    Until there is a run (a recovery may take long, and can be left at any moment) the first ends the command.
    """

    def __init__(self) -> None:
        self.twin: Twin | None = None
        self._asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            os._exit(EXIT_INTERRUPTED)
        self._asked = True
        if self.twin is None:
            raise KeyboardInterrupt
        self.twin.stop()


def _render(document: Mapping[str, Any]) -> str:
    """What happened; of what seldom does, that which did."""
    state = "interrupted" if document["interrupted"] else "done"
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
    return "\n".join([*lines, *(_sink_line(name, sink) for name, sink in document["sinks"].items())])


def _sink_line(name: str, sink: Mapping[str, Any]) -> str:
    parts = [f"{sink['sent']:,} sent", f"{sink['skipped']:,} held already"]
    if sink["retried"]:
        parts.append(f"{sink['retried']:,} retried")
    if sink["spilled"]:
        parts.append(f"{sink['spilled']:,} waited in a file")
    if sink["behind"]:
        parts.append(f"{sink['behind']:,} left behind: --resume makes them again")
    if sink["dead"]:
        parts.append(f"{sink['dead']:,} refused for good ({sink['refusal']})")
    if sink["last_id"]:
        parts.append(f"last id {sink['last_id']}")
    return f"sink {name}: {', '.join(parts)}"
