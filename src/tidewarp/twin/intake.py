"""The sources of a run: what the gate asks of them is done by their threads, and what they say reaches the inbox."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tidewarp.clocks import Clock
from tidewarp.connect.contract import Decoder, Gap, RunIdentity, Source
from tidewarp.connect.gate import Confirm, Gate, Read, Reconnect
from tidewarp.connect.shell import Inbox, SourceThread
from tidewarp.twin.retries import Retries

__all__ = ["Intake"]


class Intake:
    """Has a thread for each source that is open, by its name. ``present()``: the tick for what arrives now, from any thread."""

    def __init__(
        self,
        gate: Gate,
        identity: RunIdentity,
        inbox: Inbox,
        clock: Clock,
        retries: Retries,
        present: Callable[[], int],
    ) -> None:
        self._gate, self._identity, self._inbox, self._clock = gate, identity, inbox, clock
        self._retries, self._present = retries, present
        self.threads: dict[str, SourceThread] = {}

    def open(
        self,
        sources: Mapping[str, Source],
        decoders: Mapping[str, Callable[[int], Decoder | None]],
        *,
        stopped: bool,
    ) -> None:
        """Start reading each that is not open yet, behind what the journal holds. ``stopped``: as of the gate's `reopen`."""
        for name, source in sources.items():
            if name not in self.threads:
                self._gate.reopen(name, stopped=stopped)
                positions = self._gate.positions(name)
                self.threads[name] = SourceThread(
                    source,
                    positions,
                    self._identity.epoch_ns,
                    self._inbox,
                    self._clock.now,
                    self._present,
                    decoders.get(name),
                )

    def perform(self, instruction: Read | Confirm | Reconnect) -> None:
        """Do what the gate asks."""
        match instruction:
            case Read():
                self.threads[instruction.source].read(instruction.limit)
            case Confirm():
                if instruction.source in self.threads:  # a redrive opens none
                    self.threads[instruction.source].confirm(instruction.positions)
            case Reconnect():
                self._reconnect_later(instruction.source, instruction.at_s, instruction.gap)

    def _reconnect_later(self, name: str, at_s: float, gap: Gap | None) -> None:
        def reconnect() -> None:
            self.threads[name].reconnect(self._gate.positions(name), gap)

        self._retries.put("source", name, at_s, reconnect)
