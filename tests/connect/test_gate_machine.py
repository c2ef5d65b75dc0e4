"""The gate over all interleavings, against sorting: with late, poisoned and repeated messages, and crashes anywhere.

The model knows nothing of batches, watermarks or commits. What a source sends is a list for each partition; what
has to be granted is the admissible part of it, stamped by the messages before each, sorted by the key.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tidewarp.codec import pack, unpack, unpack_document
from tidewarp.connect import gate as gates
from tidewarp.connect.contract import Input, Raw, Undecodable, Update
from tidewarp.connect.documents import (
    INPUTS,
    PATHS,
    PathTable,
    decode_inputs,
    encode_dead,
    encode_ended,
    encode_inputs,
)
from tidewarp.connect.gate import Append, Appended, Arrived, Asked, Confirm, Connected, Ended, Gate, Grant, Policy, Read
from tidewarp.process.rules import Rule
from tidewarp.units import TICK_MAX

Key = tuple[int, int, int, int]
RULE = Rule("a", int, low=0)


def key_of(one: Input) -> Key:
    return one.tick, one.rank, one.partition, one.offset


class Plain:
    def decode(self, raw: Raw) -> Update:
        if raw.payload == b"garbage":
            raise Undecodable("garbage", "a message is packed", "pack it", "form")
        tick, value = unpack(raw.payload)
        return Update(tick, (("a", value), ("b", value)))


@dataclass
class World:
    """One source of the physical world. A tick of -1 is a message that cannot be read, -2 one with a bad value."""

    name: str
    rank: int
    policy: Policy
    partitions: dict[int, list[int]]
    expected: list[Key] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        for partition, ticks in self.partitions.items():
            highest = bound = 0
            for offset, tick in enumerate(ticks):
                if tick < 0:
                    self.counts["form" if tick == -1 else "value"] += 1
                    continue
                if tick < bound and self.policy.late == "drop":
                    self.counts.update(("late", "dropped"))
                    continue
                self.counts.update(inputs=1, late=int(tick < highest), clamped=int(tick < bound))
                self.expected.append((max(tick, bound), self.rank, partition, offset))
                highest = max(highest, tick)
                bound = max(bound, highest - self.policy.disorder)

    def message(self, partition: int, offset: int) -> Raw:
        tick = self.partitions[partition][offset]
        payload = b"garbage" if tick == -1 else pack([tick, offset] if tick >= 0 else [0, -1])
        return Raw(partition, offset, payload)


def worlds(draw: Any, rank: int) -> World:
    """Either partitions whose first messages are the earliest and that keep the bound, or one that keeps no bound."""
    disorder = draw(st.integers(0, 6))
    batch = draw(st.integers(1, 6))
    poison = st.integers(-2, -1)
    if draw(st.booleans()):
        steps = st.lists(poison | st.tuples(st.integers(0, 8), st.integers(0, disorder)), min_size=2, max_size=12)
        partitions = {p: [0, *_bounded(draw(steps))] for p in draw(st.sampled_from([[0], [0, 1], [2, 5, 65_535]]))}
        late = "stop"
    else:
        partitions = {draw(st.integers(0, 2)): draw(st.lists(poison | st.integers(0, 40), min_size=2, max_size=24))}
        late = draw(st.sampled_from(["clamp", "drop"]))
    total = sum(map(len, partitions.values()))
    return World(f"s{rank}", rank, Policy(disorder, late, max(total + 1, batch), batch), partitions)


def _bounded(steps: list[Any]) -> list[int]:
    ticks, top = [], 0
    for step in steps:
        if isinstance(step, int):
            ticks.append(step)
        else:
            top += step[0]
            ticks.append(max(0, top - step[1]))
    return ticks


class Crash(Exception):
    """The process is gone."""


class GateMachine(RuleBasedStateMachine):
    """A host that performs instructions one by one and may die before any of them."""

    @initialize(data=st.data())
    def begin(self, data: Any) -> None:
        count = data.draw(st.integers(1, 3))
        self.worlds = {f"s{rank}": worlds(data.draw, rank) for rank in range(1, count + 1)}
        self.expected = sorted(key for world in self.worlds.values() for key in world.expected)
        self.journal: list[tuple[Append, list[bytes]]] = []  # transactions, each with its documents
        self.history: list[Input] = []  # the longest sequence that any life was granted
        self.lives = 0
        self.fuse: int | None = None
        self.stood = (0, 0)  # in which life the floor was where
        self.live()

    # ------------------------------------------------------------------ the host
    def live(self, connect: bool = True) -> None:
        """A life begins: the journal is read back, then the sources connect."""
        self.lives += 1
        self.gate = Gate(lambda path: RULE)
        self.table = PathTable()
        self.reads: dict[str, int] = {}
        self.tickets: list[int] = []
        self.granted: list[Input] = []
        self.durable = len(self.journal)
        for world in self.worlds.values():
            assert self.gate.sources.register(world.name, world.policy) == world.rank
        for _, documents in self.journal:
            for document in documents:
                self.perform(self.gate.handle(event) for event in self.replayed(document))
        self.cursors = {name: self.gate.positions(name) for name in self.worlds}
        for name in self.worlds if connect else ():
            self.handle(Connected(name, Plain()))

    def replayed(self, data: bytes) -> list[gates.Event]:
        schema, _, value, _ = unpack_document(data)
        if schema == PATHS:
            assert value["first"] == len(self.table)
            self.table.add(value["paths"])
            return []
        name, admitted = value["source"], value["admitted"]
        if schema == INPUTS:
            return [gates.Replayed(name, admitted, decode_inputs(value, self.gate.sources.rank(name), self.table))]
        if "letters" in value:
            dead = Counter(letter[2] for letter in value["letters"])
            return [gates.Replayed(name, admitted, dead=dead, positions=dict(value["positions"]))]
        return [gates.Replayed(name, admitted, ended=True)]

    def handle(self, event: gates.Event) -> None:
        try:
            self.perform([self.gate.handle(event)])
        except Crash:
            self.die(0.5)

    def perform(self, batches: Any) -> None:
        for instructions in batches:
            for instruction in instructions:
                if self.fuse is not None:
                    self.fuse -= 1
                    if self.fuse < 0:
                        self.fuse = None
                        raise Crash
                if isinstance(instruction, Grant):
                    self.take(instruction)
                elif isinstance(instruction, Read):
                    self.read(instruction)
                elif isinstance(instruction, Append):
                    self.append(instruction)
                else:
                    self.confirm(instruction)

    def confirm(self, told: gates.Instruction) -> None:
        """What a source may forget is durable."""
        assert isinstance(told, Confirm), "nothing here is repaired, missing or disconnected"
        done = [append.positions for append, _ in self.journal[: self.durable] if append.source == told.source]
        assert told.positions in done

    def read(self, instruction: Read) -> None:
        policy = self.worlds[instruction.source].policy
        assert instruction.source not in self.reads
        assert 1 <= instruction.limit <= policy.batch
        self.reads[instruction.source] = instruction.limit

    def append(self, one: Append) -> None:
        assert one.admitted == self.gate.floor
        assert all(part.tick >= self.gate.floor for part in one.inputs)
        assert len(one.inputs) <= self.worlds[one.source].policy.batch
        documents = []
        if one.inputs:
            documents += encode_inputs(one.source, one.admitted, one.inputs, self.table)
        if one.letters or one.counted:
            documents.append(encode_dead(one.source, one.admitted, one.letters, one.counted, one.moved))
        if one.ended:
            documents.append(encode_ended(one.source, one.admitted))
        assert documents
        self.journal.append((one, documents))
        self.tickets.append(one.ticket)

    def take(self, grant: Grant) -> None:
        """What a grant may hold: judged by the journal alone."""
        assert grant.floor == self.gate.floor
        assert all(one.tick < grant.floor for one in grant.inputs)
        self.granted += grant.inputs
        keys = [key_of(one) for one in self.granted]
        assert keys == sorted(set(keys)), "in key order over all grants, each once"
        assert keys == self.expected[: len(keys)], "what sorting gives"
        both = min(len(self.granted), len(self.history))
        assert self.granted[:both] == self.history[:both], "what an earlier life was granted"
        if len(self.granted) > both:
            self.history = list(self.granted)

    def die(self, share: float) -> None:
        """Of the transactions that nobody has acknowledged, some are in the journal, from the first on."""
        self.journal = self.journal[: self.durable + round(share * (len(self.journal) - self.durable))]
        self.fuse = None
        self.live()

    # ------------------------------------------------------------------ what may happen
    @precondition(lambda self: self.reads)
    @rule(data=st.data(), n=st.integers(0, 6), again=st.booleans())
    def arrive(self, data: Any, n: int, again: bool) -> None:
        """Messages of one source from any of its partitions, perhaps with one that came before."""
        self.bring(data.draw(st.sampled_from(sorted(self.reads))), n, again, data)

    @rule(data=st.data(), n=st.integers(1, 6))
    def arrive_everywhere(self, data: Any, n: int) -> None:
        for name in data.draw(st.permutations(sorted(self.reads))):
            if name in self.reads:  # a crash on the way begins other ones
                self.bring(name, n, False, data)

    def bring(self, name: str, n: int, again: bool, data: Any) -> None:
        world, limit = self.worlds[name], self.reads.pop(name)
        raws: list[Raw] = []
        cursor = self.cursors[name]
        if again and cursor:
            partition = data.draw(st.sampled_from(sorted(cursor)))
            raws.append(world.message(partition, data.draw(st.integers(0, cursor[partition]))))
        while len(raws) < min(n, limit):
            partitions = [p for p, ticks in world.partitions.items() if cursor.get(p, -1) + 1 < len(ticks)]
            if not partitions:
                break
            fresh = [p for p in partitions if p not in cursor]  # first messages first
            partition = data.draw(st.sampled_from(fresh or partitions))
            cursor[partition] = cursor.get(partition, -1) + 1
            raws.append(world.message(partition, cursor[partition]))
        if raws or n == 0:
            self.handle(Arrived(name, raws))
        else:
            self.handle(Ended(name))

    @precondition(lambda self: self.tickets)
    @rule(n=st.integers(1, 4))
    def commit(self, n: int) -> None:
        """The journal acknowledges in the order of submission."""
        for _ in range(min(n, len(self.tickets))):
            self.durable += 1
            lives = self.lives
            self.handle(Appended(self.tickets.pop(0)))
            if self.lives != lives:
                return

    @rule(step=st.integers(-2, 30) | st.just(TICK_MAX), pause=st.booleans())
    def ask(self, step: int, pause: bool = False) -> None:
        if pause:
            self.handle(gates.Paused())
        self.handle(Asked(min(TICK_MAX, self.gate.floor + step)))

    @rule(share=st.floats(0, 1), n=st.none() | st.integers(0, 6))
    def crash(self, share: float, n: int | None) -> None:
        """Now, or before the n-th of the next instructions."""
        self.fuse = n
        if n is None:
            self.die(share)

    # ------------------------------------------------------------------ what always holds
    @invariant()
    def the_floor_is_where_the_journal_lets_it_be(self) -> None:
        if not hasattr(self, "gate"):
            return
        floor = self.gate.floor
        life, before = self.stood
        assert floor >= before or self.lives != life
        self.stood = (self.lives, floor)
        held: dict[str, dict[int, int]] = {name: {} for name in self.worlds}
        ended: set[str] = set()
        durable: set[Key] = set()
        for append, _ in self.journal[: self.durable]:
            high = held[append.source]
            for one in append.inputs:
                durable.add(key_of(one))
                high[one.partition] = max(high.get(one.partition, 0), one.event_tick)
            if append.ended:
                ended.add(append.source)
        granted = {key_of(one) for one in self.granted}
        assert granted <= durable, "granted only what the journal holds"
        assert granted == {key for key in durable if key[0] < floor}, "and all of it below the floor"
        for world in self.worlds.values():
            if world.name not in ended:
                high = held[world.name]
                watermark = min(high.values()) - world.policy.disorder if high else 0
                assert floor <= max(0, watermark), "not past the watermark of what is durable"

    def teardown(self) -> None:
        """Calm weather: everything arrives and is committed, and everything is granted, once."""
        if not hasattr(self, "gate"):
            return
        self.fuse = None
        for _ in range(2_000):
            self.ask(self.gate.end - self.gate.floor if self.gate.sources.finished else TICK_MAX)
            if self.gate.sources.finished and len(self.granted) == len(self.expected):
                break
            for name in list(self.reads):
                self.drain(name)
            while self.tickets:
                self.commit(4)
        assert [key_of(one) for one in self.granted] == self.expected
        self.check_counts()
        granted, end = list(self.granted), self.gate.end
        self.live(connect=False)
        self.ask(end - self.gate.floor)
        assert self.granted == granted, "the replay of the journal alone"
        self.check_counts()

    def drain(self, name: str) -> None:
        world, limit, cursor = self.worlds[name], self.reads.pop(name), self.cursors[name]
        places = [(p, n) for p, ticks in world.partitions.items() for n in range(cursor.get(p, -1) + 1, len(ticks))]
        places.sort(key=lambda place: (place[1] > 0, place))
        for partition, offset in places[:limit]:
            cursor[partition] = offset
        raws = [world.message(*place) for place in places[:limit]]
        self.handle(Arrived(name, raws) if raws else Ended(name))

    def check_counts(self) -> None:
        total: Counter[str] = Counter()
        for world in self.worlds.values():
            total += world.counts
        counts = self.gate.sources.counts()
        for name in ("inputs", "late", "clamped", "dropped"):
            assert counts[name] == total[name], name
        dead = {"form": total["form"], "late": total["dropped"], "value": total["value"]}
        assert self.gate.sources.dead() == {name: count for name, count in dead.items() if count}


GateMachine.TestCase.settings = settings(settings(), stateful_step_count=30)
TestGateMachine = GateMachine.TestCase
