"""What sinks with ``release="early"`` are told: outputs at once, and what a repair made of them.

Each record is an Output with an id of its own, ``{number:016x}-{final:016x}-{n:08x}``, and the id of the model's output,
``~`` and ``number`` in ``provisional``. ``number`` rises with each repair and each life, so that these ids ascend over all lives, and
no replacement has the id of what it replaces. ``final`` is a tick: when the record was made, all outputs below it had been told, and nothing
could change them any more. So the last id that a sink holds says from where on a later life has to tell it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tidewarp.codec import pack
from tidewarp.connect.contract import Output

__all__ = ["Early", "complete_below", "is_early"]


def is_early(last_id: str) -> bool:
    """Is this the id of a record that an early sink was sent?"""
    return last_id.count("-") == 2


def complete_below(last_id: str) -> str:
    """As the id of an output: what a sink that holds ``last_id`` holds up to there can change no more."""
    return last_id[17:33] if is_early(last_id) else last_id


class Early:
    """Makes the records of one life. ``number`` is above those of all lives before it."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._final = 0
        self._n = -1  # of the last record with this number and this tick
        self._told: dict[str, int] = {}  # output that may still change -> the number that it was told with
        self._from = 0  # what lies below this tick was told in an earlier life

    def begin(self, last_ids: Iterable[str]) -> list[Output]:
        """In a later life, for sinks that hold these: what they were told that was not final is void, and told again."""
        held = [*last_ids]
        self._number = max([self._number, *(int(last_id[:16], 16) + 1 for last_id in held if is_early(last_id))])
        self._from = self._final = min(int(complete_below(last_id)[:16] or "0", 16) for last_id in held)
        void = [Output("", self._from, "", pack(None), "", "", 0, stream) for stream in ("event", "telemetry")]
        return [self._record(one, self._from, None, retracts=True) for one in void]

    def tell(self, outputs: Sequence[Output], gvt: int, *, changeable: bool = True) -> list[Output]:
        """The records of new outputs. ``gvt`` is journaled; ``changeable``: may a repair change what lies above it?"""
        if changeable:
            self._told.update((output.id, self._number) for output in outputs)
        fresh = [output for output in outputs if output.tick >= self._from]
        return [self._record(one, min(gvt, one.tick), self._number) for one in fresh]

    def correct(self, before: Iterable[Output], after: Sequence[Output], gvt: int) -> list[Output]:
        """The records of a repair that made ``after`` of ``before``: retractions, then what takes their place."""
        self._number, self._n = self._number + 1, -1
        kept = {output.id: _content(output) for output in after}
        wrong = [output for output in before if kept.get(output.id) != _content(output)]
        numbers = [self._told.pop(output.id) for output in wrong]
        fresh = [output for output in after if output.id not in self._told]
        final = min([gvt, *(output.tick for output in (*wrong[:1], *fresh[:1]))])
        void = [self._record(one, final, number, retracts=True) for one, number in zip(wrong, numbers, strict=True)]
        return [*void, *self.tell(fresh, gvt)]

    def settle(self, outputs: Iterable[Output]) -> None:
        """Nothing can change these any more."""
        for output in outputs:
            self._told.pop(output.id, None)

    def _record(self, output: Output, final: int, number: int | None, *, retracts: bool = False) -> Output:
        final = max(self._final, final)
        self._n = self._n + 1 if final == self._final else 0
        self._final = final
        provisional = "" if number is None else f"{output.id}~{number}"
        record_id = f"{self._number:016x}-{final:016x}-{self._n:08x}"
        return output._replace(id=record_id, provisional=provisional, retracts=retracts)


def _content(output: Output) -> Output:
    """What a sink is told of it."""
    return output._replace(event=0)
