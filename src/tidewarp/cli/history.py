"""What a run of the factory line left behind, read back for people: its journal's readings and its file of events."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from tidewarp.twin import journal_rows
from tidewarp.units import in_seconds

__all__ = ["DAY_S", "Day", "History", "Part", "days", "read_history", "same_outputs"]

DAY_S = 86_400.0
_ID_BYTES = len('{"id":"0000008fa67a4021-00000000"')


class Part(NamedTuple):
    """A part that left the line. Times in seconds of virtual time; ``how`` is "finished" or "scrapped"."""

    number: int
    ordered_s: float
    left_s: float
    how: str


@dataclass
class History:
    """One run of the line. Readings are (tick, degF) in the order of event time; the rest is ascending in time."""

    epoch_ns: int = 0
    readings: list[tuple[int, float]] = field(default_factory=list)
    resumed: list[int] = field(default_factory=list)  # ticks where a later life went on
    parts: list[Part] = field(default_factory=list)
    states: list[tuple[float, str]] = field(default_factory=list)  # seconds, the furnace's state from then on
    samples: list[tuple[float, dict[str, Any]]] = field(default_factory=list)  # seconds, how the line stood

    @property
    def end_s(self) -> float:
        """Virtual time of the last reading."""
        return in_seconds(self.readings[-1][0]) if self.readings else 0.0

    @property
    def repeated_times(self) -> int:
        """Readings less their distinct times."""
        return len(self.readings) - len({tick for tick, _ in self.readings})

    def in_progress(self, at_s: float) -> int:
        """Parts ordered but not gone at ``at_s`` seconds.

        Parts are numbered in the order of their orders, so the highest number ordered by then is how many were.
        Parts that never left are unknown to it, which matters in the last hours of a run alone.
        """
        ordered = max((part.number for part in self.parts if part.ordered_s <= at_s), default=0)
        return ordered - bisect_right(self.parts, at_s, key=lambda part: part.left_s)

    def spells(self) -> Iterator[tuple[str, float, float]]:
        """The furnace's states with begin and end in seconds. It runs until the line says otherwise."""
        changes = [(0.0, "running"), *self.states]
        ends = [at_s for at_s, _ in changes[1:]] + [self.end_s]
        for (begin_s, state), end_s in zip(changes, ends, strict=True):
            if end_s > begin_s:
                yield state, begin_s, end_s


@dataclass
class Day:
    """One day of virtual time, counted from midnight UTC."""

    degf: list[float] = field(default_factory=list)
    hours: dict[str, float] = field(default_factory=dict)  # per state of the furnace
    finished: int = 0
    scrapped: int = 0
    made_s: list[float] = field(default_factory=list)  # of the parts finished, ascending
    in_progress: int | None = None  # at the day's last sample

    def made_quantile(self, share: float) -> float | None:
        """Seconds within which this share of the day's finished parts was made (nearest rank); None without parts."""
        return self.made_s[max(0, ceil(share * len(self.made_s)) - 1)] if self.made_s else None


def read_history(journal: Path, events: Path, path: str = "line") -> History:
    """The history of the line at ``path`` from its journal and from the JSON lines that its sink wrote.

    Raises:
        OperatorError: no journal, no events, or a line that is no event. Corrupt: the journal's chain is broken.
    """
    history = History()
    for row in journal_rows(journal):
        if row["kind"] == "input" and row["path"] == f"{path}.furnace.temperature":
            history.readings.append((row["tick"], row["value"]))
        elif row["kind"] == "resume":
            history.resumed.append(row["tick"])
        elif row["kind"] == "open":
            history.epoch_ns = row["epoch_ns"]
    history.readings.sort(key=lambda reading: reading[0])
    with events.open("rb") as lines:
        for line in lines:
            _take(history, msgspec.json.decode(line), path)
    return history


def _take(history: History, event: dict[str, Any], path: str) -> None:
    at_s, value, what = event["sim_ts"], event["value"], event["key"].removeprefix(f"{path}.")
    if what in ("finished", "scrapped"):
        history.parts.append(Part(value["part"], at_s - value["made_s"], at_s, what))
    elif what == "furnace":
        history.states.append((at_s, value["state"]))
    elif what == "sample":
        history.samples.append((at_s, value))


def days(history: History) -> list[Day]:
    """The history by day; the first is the day of the epoch, the last is cut where the readings end."""
    table = [Day() for _ in range(int(history.end_s // DAY_S) + 1)]
    for tick, degf in history.readings:
        table[int(in_seconds(tick) // DAY_S)].degf.append(degf)
    for state, begin_s, end_s in history.spells():
        while begin_s < end_s:
            number = int(begin_s // DAY_S)
            stop_s = min(end_s, (number + 1) * DAY_S)
            hours = table[number].hours
            hours[state] = hours.get(state, 0.0) + (stop_s - begin_s) / 3_600
            begin_s = stop_s
    for part in history.parts:
        day = table[min(len(table) - 1, int(part.left_s // DAY_S))]
        if part.how == "finished":
            day.finished += 1
            day.made_s.append(part.left_s - part.ordered_s)
        else:
            day.scrapped += 1
    for at_s, sample in history.samples:
        table[min(len(table) - 1, int(at_s // DAY_S))].in_progress = sample["in_progress"]
    for day in table:
        day.made_s.sort()
    return table


def same_outputs(first: Path, second: Path) -> int | None:
    """How many outputs the event files of two runs hold, each once and the same but for the domain; None if not so.

    ``first`` and ``second`` are the folders of ``line.tw`` and ``events.jsonl``. Ids of one length ascend as bytes, so
    a file that strictly ascends holds none twice.
    """
    ones, others = _bare_lines(first), _bare_lines(second)
    count, last = 0, b""
    for one, other in zip_longest(ones, others, fillvalue=b""):
        if one != other or one[:_ID_BYTES] <= last:
            return None
        count, last = count + 1, one[:_ID_BYTES]
    return count


def _bare_lines(folder: Path) -> Iterator[bytes]:
    domain = next(journal_rows(folder / "line.tw", kind="open"))["domain"]
    ending = b',"domain":"%s"}\n' % domain.encode()
    with (folder / "events.jsonl").open("rb") as file:
        for line in file:
            yield line.removesuffix(ending)
