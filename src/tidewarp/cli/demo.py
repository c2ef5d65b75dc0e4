"""`tidewarp demo`: real telemetry drives a factory line; it is killed, recovered and replayed, and the digests compared.

The folder that it makes:

    factory.py                  the model, a copy of the example that ships
    uninterrupted/line.tw       journal of the run that nothing disturbed, and its events.jsonl
    line.tw, events.jsonl       journal and events of the run that was killed and recovered
    report.html                 what happened, with plots
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import click

from tidewarp.cli.child import Child
from tidewarp.cli.frame import emit, json_option
from tidewarp.cli.history import DAY_S, History, read_history, same_outputs
from tidewarp.cli.progress import ProgressBar
from tidewarp.cli.report import write_report
from tidewarp.clocks import WallClock
from tidewarp.errors import OperatorError, TidewarpError
from tidewarp.observe import SilentProbe
from tidewarp.twin import Replay, replay
from tidewarp.units import format_instant, in_seconds
from tidewarp.worlds import factory

__all__ = ["command", "perform"]

BATCHES = (512, 128, 32)  # readings per journal record; smaller ones if a run ends before it can be killed
COLUMNS = 80


@click.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="A new or empty folder for all that it makes. Default: tidewarp-demo, or the next free number behind it.",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**64 - 1), default=0, show_default=True, help="Of all random streams of the line."
)
@json_option
def command(out: Path | None, seed: int, as_json: bool) -> int:
    """Drive a factory line with 79 days of real telemetry; kill it half-way, recover it, replay it, compare.

    It runs the line three times: undisturbed; killed with SIGKILL and resumed from its journal; and from that
    journal alone. Ends with 1 if the three digests, or the outputs of the first two, differ.
    """
    folder = make_folder(out)
    with _ended_as_by_interrupt(), ProgressBar("demo") as bar:
        document = perform(folder, seed, bar)
    emit(document, as_json, _render)
    return 0 if document["equal"] and document["outputs_equal"] else 1


def make_folder(out: Path | None) -> Path:
    """The folder to work in, new or empty. Raises OperatorError, and OSError where it cannot be made."""
    if out is not None:
        if out.exists() and not out.is_dir():
            raise OperatorError(str(out), "--out is a folder, and this is a file", "name a new folder")
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()):
            raise OperatorError(str(out), "the folder is not empty, and nothing is overwritten", "name a new folder")
        return out
    for number in itertools.count(1):
        folder = Path("tidewarp-demo" if number == 1 else f"tidewarp-demo-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        break
    return folder


@dataclass(frozen=True)
class _Kill:
    """What the killed run had done, counted after its death, and its readings per record."""

    readings: int
    outputs: int
    batch: int


class _Course(SilentProbe):
    """How long each phase took, and one bar over the three runs; the probe of the replay, the third."""

    def __init__(self, bar: ProgressBar) -> None:
        self.seconds: dict[str, float] = {}
        self._bar, self._clock = bar, WallClock()
        self._begun_s = self._phase_s = self._clock.now()
        with gzip.open(factory.SAMPLE) as file:
            self._readings = sum(1 for _ in file) - 1

    def first(self, readings: int) -> None:
        """So many are journaled by the undisturbed run."""
        self._bar.progress(readings, 3 * self._readings)

    def second(self, readings: int) -> None:
        """So many by the run that is killed, both its lives together."""
        self._bar.progress(self._readings + readings, 3 * self._readings)

    def progress(self, done: float, total: float | None) -> None:
        """``done`` of ``total`` records are replayed."""
        if total:
            self._bar.progress((2 + done / total) * self._readings, 3 * self._readings)

    def took(self, phase: str) -> None:
        """The phase ends now and the next begins."""
        now_s = self._clock.now()
        self.seconds[phase], self._phase_s = now_s - self._phase_s, now_s
        self.seconds["total"] = now_s - self._begun_s


def perform(folder: Path, seed: int, bar: ProgressBar) -> dict[str, Any]:
    """All phases in ``folder``; the document that the command prints. Blocks for about 15 s.

    Raises:
        OperatorError: the folder cannot be written, or a run failed. TidewarpError: the run could not be killed.
    """
    course = _Course(bar)
    shutil.copyfile(Path(factory.SAMPLE).with_name("factory.py"), folder / "factory.py")
    apart = folder / "uninterrupted"
    apart.mkdir()
    with Child(apart, "../factory.py", seed, BATCHES[0]) as child:
        child.watch(None, course.first)
        live = child.summary()
    course.took("uninterrupted")
    kill = _kill_half_way(folder, seed, live["inputs"] // 2, course)
    course.took("killed")
    with Child(folder, "factory.py", seed, kill.batch, resume=True) as child:
        child.watch(None, course.second)
        recovered = child.summary()
    course.took("recovered")
    replayed = replay(folder / "line.tw", probe=course)
    course.took("replayed")
    history = read_history(folder / "line.tw", folder / "events.jsonl")
    document = {
        **_compared(live, recovered, replayed, same_outputs(apart, folder)),
        "repeated_times": history.repeated_times,
        "killed_at": _killed_at(kill, history),
        "seed": seed,
        "journal": folder / "line.tw",
        "report": folder / "report.html",
        "model": folder / "factory.py",
        "next": [shlex.join(words) for words in _next(folder, recovered["head"])],
        "seconds": course.seconds,
    }
    write_report(folder / "report.html", document, history)
    course.took("report")
    return document


def _compared(
    live: Mapping[str, Any], recovered: Mapping[str, Any], replayed: Replay, outputs: int | None
) -> dict[str, Any]:
    """What the three runs say of themselves; ``outputs`` is how many the files of the first two have in common."""
    return {
        "digest_live": live["digest"],
        "digest_recovered": recovered["digest"],
        "digest_replayed": replayed.digest,
        "equal": replayed.equal is True and live["digest"] == recovered["digest"] == replayed.digest,
        "readings": recovered["inputs"],
        "late": recovered["late"],
        "outputs": recovered["outputs"],
        "outputs_equal": live["outputs"] == recovered["outputs"] == outputs,
        "virtual_days": recovered["virtual_time_s"] / DAY_S,
        "head": recovered["head"],
    }


def _kill_half_way(folder: Path, seed: int, half: int, course: _Course) -> _Kill:
    """Begin the run and kill it once ``half`` of the readings are durable."""
    for batch in BATCHES:
        for name in ("line.tw", "line.tw.key", "line.tw.lock", "line.tw-wal", "line.tw-shm", "events.jsonl"):
            (folder / name).unlink(missing_ok=True)  # of the attempt before
        with Child(folder, "factory.py", seed, batch) as child:
            if not child.watch(half, course.second):
                child.summary()  # raises if it failed
            elif child.kill():
                outputs = (folder / "events.jsonl").read_bytes().count(b"\n")
                return _Kill(child.readings(), outputs, batch)
    raise TidewarpError(
        f"the run in {folder}",
        f"it ended before it could be killed, with {BATCHES[-1]} readings per record",
        "run the demo again while the machine has less to do",
    )


def _killed_at(kill: _Kill, history: History) -> dict[str, Any]:
    """The kill. Its virtual time is where the next process, with nothing but the journal, went on."""
    tick = history.resumed[0]
    return {
        "readings": kill.readings,
        "outputs": kill.outputs,
        "tick": tick,
        "virtual_time_s": in_seconds(tick),
        "timestamp": format_instant(history.epoch_ns + tick),
        "parts_in_progress": history.in_progress(in_seconds(tick)),
    }


@contextlib.contextmanager
def _ended_as_by_interrupt() -> Iterator[None]:
    """SIGTERM ends the demo as ^C does, so that no run outlives it."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _next(folder: Path, head: str) -> list[list[str]]:
    """The words of the commands to try next."""
    found = shutil.which("tidewarp")  # it may be one of another environment, or none
    is_this = found is not None and Path(found).parent in (Path(sys.executable).parent, Path(sys.argv[0]).parent)
    tidewarp = ["tidewarp"] if is_this else [sys.executable, "-m", "tidewarp"]
    journal = str(folder / "line.tw")
    if journal.startswith("-"):
        journal = f"./{journal}"
    return [
        [*tidewarp, "verify", journal, "--head", head],
        [*tidewarp, "log", journal, "--path", "line.furnace.*", "--limit", "5"],
        [*tidewarp, "replay", journal],
    ]


