"""The conservative engine of the Python tier commits what the sequential one commits, and never takes anything back."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from linked_models import Token, linked, linked_models, partitions

from tidewarp.errors import HandlerError, InternalError, ZeroLookahead
from tidewarp.kernel import Array, Context, Engine, LogicalProcess, Model, Status, i64, on, run
from tidewarp.kernel import conservative as engine_module
from tidewarp.kernel.conservative import ConservativeKernel
from tidewarp.kernel.objects import initial_image
from tidewarp.kernel.options import Options
from tidewarp.kernel.trace import Ledger
from tidewarp.units import seconds
from tidewarp.worlds.phold import phold

END = 60


def options_of(pe_of: list[int], **more: Any) -> dict[str, Any]:
    """Keywords of a conservative run on this partition."""
    return {"kernel": "conservative", "tier": "python", "workers": max(pe_of) + 1, "partition": pe_of, **more}


@given(data=st.data(), model=linked_models())
def test_every_partition_and_schedule_gives_the_sequential_digest(data: st.DataObject, model: Model) -> None:
    """Links, zero delays, outputs and accumulators: who runs what, and when, is not in the digest."""
    pe_of = data.draw(partitions(model.n_lps))
    schedule = {"schedule_seed": data.draw(st.integers(0, 2**32)), "batch": data.draw(st.integers(1, 8))}
    try:
        result = run(model, END, **options_of(pe_of, **schedule))
    except ZeroLookahead:
        assume(False)
    expected = run(model, END, tier="python")
    assert (result.digest, result.committed) == (expected.digest, expected.committed)
    assert result.outputs == expected.outputs
    assert result.rolled_back == 0


def test_phold_without_links() -> None:
    """Every LP may send to every other: one lookahead for all pairs of PEs."""
    results = [
        run(phold(lps=24, population=3), seconds(4), tier="python", **options)
        for options in ({}, {"kernel": "conservative", "workers": 3}, {"kernel": "conservative", "workers": 1})
    ]
    assert len({result.digest for result in results}) == 1
    assert results[1].stats.remote_sent > 0


class Customer(NamedTuple):
    """A customer on the way from the door to a server."""

    number: i64


class Ready(NamedTuple):
    """The door lets the next one in; a server is done."""


class Door(LogicalProcess):
    """Lets customers in."""

    admitted: i64

    def start(self, ctx: Context) -> None:
        """The first one."""
        ctx.send(ctx.lp, 0, Ready())

    @on(Ready)
    def admit(self, now: int, ready: Ready, ctx: Context) -> None:
        """Send a customer to a server, and wait for the next."""
        self.admitted += 1
        ctx.send(ctx.out(ctx.below(ctx.n_out)), 5, Customer(self.admitted))
        ctx.send(ctx.lp, ctx.exponential(10), Ready())


class Server(LogicalProcess):
    """Serves them."""

    arrived: Array[i64, 4]
    served: i64

    @on(Customer)
    def arrive(self, now: int, customer: Customer, ctx: Context) -> None:
        """Take a customer."""
        self.arrived[customer.number % 4] = now
        ctx.send(ctx.lp, ctx.exponential(30), Ready())

    @on(Ready)
    def finish(self, now: int, ready: Ready, ctx: Context) -> None:
        """One more."""
        self.served += 1


def shop(servers: int = 5) -> Model:
    """One-way links of lookahead 0: nobody ever waits for a server."""
    model = Model("shop", seed=7)
    door = model.add(Door, 1, path="door")
    model.link(door, model.add(Server, servers, path="server"), lookahead=0)
    return model


def test_one_way_links_need_no_lookahead() -> None:
    """Zero lookahead off cycles is fine: the servers follow the door."""
    result = run(shop(), 5000, kernel="conservative", workers=3, tier="python")
    assert result.digest == run(shop(), 5000, tier="python").digest
    assert result.committed > 1000


def test_a_pe_that_nobody_sends_to_runs_ahead_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """The door waits for nobody, but what it executed and the others have not reached yet is bounded."""
    monkeypatch.setattr(engine_module, "UNCOMMITTED_MOST", 16)
    options = options_of([0] + [1] * 5, batch=1000, gvt_interval=1000)
    result = run(shop(), 5000, **options)
    assert result.digest == run(shop(), 5000, tier="python").digest
    assert result.stats.live_events_most < 200


def test_a_cycle_without_lookahead_is_refused_before_the_run() -> None:
    """The error names the LPs of the cycle by their paths, link by link."""
    links = {(0, 1): 3, (1, 2): 0, (2, 3): 0, (3, 0): 0, (0, 2): 4}
    with pytest.raises(ZeroLookahead, match=r"node\.1 -> node\.2") as caught:
        run(linked(4, links), END, **options_of([0, 0, 1, 2]))
    assert "node.2 -> node.3" in str(caught.value)
    assert "node.3 -> node.0" in str(caught.value)


def test_two_pes_without_lookahead_are_refused_by_name() -> None:
    """Without links and lookahead everybody may send to everybody at once."""
    with pytest.raises(ZeroLookahead, match=r"process\.0 -> process\.4"):
        run(phold(lps=8, lookahead=0), seconds(1), kernel="conservative", workers=2, tier="python")


def test_a_cycle_without_lookahead_inside_a_pe_is_fine() -> None:
    """Within a PE nobody waits for a promise."""
    links = {(0, 1): 0, (1, 0): 0, (1, 2): 1, (2, 0): 1}
    model = linked(3, links)
    assert run(model, END, **options_of([0, 0, 1])).digest == run(model, END, tier="python").digest


def test_long_gaps_cost_a_round_each_and_no_creep() -> None:
    """A hundred thousand lookaheads between two events: promises do not climb there one by one."""
    model = linked(2, {(0, 1): 1, (1, 0): 1}, tokens=1, hops=6, spread=10**5, emit=0.0)
    end = 20 * 10**5
    result = run(model, end, **options_of([0, 1]))
    assert result.digest == run(model, end, tier="python").digest
    assert 0 < result.stats.gvt_rounds <= 3 * result.committed
    assert result.stats.turns <= 20 * result.committed


@given(data=st.data(), fail_at=st.integers(1, 6))
def test_a_failing_handler_ends_the_run_where_the_sequential_one_ends(data: st.DataObject, fail_at: int) -> None:
    """Everything before the failed event is committed, nothing after it, and the error is the same."""
    links = {(0, 1): 2, (1, 2): 0, (2, 0): 1, (1, 3): 3, (3, 1): 1, (0, 3): 0}
    model = linked(4, links, fail_at=fail_at, seed=data.draw(st.integers(0, 50)))
    pe_of = data.draw(partitions(4))
    ends = []
    for options in ({"tier": "python"}, options_of(pe_of, schedule_seed=data.draw(st.integers(0, 2**32)), batch=4)):
        try:
            engine = Engine(model, **options)
        except ZeroLookahead:
            assume(False)
        with engine:
            try:
                engine.advance(END)
                ends.append(engine.digest())
            except HandlerError as error:
                ledger = engine.ledger
                ends.append((str(error), ledger.committed, ledger.events.head(), engine.outputs(), ledger.accumulators))
                with pytest.raises(HandlerError):
                    engine.advance(END)
    assert ends[0] == ends[1]


@given(outputs_max=st.integers(1, 40), seed=st.integers(0, 20))
def test_full_outputs_stop_the_run_at_an_exact_state(outputs_max: int, seed: int) -> None:
    """With few outputs left the run stops behind the event that filled them, in the state of the sequential run there."""
    model = linked(4, {(0, 1): 1, (1, 2): 1, (2, 3): 1, (3, 0): 1}, emit=0.5, seed=seed)
    engines = [
        Engine(model, outputs_max=outputs_max, **options) for options in ({"tier": "python"}, options_of([0, 1, 0, 1]))
    ]
    while True:
        statuses = {engine.advance(END) for engine in engines}
        assert len(statuses) == 1
        assert engines[0].gvt == engines[1].gvt
        assert engines[0].image() == engines[1].image()
        assert engines[0].outputs() == engines[1].outputs()
        if statuses == {Status.DONE}:
            break
    assert engines[0].digest() == engines[1].digest()


def test_full_outputs_leave_nothing_executed_beyond_them() -> None:
    """Where events come faster than the reserve notices, the bound is passed a little, and inputs at GVT still fit."""
    model = linked(4, {(0, 1): 1, (1, 2): 1, (2, 3): 1, (3, 0): 1}, tokens=150, hops=10, emit=1.0)
    with Engine(model, outputs_max=1500, **options_of([0, 1, 0, 1])) as engine, Engine(model, tier="python") as oracle:
        assert engine.advance(40) is Status.FULL
        at = engine.gvt + 1  # the tick of GVT itself may be done in part
        for each in (engine, oracle):
            if each is oracle:
                each.advance(at - 1)
            each.inject(model.sources[0], 3, at, Token(1, 5))
        while engine.advance(40) is Status.FULL:
            assert len(engine.outputs()) <= 3000
        oracle.advance(40)
        assert engine.digest() == oracle.digest()


def test_a_source_holds_its_watermark_and_inputs_come_in_order() -> None:
    """Nothing at or above a watermark is executed; inputs for any PE may come until then."""
    model = linked(4, {(0, 1): 1, (1, 2): 1, (2, 3): 1, (3, 0): 1}, tokens=1)
    source = model.sources[0]
    digests = []
    for options in ({"tier": "python"}, options_of([0, 1, 2, 2])):
        with Engine(model, **options) as engine:
            for at, ahead in ((5, 9), (9, 9), (14, 30)):
                engine.watermark(source, at)
                assert engine.advance(END) is Status.WAITING
                assert engine.gvt == at
                engine.inject(source, at % 4, at, Token(3, at))
                engine.inject(source, 1, ahead, Token(3, at))
            assert "watermark" in engine.stalls()[0]
            engine.watermark(source, END + 1)
            assert engine.advance(END) is Status.DONE
            assert engine.stalls() == []
            digests.append(engine.digest())
    assert digests[0] == digests[1]


def test_a_run_in_steps_is_the_run_in_one_go() -> None:
    """Promises of one advance hold nothing back in the next."""
    model = linked(5, {(0, 1): 2, (1, 2): 2, (2, 0): 2, (3, 4): 0, (2, 3): 7})
    with Engine(model, **options_of([0, 1, 2, 0, 1])) as engine:
        for until in (0, 1, 17, 17, 30, END):
            assert engine.advance(until) is Status.DONE
            assert engine.gvt == until + 1
        assert engine.digest() == run(model, END, tier="python").digest


class Asking(LogicalProcess):
    """Asks the engine, while it runs, what holds it."""

    @on(Token)
    def receive(self, now: int, token: Token, ctx: Context) -> None:
        """Ask."""
        answers.append(asked[0].stalls())


answers: list[list[str]] = []
asked: list[Engine] = []


def test_stalls_name_who_waits_for_whose_promise() -> None:
    """PE 1 has an event that PE 0 could still precede; once all is done nothing holds anything."""
    model = Model("asking", lookahead=3)
    model.add(Asking, 1, path="slow")
    model.add(Asking, 1, path="fast")
    source = model.input("outside")
    with Engine(model, kernel="conservative", tier="python", workers=2) as engine:
        asked[:] = [engine]
        answers.clear()
        for lp, at in ((0, 10), (1, 40)):
            engine.inject(source, lp, at, Token(0, 0))
        engine.advance(50)
        assert engine.stalls() == []
    waits = "PE 1 waits for PE 0's promise of tick 40 at fast: it has promised 13 and stands at slow, tick 10"
    assert answers == [[waits], []]


def test_an_event_in_the_past_of_its_pe_is_our_fault() -> None:
    """The engine asserts that it never has to go back."""
    model = linked(2, {(0, 1): 1}, tokens=1)
    kernel = ConservativeKernel(
        model, initial_image(model), Ledger(model, "events", 10_000), Options(kernel="conservative", workers=2)
    )
    kernel.advance(END, END + 1)
    with pytest.raises(InternalError, match="never executes what can be preceded"):
        kernel.inject((0, 0, 0, -1, 0, Token(0, 0)))
