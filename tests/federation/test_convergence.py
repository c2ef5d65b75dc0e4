"""Three to five sites that exchange journals in any way agree once each has all; the literal reading does not.

On two levels. Of real stores, that exchange what they have as they do over HTTP, the plans of ``simulated`` crash any of
them between any two writes, lose, damage and repeat messages, collect, shard anew, pin, erase, restore backups and break
disks; one plan in 24 has stores in files, which take four times as long. Of records alone, many more can be tried of
what is said and in which order it comes:

The schedules append, deliver any slice of what a site holds of a domain to any other (so: reorder, repeat, lose,
relay), partition, restart with another number of shards and without erased bodies, tombstone, lift, curate, fork, resolve. On the way,
equal vectors of heads have to mean equal state. At the end all is delivered, and all agree with a fold from nothing.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, find, given, note, seed, settings, stateful
from hypothesis import strategies as st
from simulated import DIGITS, Disks, Federation, Plan, run
from simulated import THEMES as STORE_THEMES
from workers import WORKERS, divide

from authors import hash_of, name_of
from histories import MEMBERS, VERBS, Node, Operation, World, numbers, operations, series
from tidewarp.codec import Record
from tidewarp.codec.bodies import (
    ArtifactBody,
    EdgeBody,
    LiftBody,
    TombstoneBody,
    decode_body,
)
from tidewarp.federation import FederationReplay, SnapshotRange
from tidewarp.store.fold import View, merge_order

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "")
SCHEDULES = {"ci": 4_000, "nightly": 100_000}.get(PROFILE, 300)
PLANS = {"ci": 4_000, "nightly": 100_000}.get(PROFILE, 100)
"""Of real stores: one takes as long as ten schedules of records alone, and two processes share them."""
STEPPED_PLANS = {"ci": 5, "nightly": 300}.get(PROFILE, 2)
Action = tuple[Any, ...]
"""The name of a method of Sites, and its arguments."""


class Sites:
    """Sites that each write one domain, a network between them, and what they are to agree on."""

    def __init__(self, size: int) -> None:
        self.world = World(size)
        self.nodes = [Node() for _ in range(size)]
        self.homes = list(range(size))  # where a domain is written; elsewhere once its store was copied
        self.sides = [0] * size  # of the partition
        self.states: dict[bytes, bytes] = {}  # state hash by snapshot id, of all that was ever seen

    def append(self, author: int, operation: Operation) -> None:
        """A domain writes a record, durable at its site before anybody else has it."""
        author %= len(self.nodes)
        record = self.world.do(author, operation)
        if record is not None:
            self.nodes[self.homes[author]].receive([record])

    def fork(self, author: int, home: int, place: int, operation: Operation) -> None:
        """An old copy of a domain's store is written to at another site."""
        author %= len(self.nodes)
        self.world.do(author, ("rewind", 0, place))
        self.homes[author] = home % len(self.nodes)
        self.nodes[self.homes[author]].receive(self.world.authors[author].branch())
        self.append(author, operation)

    def deliver(self, source: int, way: int, domain: int, first: int, count: int, turned: bool) -> None:
        """Some of what a site holds of a domain, whoever wrote it, in either order; nothing across a partition."""
        size = len(self.nodes)
        source, target = source % size, (source + 1 + way % (size - 1)) % size
        domains = sorted({header.domain for header, _ in self.nodes[source].records.values()})
        if self.sides[source] == self.sides[target] and domains:
            name = domains[domain % len(domains)]
            held = [record for record in self.nodes[source].records.values() if record[0].domain == name]
            batch = held[first % len(held) :][:count]
            self.nodes[target].receive(batch[::-1] if turned else batch)
            self.look(target)

    def partition(self, mask: int) -> None:
        """Two sides that do not hear each other; 0 heals."""
        self.sides = [mask >> number & 1 for number in range(len(self.nodes))]

    def restart(self, node: int, shards: int) -> None:
        """A site loses its memory and keeps its journals, without what was erased, and may store them in another way."""
        self.nodes[node % len(self.nodes)].collect()
        self.nodes[node % len(self.nodes)].restart(shards)

    def look(self, node: int) -> None:
        """Equal vectors mean equal state, whoever has them, whenever."""
        vector, state = self.nodes[node % len(self.nodes)].state()
        assert self.states.setdefault(vector, state) == state, "equal vectors, different states"

    def drain(self) -> None:
        """Heal, and let each site give all it has to the next one, round and round: most of it is relayed."""
        self.partition(0)
        for number in [*range(len(self.nodes))] * 2:
            after = self.nodes[(number + 1) % len(self.nodes)]
            after.receive(list(self.nodes[number].records.values()))

    def check_agreement(self) -> None:
        """All sites agree with each other, and with who folds all records from nothing."""
        self.drain()
        written = set(map(hash_of, self.world.records))
        assert all(node.records.keys() == written for node in self.nodes), "a record was lost"
        for number in range(len(self.nodes)):
            self.look(number)
        states = {node.state() for node in self.nodes}
        missing = {tuple(node.fold.missing_bodies()) for node in self.nodes}
        if missing == {()}:
            whole: View = FederationReplay(self.world.records, SnapshotRange(2**64 - 1), admission=MEMBERS)
        else:  # erased by records of a branch that does not count, and everybody has dropped them
            again = Node()
            again.receive(record for node in self.nodes for record in node.records.values())
            whole = again.fold
        assert len(missing) == 1
        assert states == {(whole.snapshot().id(), whole.state_hash())}
        assert {node.fold.forks() for node in self.nodes} == {whole.forks()}


