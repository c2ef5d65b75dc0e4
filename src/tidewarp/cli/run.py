"""`tidewarp run`: run a model, its inputs journaled."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any, Self

import click

from tidewarp.cli.frame import EXIT_INTERRUPTED, emit, json_option
from tidewarp.cli.progress import ProgressBar
from tidewarp.errors import CodecError, OperatorError
from tidewarp.twin import Twin, load_model, open_twin
from tidewarp.units import Duration, parse_instant, ticks

__all__ = ["command", "parse_until"]

_JOURNAL = click.Path(path_type=Path, readable=False)  # the store says what is wrong with it
_DATE = re.compile(r"\d{4}-\d")


@click.command()
@click.argument("model")
@click.option("--journal", required=True, type=_JOURNAL, help="The journal, NAME.tw.")
@click.option("--resume", is_flag=True, help="Go on where the journal ends; begin it if it is missing.")
@click.option("--until", help="Virtual time to stop at: 8h, seconds, or an ISO time. Default: the end of all data.")
@click.option(
    "--factor", type=float, default=0.0, show_default=True, help="Wall seconds per simulated second; 0 = full speed."
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
    factor: float,
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
    end = None if until is None else parse_until(until)
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
            probe=bar,
        ) as twin,
    ):
        signals.twin = twin
        summary = twin.run(end)
    emit({**asdict(summary), "journal": journal}, as_json, _render)
    return EXIT_INTERRUPTED if summary.interrupted else 0


def parse_until(text: str) -> Duration | datetime:
    """An instant if ``text`` is an ISO date, else a duration since the epoch (a bare number is seconds)."""
    if ":" in text or _DATE.match(text):
        try:
            unix_ns = parse_instant(text, UTC)
        except CodecError as error:
            raise OperatorError(f"time {text!r:.80}", error.rule, "give 8h, 3600 or 2014-01-07T02:00:00Z") from error
        if unix_ns % 1_000:
            raise OperatorError(
                f"time {text!r:.80}", "an instant has microseconds at most", "leave the last digits out"
            )
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=unix_ns // 1_000)
    try:
        duration: Duration = float(text)
    except ValueError:
        duration = text
    ticks(duration)  # refuses what is no time before anything is begun
    return duration


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
    state = "interrupted" if document["interrupted"] else "done"
    dead = ", ".join(f"{rule} {count}" for rule, count in document["dead"].items())
    lines = [
        f"{state} at {document['virtual_time_s']:,.3f} s of virtual time, {document['wall_s']:.2f} s of wall time",
        f"inputs       {document['inputs']:,} ({document['late']} late, {document['duplicates']} duplicates)",
        f"dead letters {document['dead_letters']:,}" + (f" ({dead})" if dead else ""),
        f"outputs      {document['outputs']:,}",
        *(
            f"{what:<12} {document[what]:,}"
            for what in ("clamped", "dropped", "refused", "undeliverable")
            if document[what]
        ),
        f"digest       {document['digest']}",
        f"head         {document['head']}",
        f"journal      {document['journal']} ({document['journal_records']:,} records)",
    ]
    if document["dead_letters"]:
        lines.append(f"see them     tidewarp log {document['journal']} --dead")
    for name, sink in document["sinks"].items():
        lines.append(f"sink {name}: {sink['sent']:,} sent, {sink['skipped']:,} held already, last id {sink['last_id']}")
    return "\n".join(lines)
