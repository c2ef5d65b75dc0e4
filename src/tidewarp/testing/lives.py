"""One life of a twin in a process of its own, which may be killed: what it had acknowledged, where it stood.

The child tells its parent through a pipe, a JSON line each: ``confirm`` (a source learned that its positions are
durable), ``done``, ``error``. What was written there before SIGKILL arrives. The stage that it has reached
stands in a mapped byte, which outlives it too.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import select
import signal
import subprocess
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn, cast

from tidewarp.clocks import Clock, WallClock
from tidewarp.connect.contract import Source
from tidewarp.observe import STAGES, on_stage
from tidewarp.twin import Build, Twin, open_twin

__all__ = ["COUNTS", "JOURNAL", "START", "Aim", "Life", "commanded", "forked", "journal_bytes"]

JOURNAL = "run.tw"  # in the folder of a run, which is the working directory of its lives
START = "start"  # a place: before the first stage of a life
COUNTS = (
    "inputs",
    "outputs",
    "late",
    "clamped",
    "dropped",
    "refused",
    "dead_letters",
)  # of a summary, equal in every run
_HUNG_S = 60.0  # a life that takes longer, and is not to be killed later, will never end
_POLL_S = 0.002  # how often the size of a command's journal is looked at
_TEXT_MAX = 3_000  # characters of an error: a pipe takes a message of this size as a whole


@dataclass(frozen=True)
class Aim:
    """When a life is to be killed: at an arrival (from 1) at a stage, after wall seconds, or at a size in bytes."""

    stage: str | None = None
    arrival: int = 0
    delay_s: float | None = None
    journal_bytes: int | None = None


@dataclass(frozen=True)
class Life:
    """How a life went. ``done`` is what it said when it ended by itself, else None; ``error`` why it could not."""

    place: str
    killed: bool
    took_s: float
    acknowledged: Mapping[tuple[str, int], int] = field(default_factory=dict)  # (source, partition) -> offset
    done: Mapping[str, Any] | None = None
    error: str | None = None


def forked(
    build: Build,
    folder: Path,
    aim: Aim = Aim(),
    *,
    seed: int,
    batch: int,
    pauses_s: Sequence[float] = (),
    prepare: Sequence[Callable[[], None]] = (),
) -> Life:
    """Open the twin of JOURNAL in ``folder`` in a forked child and run it, up to its end or its kill. Blocks.

    Args:
        build: the model.
        folder: the child's working directory.
        aim: when it dies; without one it is killed after 60 s and counts as hung.
        seed: of the twin.
        batch: inputs per journal record, at most.
        pauses_s: virtual times, ascending, at which its run ends in order and goes on.
        prepare: called in the child first: tests plant their mistakes there.
    """
    clock = WallClock()
    begun_s = clock.now()
    word = mmap.mmap(-1, 1)  # anonymous and shared
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(out)
        _be_child(build, folder, aim, seed, batch, pauses_s, prepare, word, into)
    os.close(into)
    try:
        text = _listen(clock, out, child, begun_s + _due_s(aim))
    finally:
        os.close(out)
        _, status = os.waitpid(child, 0)
    place = aim.stage if aim.stage is not None else (START, *STAGES)[word[0]]
    word.close()
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    return _life(text, aim, place, killed, clock.now() - begun_s)


def commanded(command: Sequence[str], folder: Path, aim: Aim = Aim()) -> Life:
    """Run ``command``, which prints its result as JSON, in ``folder``, up to its end or its kill. Blocks."""
    clock = WallClock()
    begun_s = clock.now()
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        while process.poll() is None:
            due = clock.now() - begun_s >= _due_s(aim)
            if due or (aim.journal_bytes is not None and journal_bytes(folder) >= aim.journal_bytes):
                process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_POLL_S)
        out, err = process.communicate()
    took_s, place = clock.now() - begun_s, "by time" if aim.journal_bytes is None else "by size"
    if process.returncode == 0:
        return Life(place, False, took_s, done=json.loads(out))
    killed = process.returncode == -signal.SIGKILL
    error = _hung(aim, place, took_s) if killed else err.decode(errors="replace")[-_TEXT_MAX:]
    return Life(place, killed, took_s, error=error)


def journal_bytes(folder: Path) -> int:
    """Size of the journal in ``folder``, with what is not yet moved into the file itself; 0 without one."""
    size = 0
    for suffix in ("", "-wal"):
        with contextlib.suppress(FileNotFoundError):
            size += (folder / f"{JOURNAL}{suffix}").stat().st_size
    return size


def _due_s(aim: Aim) -> float:
    return _HUNG_S if aim.delay_s is None else aim.delay_s


def _listen(clock: Clock, out: int, child: int, due_s: float) -> bytes:
    """All that the child writes; at ``due_s`` it is killed."""
    text, alive = b"", True
    while True:
        left_s = max(0.0, due_s - clock.now()) if alive else None
        if select.select([out], [], [], left_s)[0]:
            part = os.read(out, 1 << 16)
            if not part:
                return text
            text += part
        else:
            os.kill(child, signal.SIGKILL)
            alive = False


def _be_child(
    build: Build,
    folder: Path,
    aim: Aim,
    seed: int,
    batch: int,
    pauses_s: Sequence[float],
    prepare: Sequence[Callable[[], None]],
    word: mmap.mmap,
    into: int,
) -> NoReturn:
    """The child's whole life. Whatever happens, it does not return into the parent's program."""
    try:
        os.chdir(folder)
        for one in prepare:
            one()
        arrivals = _die_at(aim, word)
        with open_twin(JOURNAL, _witnessed(build, into), seed=seed, batch=batch) as twin:
            for until_s in pauses_s:
                twin.run(until=until_s)
            summary = twin.run()
        done = {name: getattr(summary, name) for name in ("digest", "journal_records", "virtual_time_s", *COUNTS)}
        _say(into, {"done": {**done, "arrivals": arrivals}})
    except BaseException:
        _say(into, {"error": traceback.format_exc()[-_TEXT_MAX:]})
    finally:
        os._exit(0)  # no handlers, no buffers, no test framework of the parent


def _die_at(aim: Aim, word: mmap.mmap) -> Counter[str]:
    """Keep the stage in ``word`` and die at the aim; the arrivals so far. Each stage belongs to one thread."""
    arrivals: Counter[str] = Counter()
    number = {name: n for n, name in enumerate(STAGES, 1)}

    def listen(name: str) -> None:
        word[0] = number[name]
        arrivals[name] += 1
        if name == aim.stage and arrivals[name] == aim.arrival:
            os.kill(os.getpid(), signal.SIGKILL)

    on_stage(listen)
    return arrivals


class _Witness:
    """A twin as the model sees it, whose sources tell the parent what is acknowledged to them."""

    def __init__(self, twin: Twin, into: int) -> None:
        self._twin, self._into = twin, into

    def __getattr__(self, name: str) -> Any:
        return getattr(self._twin, name)

    def connect(self, source: Source, **options: Any) -> None:
        self._twin.connect(cast("Source", _WitnessedSource(source, self._into)), **options)


class _WitnessedSource:
    def __init__(self, source: Source, into: int) -> None:
        self.__dict__.update(_source=source, _into=into)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._source, name, value)

    async def confirm(self, positions: Mapping[int, int]) -> None:
        _say(self._into, {"confirm": [self._source.name, list(positions.items())]})
        await self._source.confirm(positions)


def _witnessed(build: Build, into: int) -> Build:
    @wraps(build)  # so that the twin finds the model's file through it
    def build_witnessed(twin: Twin) -> None:
        build(cast("Twin", _Witness(twin, into)))

    return build_witnessed


def _say(into: int, message: Mapping[str, Any]) -> None:
    """One line to the parent, as a whole or not at all: a pipe guarantees that up to 4,096 bytes."""
    os.write(into, json.dumps(message).encode() + b"\n")


def _hung(aim: Aim, place: str, took_s: float) -> str | None:
    return (
        f"hung: no end after {took_s:.0f} s, last seen at {place}"
        if took_s >= _HUNG_S and aim.delay_s is None
        else None
    )


def _life(text: bytes, aim: Aim, place: str, killed: bool, took_s: float) -> Life:
    acknowledged: dict[tuple[str, int], int] = {}
    done = None
    error = _hung(aim, place, took_s) if killed else None
    for line in text.splitlines():
        message = json.loads(line)
        if "confirm" in message:
            source, positions = message["confirm"]
            acknowledged |= {(source, partition): offset for partition, offset in positions}
        done, error = message.get("done", done), message.get("error", error)
    if done is None and error is None and not killed:
        error = "the child ended without a word"
    return Life(place, killed and done is None, took_s, acknowledged, done, error)