def _render(document: Mapping[str, Any]) -> str:
    killed = document["killed_at"]
    lines = [
        f"{document['readings']:,} real readings of a temperature drove a factory line for {document['virtual_days']:.1f} days.",
        f"{document['late']} came late and {document['repeated_times']} repeat a time; each was journaled before it was applied.",
        "",
        _table(document),
        "",
        f"SIGKILL hit when {killed['readings']:,} readings were journaled and {killed['outputs']:,} outputs written.",
        f"The next process went on at {killed['timestamp'][:16].replace('T', ' ')}, {killed['parts_in_progress']} parts in progress.",
        _verdict(document),
        "",
        f"journal   {document['journal']}",
        f"report    {document['report']}",
        f"head      {document['head']}",
        "          keep it elsewhere: it shows later that no record is missing",
        "",
        "Try next:",
        *(f"  {_folded(command)}" for command in document["next"]),
    ]
    return "\n".join(lines)


def _table(document: Mapping[str, Any]) -> str:
    from rich.box import ASCII2
    from rich.console import Console
    from rich.table import Table

    table = Table(box=ASCII2)
    for name in ("run", "what happened", "digest (first 24)"):
        table.add_column(name, no_wrap=True)
    table.add_column("seconds", justify="right")
    seconds, killed = document["seconds"], document["killed_at"]
    day = killed["virtual_time_s"] / DAY_S
    table.add_row("undisturbed", "ran to the end", document["digest_live"][:24], f"{seconds['uninterrupted']:.1f}")
    both_s = seconds["killed"] + seconds["recovered"]
    table.add_row("recovered", f"killed on day {day:.1f}", document["digest_recovered"][:24], f"{both_s:.1f}")
    table.add_row("replayed", "from the journal", document["digest_replayed"][:24], f"{seconds['replayed']:.1f}")
    console = Console(file=StringIO(), width=COLUMNS, color_system=None, markup=False, highlight=False, emoji=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get().rstrip("\n")


def _verdict(document: Mapping[str, Any]) -> str:
    runs = "EQUAL: inputs, outputs and final state." if document["equal"] else "THE DIGESTS DIFFER."
    outputs = f"{document['outputs']:,} outputs, each written once."
    return f"{runs} {outputs}" if document["outputs_equal"] else f"{runs} THE OUTPUTS DIFFER."


def _folded(command: str) -> str:
    """A long command on two lines, as a shell takes it."""
    if len(command) < COLUMNS - 2:
        return command
    *words, last = shlex.split(command)
    return f"{shlex.join(words)} \\\n    {shlex.quote(last)}"
