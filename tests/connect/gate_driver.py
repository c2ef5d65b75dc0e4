"""A gate, and a host that performs what it is told when the test says so."""

from __future__ import annotations

from typing import Any

from tidewarp.codec import pack, unpack
from tidewarp.connect import gate as gates
from tidewarp.connect.contract import Input, Raw, Undecodable, Update
from tidewarp.connect.gate import (
    Append,
    Appended,
    Arrived,
    Asked,
    Connected,
    Ended,
    Gate,
    Grant,
    Instruction,
    Policy,
    Read,
)
from tidewarp.errors import PeerError, UnknownPath
from tidewarp.process.rules import Rule
from tidewarp.units import TICK_MAX

S = 10**9
RULES = {"a": Rule("a", int, low=0, high=100), "b": Rule("b", float), "any": Rule("any", None)}


def rule(path: str) -> Rule:
    try:
        return RULES[path]
    except KeyError:
        raise UnknownPath(path, "no such path", "declare it") from None


class Plain:
    """A payload is the packed [tick, [[path, value], ...]]; what else it holds is handed on unchecked."""

    def decode(self, raw: Raw) -> Update:
        if raw.payload == b"garbage":
            raise Undecodable("garbage", "a message is packed", "pack it", "form")
        if raw.payload == b"peer":
            raise PeerError("peer", "a message is packed", "pack it")
        tick, changes = unpack(raw.payload)
        return Update(tick, tuple((path, value) for path, value in changes))


def message(offset: int, tick: int, value: Any = 1, path: Any = "a", partition: int = 0) -> Raw:
    return Raw(partition, offset, pack([tick, [[path, value]]]))


class Driver:
    """A gate, and a host that performs what it is told when the test says so."""

    def __init__(self, **sources: Policy) -> None:
        self.gate = Gate(rule)
        self.reads: dict[str, int] = {}
        self.appends: list[Append] = []
        self.granted: list[Input] = []
        self.others: list[Instruction] = []  # Confirm, Reconnect, Repair
        for name, policy in sources.items():
            self.gate.sources.register(name, policy)
        for name in sources:
            self.handle(Connected(name, Plain()))

    def handle(self, event: gates.Event) -> list[Instruction]:
        instructions = self.gate.handle(event)
        for instruction in instructions:
            if isinstance(instruction, Read):
                assert instruction.source not in self.reads, "one read is under way per source"
                self.reads[instruction.source] = instruction.limit
            elif isinstance(instruction, Append):
                self.appends.append(instruction)
            elif isinstance(instruction, Grant):
                self.granted += instruction.inputs
            else:
                self.others.append(instruction)
        return instructions

    def arrive(self, source: str, *raws: Raw) -> list[Append]:
        self.reads.pop(source, None)
        return [one for one in self.handle(Arrived(source, raws)) if isinstance(one, Append)]

    def commit(self) -> None:
        while self.appends:
            self.handle(Appended(self.appends.pop(0).ticket))

    def feed(self, source: str, *ticks: int, first: int = 0, partition: int = 0) -> None:
        """Messages at these ticks, made durable."""
        self.arrive(source, *[message(first + n, tick, partition=partition) for n, tick in enumerate(ticks)])
        self.commit()

    def end(self, source: str) -> None:
        self.reads.pop(source, None)
        self.handle(Ended(source))

    def ask(self, limit: int = TICK_MAX) -> Grant | None:
        grants = [one for one in self.handle(Asked(limit)) if isinstance(one, Grant)]
        return grants[0] if grants else None


def ticks_of(inputs: list[Input] | tuple[Input, ...]) -> list[int]:
    return [one.tick for one in inputs]