small = st.integers(0, 4)
SHARDS = [1, 2, 7, 64]
THEMES = [
    ["edge", "edge", "unlink"],
    ["point"],
    ["add", "hide", "lift", "curate", "ban", "uncurate"],
    ["add", "add", "hide", "erase"],
    ["add", "claim", "claim", "hide", "judge"],
    VERBS,
]
"""What a schedule is about: of all verbs at once, few meet."""


def action(theme: Sequence[str], forking: bool, one: tuple[int, ...]) -> Action:
    """The action of some digits."""
    what, verb, a, b, c, d, e = one
    operation = theme[verb % len(theme)], a, b
    if forking and what > 12:
        if what == 13:
            return "fork", c, d, e, operation
        return "append", *((1, ("resolve", a, b)) if what == 14 else (c, ("evidence", a, b)))
    if what < 6:
        return "append", c, operation
    if what < 12:
        return "deliver", a, d, c, b % 5 if what < 9 else 0, 1 + e, b % 2 == 1
    return ("partition", b) if what < 14 else ("restart", c, SHARDS[d % 4])


@settings(max_examples=SCHEDULES, suppress_health_check=list(HealthCheck))
@given(st.integers(3, 5), st.sampled_from(THEMES), st.booleans(), series(numbers(16, len(VERBS), 8, 32, 5, 5, 10), 60))
def test_sites_agree_after_any_schedule(
    size: int, theme: Sequence[str], forking: bool, schedule: Sequence[tuple[int, ...]]
) -> None:
    sites = Sites(size)
    for one in schedule:
        verb, *arguments = action(theme, forking, one)
        note(f"{verb} {arguments}")
        getattr(sites, verb)(*arguments)
    sites.check_agreement()


class ConvergenceMachine(stateful.RuleBasedStateMachine):
    """The same, step by step: after each one, the vectors seen so far still say what state is."""

    @stateful.initialize(size=st.integers(3, 5))
    def begin(self, size: int) -> None:
        self.sites = Sites(size)

    @stateful.rule(author=small, operation=operations())
    def append(self, author: int, operation: Operation) -> None:
        self.sites.append(author, operation)

    @stateful.rule(source=small, way=small, domain=small, first=small, count=st.integers(1, 9), turned=st.booleans())
    def deliver(self, source: int, way: int, domain: int, first: int, count: int, turned: bool) -> None:
        self.sites.deliver(source, way, domain, first, count, turned)

    @stateful.rule(author=small, home=small, place=st.integers(0, 9), operation=operations())
    def fork(self, author: int, home: int, place: int, operation: Operation) -> None:
        self.sites.fork(author, home, place, operation)

    @stateful.rule(operation=operations(["evidence", "resolve"]))
    def settle(self, operation: Operation) -> None:
        self.sites.append(1, operation)

    @stateful.rule(mask=st.integers(0, 31))
    def partition(self, mask: int) -> None:
        self.sites.partition(mask)

    @stateful.rule(node=small, shards=st.sampled_from([1, 2, 7, 64]))
    def restart(self, node: int, shards: int) -> None:
        self.sites.restart(node, shards)

    @stateful.invariant()
    def look(self) -> None:
        """A prefix that counts is contiguous, its view is that of a replay at its snapshot."""
        for number, node in enumerate(getattr(self, "sites", Sites(0)).nodes):
            self.sites.look(number)
            snapshot = node.fold.snapshot()
            assert node.fold.cut(snapshot).state_hash() == node.fold.state_hash()

    def teardown(self) -> None:
        if hasattr(self, "sites"):
            self.sites.check_agreement()


