"""What a killed life left behind, checked from outside; the checks are named in ``testing.kill``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tidewarp.errors import OperatorError, TidewarpError
from tidewarp.seeds import Stream
from tidewarp.testing.lives import COUNTS, JOURNAL
from tidewarp.twin import Build, Verified, journal_rows, replay, verify

__all__ = ["OUTPUTS", "Course", "Undisturbed", "Wrong", "output_lines"]

OUTPUTS = "events.jsonl"  # in the folder of a run: what the model's sink writes, where no other name is given


class Wrong(Exception):
    """A check failed: its word, and what was found."""

    def __init__(self, check: str, message: str) -> None:
        super().__init__(check, message)
        self.check, self.message = check, message


@dataclass
class Course:
    """What is known of one run so far, from what its lives said and from what they left."""

    number: int
    folder: Path
    chance: Stream
    head: str | None = None  # of the journal, when it was last looked at
    inputs: int = 0  # in it
    explained: int = 0  # outputs that it gave when it was last replayed
    acknowledged: dict[tuple[str, int], int] = field(default_factory=dict)  # (source, partition) -> offset
    kills: list[str] = field(default_factory=list)  # places


@dataclass(frozen=True)
class Undisturbed:
    """The run that all others have to equal: what it said at its end, and its outputs."""

    build: Build
    done: Mapping[str, Any]
    outputs: Sequence[bytes]
    file: str = OUTPUTS  # that holds them, in the folder of a run

    def check_remains(self, course: Course) -> None:
        """A killed life's files. Raises Wrong."""
        verified = self._verified(course)
        if verified is None:
            return
        self._check_acknowledged(course)
        lines = output_lines(course.folder / self.file, verified)
        if lines != self.outputs[: len(lines)]:
            raise Wrong("prefix", _first_difference(lines, self.outputs))
        if course.explained < len(lines):  # a journal only grows: what it explained once, it explains for ever
            course.explained = self._replayed(course, None)
        if course.explained < len(lines):
            raise Wrong("explained", f"the journal determines {course.explained} outputs, the sink holds {len(lines)}")

    def _verified(self, course: Course) -> Verified | None:
        """The journal's audit; None if the run was killed before it had begun one, and nothing came of it."""
        try:
            verified: Verified | None = verify(course.folder / JOURNAL, head=course.head)
        except OperatorError as error:
            verified, found = None, str(error)
        else:
            found = "the journal is empty"
        if verified is not None and verified.records:
            course.head, course.inputs = verified.head, verified.inputs
            return verified
        outputs = course.folder / self.file
        if course.head is not None or course.acknowledged or (outputs.exists() and outputs.stat().st_size):
            raise Wrong("verify", found)
        return None

    def _check_acknowledged(self, course: Course) -> None:
        held: dict[tuple[str, int], int] = {}
        for row in journal_rows(course.folder / JOURNAL):
            if row["kind"] in ("input", "dead"):
                place = row["source"], row["partition"]
                held[place] = max(held.get(place, -1), row["offset"])
        for place, offset in course.acknowledged.items():
            if held.get(place, -1) < offset:
                found = f"the journal ends at {held.get(place, 'no message')}"
                raise Wrong("acknowledged", f"source {place[0]!r} was told {offset}, {found}")

    def _replayed(self, course: Course, digest: str | None) -> int:
        """How many outputs the journal alone gives; its marks, and with ``digest`` its end, are compared."""
        try:
            found = replay(course.folder / JOURNAL, self.build)
        except TidewarpError as error:
            raise Wrong("explained", f"its replay fails: {error}") from error
        if found.first_difference is not None:
            raise Wrong("explained", f"its replay differs: {found.first_difference}")
        if digest is not None and (found.digest != digest or not found.equal):
            raise Wrong("digest", f"of its replay {found.digest}, recorded {found.recorded}, undisturbed {digest}")
        return found.outputs

    def check_end(self, course: Course, done: Mapping[str, Any]) -> None:
        """A run that ended has to equal the undisturbed one."""
        digest, verified = self.done["digest"], self._verified(course)
        self._check_acknowledged(course)
        for name in COUNTS:
            if done[name] != self.done[name]:
                raise Wrong("counts", f"{name} {done[name]}, undisturbed {self.done[name]}")
        if verified is None or not digest == done["digest"] == verified.digest:
            raise Wrong("digest", f"{done['digest']}, in its journal {verified}, undisturbed {digest}")
        lines = output_lines(course.folder / self.file, verified)
        if lines != self.outputs:
            raise Wrong("outputs", _first_difference(lines, self.outputs))
        self._replayed(course, digest)


def output_lines(path: Path, verified: Verified) -> list[bytes]:
    """The whole lines of a sink's file without the domain, in which alone two runs differ."""
    data = path.read_bytes() if path.exists() else b""
    return data[: data.rfind(b"\n") + 1].replace(verified.domain.encode(), b"").splitlines()


def _first_difference(found: Sequence[bytes], expected: Sequence[bytes]) -> str:
    for number, (one, other) in enumerate(zip(found, expected, strict=False), 1):
        if one != other:
            return f"line {number} is {one[:200]!r}, undisturbed {other[:200]!r}"
    return f"{len(found)} lines, undisturbed {len(expected)}"
