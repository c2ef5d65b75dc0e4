"""The gate with sources that repair, over all interleavings: what comes in below the floor is executed again from there.

The host of this model holds what its run was granted. On Repair it makes that anew from the journal. Whatever the
order of arrivals, commits, leases and crashes, what was granted in the end is what the journal holds, sorted by the key.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tidewarp.codec import pack, unpack
from tidewarp.connect import gate as gates
from tidewarp.connect.contract import Input, Raw, Update
from tidewarp.connect.gate import (
    Append,
    Appended,
    Arrived,
    Asked,
    Confirm,
    Connected,
    Ended,
    Gate,
    Grant,
    Passed,
    Policy,
    Read,
    Repair,
    Replayed,
)
from tidewarp.process.rules import Rule
from tidewarp.units import TICK_MAX

Key = tuple[int, int, int, int]
RULE = Rule("a", int, low=0)
SPAN = 60  # ticks in which everything happens
END = SPAN + 10  # where the clock stops until all is in


def key_of(one: Input) -> Key:
    return one.tick, one.rank, one.partition, one.offset


class Plain:
    def decode(self, raw: Raw) -> Update:
        return Update(unpack(raw.payload), (("a", 1),))


@dataclass
class World:
    """One source of the physical world: partition -> event ticks."""

    name: str
    rank: int
    policy: Policy
    partitions: dict[int, list[int]]

    def message(self, partition: int, offset: int) -> Raw:
        return Raw(partition, offset, pack(self.partitions[partition][offset]))


@st.composite
def world(draw: st.DrawFn, rank: int, covers: bool) -> World:
    """A source; ``covers``: its horizon is as long as everything."""
    partitions = {p: draw(st.lists(st.integers(0, SPAN), max_size=8)) for p in draw(st.sampled_from([[0], [0, 1]]))}
    horizon = END if covers else draw(st.sampled_from([0, 3, 10, 30]))
    policy = Policy(
        disorder=draw(st.integers(0, 6)),
        late="repair" if covers else draw(st.sampled_from(["repair", "repair", "clamp", "drop"])),
        queue=100,
        batch=draw(st.integers(1, 4)),
        wait=draw(st.booleans()),
        horizon=horizon,
        beyond=draw(st.sampled_from(["clamp", "drop"])),
    )
    return World(f"s{rank}", rank, policy, partitions)


class Crash(Exception):
    """The process is gone."""


class RepairMachine(RuleBasedStateMachine):
    """A host that performs instructions one by one, tells its GVT before anything leaves, and may die at any moment."""

    @initialize(data=st.data(), covers=st.booleans())
    def begin(self, data: Any, covers: bool) -> None:
        count = data.draw(st.integers(1, 3))
        self.covers = covers
        self.worlds = {f"s{rank}": data.draw(world(rank, covers)) for rank in range(1, count + 1)}
        self.journal: list[Append | int] = []  # transactions, and what was said of GVT between them
        self.released: list[Key] = []  # inputs below what was told of GVT: what has left can not be taken back
        self.fuse: int | None = None
        self.live()

    # ------------------------------------------------------------------ the host
    def live(self, connect: bool = True) -> None:
        """A life begins: the journal is read back, its highest GVT is passed, then the sources connect."""
        self.gate = Gate(lambda path: RULE)
        self.reads: dict[str, int] = {}
        self.tickets: list[int] = []
        self.granted: list[Key] = []
        self.repair_from = TICK_MAX
        self.lowest_gvt = 0
        self.durable = len(self.journal)
        for one in self.worlds.values():
            assert self.gate.sources.register(one.name, one.policy) == one.rank
        told = 0
        for entry in self.journal:
            if isinstance(entry, int):
                told = max(told, entry)
                continue
            event = Replayed(
                entry.source,
                entry.admitted,
                entry.inputs,
                dead=Counter(letter.rule for letter in entry.letters),
                positions=entry.moved,
                ended=entry.ended,
            )
            self.replay(self.gate.handle(event))
        self.replay(self.gate.handle(Passed(told)))
        assert self.gate.gvt >= told, "what has left is not promised anew"
        self.check_released()
        self.cursors = {name: self.gate.positions(name) for name in self.worlds}
        if connect:
            for name in self.worlds:
                self.gate.reopen(name)
            for name in self.worlds:
                self.handle(Connected(name, Plain()))

    def replay(self, instructions: list[gates.Instruction]) -> None:
        for instruction in instructions:
            assert isinstance(instruction, Grant), "a replay repairs nothing"
            self.take(instruction)

    def handle(self, event: gates.Event) -> None:
        try:
            for instruction in self.gate.handle(event):
                if self.fuse is not None:
                    self.fuse -= 1
                    if self.fuse < 0:
                        raise Crash
                match instruction:
                    case Grant():
                        self.rebuild()
                        self.take(instruction)
                    case Read():
                        assert instruction.source not in self.reads
                        self.reads[instruction.source] = instruction.limit
                    case Append():
                        self.append(instruction)
                    case Repair():
                        assert instruction.tick >= self.gate.gvt, "what is final is not executed again"
                        assert instruction.tick < self.gate.floor
                        self.repair_from = min(self.repair_from, instruction.tick)
                    case Confirm():
                        done = [one for one in self.durables() if one.source == instruction.source]
                        assert instruction.positions in [one.positions for one in done]
        except Crash:
            self.die(0.5)

    def durables(self) -> list[Append]:
        return [one for one in self.journal[: self.durable] if isinstance(one, Append)]

    def append(self, one: Append) -> None:
        policy = self.worlds[one.source].policy
        lowest = self.gate.floor
        if policy.late == "repair":
            lowest = max(self.gate.gvt, self.gate.floor - policy.horizon)
        assert all(part.tick >= lowest for part in one.inputs), (
            "nothing comes in below GVT, nor below the floor unasked"
        )
        self.journal.append(one)
        self.tickets.append(one.ticket)

    def take(self, grant: Grant) -> None:
        assert grant.floor == self.gate.floor
        keys = [key_of(one) for one in grant.inputs]
        assert all(key[0] < grant.floor for key in keys)
        assert not self.granted or not keys or keys[0] > self.granted[-1], "in key order over all grants"
        self.granted += keys

    def rebuild(self) -> None:
        """Execute again: all durable inputs below the floor, from the tick that Repair named."""
        if self.repair_from == TICK_MAX:
            return
        tick, self.repair_from = self.repair_from, TICK_MAX
        anew = [key for key in self.sorted_journal() if key[0] < self.floor_before]
        kept = [key for key in self.granted if key[0] < tick]
        assert anew[: len(kept)] == kept, "nothing changes below the tick that is named"
        self.granted = anew

    @property
    def floor_before(self) -> int:
        """The floor when the repair is made: a Grant may already have moved it, and brings what is between by itself."""
        return self.floor_seen

    def sorted_journal(self) -> list[Key]:
        return sorted(key_of(part) for one in self.durables() for part in one.inputs)

    def die(self, share: float) -> None:
        self.journal = self.journal[: self.durable + round(share * (len(self.journal) - self.durable))]
        self.fuse = None
        self.live()

    # ------------------------------------------------------------------ what may happen
    @precondition(lambda self: self.reads)
    @rule(data=st.data(), n=st.integers(0, 4), present=st.integers(0, SPAN))
    def arrive(self, data: Any, n: int, present: int) -> None:
        """Messages of one source, from any of its partitions."""
        name = data.draw(st.sampled_from(sorted(self.reads)))
        one, limit, cursor = self.worlds[name], self.reads.pop(name), self.cursors[name]
        raws: list[Raw] = []
        while len(raws) < min(n, limit):
            left = [p for p, ticks in one.partitions.items() if cursor.get(p, -1) + 1 < len(ticks)]
            if not left:
                break
            partition = data.draw(st.sampled_from(left))
            cursor[partition] = cursor.get(partition, -1) + 1
            raws.append(one.message(partition, cursor[partition]))
        self.handle(Arrived(name, raws, 0.0, present) if raws or n == 0 else Ended(name))

    @precondition(lambda self: self.tickets)
    @rule(n=st.integers(1, 4))
    def commit(self, n: int) -> None:
        """The journal acknowledges in the order of submission."""
        for _ in range(min(n, len(self.tickets))):
            gate, ticket = self.gate, self.tickets.pop(0)
            while not (isinstance(one := self.journal[self.durable], Append) and one.ticket == ticket):
                self.durable += 1  # what was said of GVT between the two
            self.durable += 1
            self.handle(Appended(ticket))
            if self.gate is not gate:
                return

    @rule(step=st.integers(0, 30) | st.just(SPAN))
    def ask(self, step: int) -> None:
        """In any step, and not always after the repair that is due."""
        self.floor_seen = self.gate.floor
        self.handle(Asked(min(END, self.gate.floor + step)))

    @rule()
    def repair(self) -> None:
        self.floor_seen = self.gate.floor
        self.rebuild()

    @rule()
    def tell(self) -> None:
        """GVT is journaled; once it is durable, what lies below it leaves."""
        if self.tickets:
            return
        self.repair()
        self.journal.append(self.gate.gvt)
        self.durable = len(self.journal)
        self.released = [key for key in self.granted if key[0] < self.gate.gvt]

    @rule(share=st.floats(0, 1), n=st.none() | st.integers(0, 6))
    def crash(self, share: float, n: int | None) -> None:
        """Now, or before the n-th of the next instructions."""
        self.fuse = n
        if n is None:
            self.die(share)

    # ------------------------------------------------------------------ what always holds
    def check_released(self) -> None:
        told = max([entry for entry in self.journal[: self.durable] if isinstance(entry, int)], default=0)
        final = [key for key in self.sorted_journal() if key[0] < told]
        assert final == self.released, "what has left stays true"

    @invariant()
    def what_was_granted_is_what_the_journal_holds(self) -> None:
        if not hasattr(self, "gate"):
            return
        assert self.gate.gvt >= self.lowest_gvt, "GVT never goes back"
        self.lowest_gvt = self.gate.gvt
        assert self.gate.gvt <= self.gate.floor
        self.check_released()
        durable = self.sorted_journal()
        assert set(self.granted) <= set(durable), "granted only what the journal holds"
        floor, tick = self.gate.floor, self.repair_from
        below = [key for key in durable if key[0] < min(floor, tick)]
        assert self.granted[: len(below)] == below, "sorted, without a hole, below what is to be executed again"
        if tick == TICK_MAX:
            assert self.granted == below

    def teardown(self) -> None:
        """Calm weather: everything arrives, is committed and granted; a replay comes to the same and repairs nothing."""
        if not hasattr(self, "gate"):
            return
        self.fuse = None
        for _ in range(500):
            self.ask(END)
            for name in list(self.reads):
                one, limit, cursor = self.worlds[name], self.reads.pop(name), self.cursors[name]
                places = [
                    (p, n) for p, ticks in one.partitions.items() for n in range(cursor.get(p, -1) + 1, len(ticks))
                ]
                for partition, offset in places[:limit]:
                    cursor[partition] = offset
                raws = [one.message(*place) for place in places[:limit]]
                self.handle(Arrived(name, raws) if raws else Ended(name))
            while self.tickets:
                self.commit(4)
            self.repair()
            if self.gate.sources.finished and not self.gate.appending and self.gate.floor == END:
                break
        assert self.gate.sources.finished
        self.handle(Asked(END + 1))  # what was clamped to the end
        assert self.granted == self.sorted_journal()
        arrived = sum(len(ticks) for one in self.worlds.values() for ticks in one.partitions.values())
        assert len(self.granted) + self.gate.sources.counts()["dropped"] == arrived, "nothing is lost without a count"
        if self.covers:
            places = [
                (tick, one.rank, p, n)
                for one in self.worlds.values()
                for p, ticks in one.partitions.items()
                for n, tick in enumerate(ticks)
            ]
            assert self.granted == sorted(places), "whatever the interleaving: as if all had come in time"
        granted, counts = self.granted, self.gate.sources.counts()
        self.live(connect=False)
        self.replay(self.gate.handle(Passed(END + 1)))
        assert self.granted == granted, "the replay of the journal alone"
        assert self.gate.sources.counts() == counts | {"duplicates": 0}


RepairMachine.TestCase.settings = settings(settings(), stateful_step_count=30)
TestRepairMachine = RepairMachine.TestCase