TestConvergence = ConvergenceMachine.TestCase
TestConvergence.settings = settings(max_examples=max(20, SCHEDULES // 100), stateful_step_count=30)


# --- the same of real stores ------------------------------------------------------------------------------------


def plan_of(beginning: tuple[int, ...], deeds: Sequence[Sequence[int]]) -> Plan:
    size, files, theme = beginning
    return Plan(
        tuple(files == 23 and number % 2 == 0 for number in range(SIZES[size])), list(STORE_THEMES)[theme], deeds
    )


SIZES = [3, 3, 3, 4, 4, 5]
plans = st.builds(plan_of, numbers(len(SIZES), 24, len(STORE_THEMES)), series(numbers(*DIGITS), 24))


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disks]:
    with Disks(tmp_path_factory.mktemp("disks")) as made:
        yield made


def explore(folder: Path, number: int, step: Callable[[], None], examples: int) -> None:
    """Run plans that Hypothesis makes; by day a worker's are always the same. Raises what does not hold in the least of them."""

    @settings(max_examples=examples, database=None, suppress_health_check=list(HealthCheck))
    @seed(number if PROFILE == "ci" else secrets.randbits(64))
    @given(plan=plans)
    def agree(plan: Plan) -> None:
        step()
        try:
            run(disks, plan, note)
        except Exception as error:
            error.add_note(f"again: python tests/federation/simulated.py '{plan.to_json()}'")
            raise

    with Disks(folder) as disks:
        agree()


def test_real_stores_agree_after_any_plan(require, tmp_path_factory: pytest.TempPathFactory, record_property) -> None:
    require("fork")
    folders = [tmp_path_factory.mktemp("disks") for _ in range(WORKERS)]
    tried, found = divide(lambda number, step: explore(folders[number], number, step, PLANS // WORKERS))
    record_property("trials", tried)
    assert not found, "\n".join(found)
    assert tried >= PLANS


@pytest.mark.parametrize("theme", STORE_THEMES)
def test_real_stores_step_by_step(disks: Disks, theme: str) -> None:
    """A state machine of Hypothesis: what fails is shrunk to the deeds that it needs."""

    class Machine(stateful.RuleBasedStateMachine):
        @stateful.initialize(size=st.integers(3, 5), files=st.booleans())
        def begin(self, size: int, files: bool) -> None:
            are_files = [files and number % 2 == 0 for number in range(size)]
            self.sites = Federation(disks.take(are_files), theme)

        @stateful.rule(digits=numbers(*DIGITS))
        def do(self, digits: tuple[int, ...]) -> None:
            self.sites.do(theme, digits, note)

        def teardown(self) -> None:
            if hasattr(self, "sites"):
                self.sites.check_agreement()

    few = settings(max_examples=STEPPED_PLANS, stateful_step_count=20, suppress_health_check=list(HealthCheck))
    stateful.run_state_machine_as_test(Machine, settings=few)


# --- the wrong readings: each must be found out -----------------------------------------------------------------


class LiteralReading:
    """As written: sort each incoming log by (seq, id), apply it, and go on from the highest seq; a tombstone deletes."""

    def __init__(self) -> None:
        self.artifacts: set[bytes] = set()
        self.slots: dict[bytes, bytes] = {}
        self.cursor: dict[bytes, int] = {}

    def receive(self, records: Sequence[Record]) -> None:
        for record in sorted(self.fresh(records), key=lambda record: (record.seq, id_of(record))):
            body = body_of(record)
            if isinstance(body, EdgeBody):
                self.slots[body.edge.slot_key()] = id_of(record)
            elif isinstance(body, TombstoneBody):
                self.artifacts.discard(id_of(record))
            else:
                self.artifacts.add(id_of(record))
            self.advance(record)

    def fresh(self, records: Sequence[Record]) -> list[Record]:
        return [record for record in records if record.seq > self.cursor.get(record.header.domain, 0)]

    def advance(self, record: Record) -> None:
        self.cursor[record.header.domain] = max(self.cursor.get(record.header.domain, 0), record.seq)

    def state(self) -> object:
        return self.artifacts, self.slots


class LastWriterWins(LiteralReading):
    """Tombstones are events, and of two the one with the greater (seq, id) stands: ties of two domains."""

    def __init__(self) -> None:
        super().__init__()
        self.newest: dict[bytes, tuple[tuple[Any, ...], bytes]] = {}

    def receive(self, records: Sequence[Record]) -> None:
        for record in self.fresh(records):
            body = body_of(record)
            key = body.edge.slot_key() if isinstance(body, EdgeBody) else id_of(record)
            place = self.place(record)
            if key not in self.newest or place >= self.newest[key][0]:
                self.newest[key] = place, hash_of(record)
        for record in records:
            self.advance(record)

    def place(self, record: Record) -> tuple[Any, ...]:
        return record.seq, id_of(record)

    def state(self) -> object:
        return {key: record for key, (_, record) in self.newest.items()}


class TotalOrder(LastWriterWins):
    """The order has no ties any more, and the cursor still jumps over a batch that was lost."""

    def place(self, record: Record) -> tuple[Any, ...]:
        return merge_order(record)


def body_of(record: Record) -> ArtifactBody | EdgeBody | TombstoneBody | LiftBody:
    body = decode_body(record.kind, record.body)
    assert isinstance(body, ArtifactBody | EdgeBody | TombstoneBody | LiftBody)
    return body


def id_of(record: Record) -> bytes:
    return body_of(record).ref.to_bytes()


plain_steps = st.lists(st.tuples(st.integers(0, 2), operations(["add", "hide", "lift", "edge", "unlink"])), max_size=5)
slices = st.lists(st.tuples(*[st.integers(0, 2)] * 2, st.integers(0, 3), st.integers(1, 4)), max_size=4)
orders = st.tuples(*[st.permutations(range(3))] * 3)


def exchanged(make: Callable[[], Any], steps: Any, schedule: Any, final: Any) -> list[Any]:
    """Three sites after the slices of the schedule and, in the order of each, all whole logs."""
    world, nodes = World(3), [make() for _ in range(3)]
    for number, operation in steps:
        world.do(number, operation)
    logs = [author.records for author in world.authors]
    for number, node in enumerate(nodes):
        node.receive(logs[number])
    for receiver, origin, first, count in schedule:
        if receiver != origin:
            nodes[receiver].receive(logs[origin][first : first + count])
    for number, node in enumerate(nodes):
        for origin in final[number]:
            if origin != number:
                node.receive(logs[origin])
    return nodes


def disagree(make: Callable[[], Any], example: Any) -> bool:
    first, *others = [node.state() for node in exchanged(make, *example)]
    return any(state != first for state in others)


IN_ORDER = ((0, 1, 2),) * 3
LOSSY = st.tuples(plain_steps, slices, st.just(IN_ORDER))
WHOLE = st.tuples(plain_steps, st.just(()), orders)


@pytest.mark.parametrize(
    ("make", "strategy"),
    [(LiteralReading, LOSSY), (LastWriterWins, WHOLE), (TotalOrder, LOSSY)],
    ids=["literal", "last writer wins", "total order"],
)
def test_a_wrong_reading_is_found_out(make: Callable[[], Any], strategy: Any) -> None:
    """A schedule after which its sites disagree is found, and it needs few records: two suffice."""
    search = settings(max_examples=3000, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    example = find(strategy, lambda example: disagree(make, example), settings=search)
    assert len(example[0]) <= 4  # how far it is shrunk depends on what else was imported
    assert not disagree(Node, example), "the rules of the fold agree on it"


@given(LOSSY | WHOLE)
def test_no_such_schedule_is_found_for_the_fold(example: Any) -> None:
    assert not disagree(Node, example)


def test_two_records_suffice_against_the_literal_reading() -> None:
    """Site 0 adds k, site 1 hides k, both exchange whole logs: absent on one, present on the other."""
    steps = [(0, ("add", 0, 0)), (1, ("hide", 0, 0))]
    nodes = exchanged(LiteralReading, steps, (), IN_ORDER)
    assert [bool(node.artifacts) for node in nodes[:2]] == [False, True]
    nodes = exchanged(Node, steps, (), IN_ORDER)
    assert [node.fold.is_visible(name_of("k0")) for node in nodes] == [True] * 3


@settings(max_examples=200)
@given(WHOLE)
def test_a_total_order_agrees_while_nothing_is_lost(example: Any) -> None:
    """What is wrong with it is the cursor."""
    assert not disagree(TotalOrder, example)
