"""The compiled conservative engine: threads commit what the sequential engine of the Python tier commits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from linked_models import Token, linked, linked_models, partitions

from tidewarp.errors import HandlerError, InternalError, PoolExhausted, ZeroLookahead
from tidewarp.kernel import Engine, Model, Status, run
from tidewarp.units import seconds
from tidewarp.worlds.phold import phold

END = 60
slow = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def small_arrays(require: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Arrays so small that each of them has to grow; no thread may outlive its engine."""
    require("numba")
    from tidewarp.kernel.shell.compiled import load_kernel

    load_kernel("conservative")  # by way of the cache
    from tidewarp.kernel.compiled import conservative_arrays
    from tidewarp.kernel.shell import conservative

    monkeypatch.setattr(conservative_arrays, "LOG_ENTRIES", 48)
    monkeypatch.setattr(conservative_arrays, "EFFECTS", 2)
    monkeypatch.setattr(conservative, "SLOTS_MIN", 4)
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tidewarp-pe")]


def options_of(pe_of: list[int], **more: Any) -> dict[str, Any]:
    """Keywords of a compiled conservative run on this partition."""
    return {"kernel": "conservative", "tier": "compiled", "workers": max(pe_of) + 1, "partition": pe_of, **more}


@slow
@given(data=st.data(), model=linked_models())
def test_every_partition_gives_the_sequential_digest(data: st.DataObject, model: Model) -> None:
    """Links, zero delays, outputs, accumulators; rings of two messages, slices of few turns."""
    pe_of = data.draw(partitions(model.n_lps))
    sizes = {
        "batch": data.draw(st.integers(1, 8)),
        "ring": data.draw(st.sampled_from([2, 16])),
        "slice_turns": data.draw(st.sampled_from([3, 1000])),
        "digest": data.draw(st.sampled_from(["events", "state"])),
    }
    try:
        result = run(model, END, **options_of(pe_of, **sizes))
    except ZeroLookahead:
        assume(False)
    expected = run(model, END, tier="python", digest=sizes["digest"])
    assert (result.committed, result.accumulators) == (expected.committed, expected.accumulators)
    assert list(result.outputs) == list(expected.outputs)
    assert result.digest == expected.digest
    assert result.rolled_back == 0
    assert result.stats.executed == result.committed


@pytest.mark.parametrize("digest", ["events", "state"])
def test_phold_without_links(digest: Any) -> None:
    """Many messages cross; the number of threads is not in the digest."""
    expected = run(phold(lps=24, population=3), seconds(4), tier="python", digest=digest)
    for workers in (1, 2, 4):
        result = run(
            phold(lps=24, population=3), seconds(4), **options_of([lp % workers for lp in range(24)], digest=digest)
        )
        assert (result.digest, result.committed) == (expected.digest, expected.committed)
        assert (result.stats.remote_sent > 10) == (workers > 1)


def test_the_digest_of_phold_stays_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Golden: 161,700 events on two threads."""
    from tidewarp.kernel.compiled import conservative_arrays

    monkeypatch.setattr(conservative_arrays, "LOG_ENTRIES", 2**13)
    result = run(phold(), seconds(10), kernel="conservative", tier="compiled", workers=2)
    assert result.digest == "96c7d460886c4f131e627b889bee014ee84d1e3d6e35176f4e7d7133e7027798"


def test_a_cycle_without_lookahead_is_refused_before_the_run() -> None:
    """As in the Python tier, and no thread is left."""
    with pytest.raises(ZeroLookahead, match=r"node\.1 -> node\.0"):
        run(linked(2, {(0, 1): 0, (1, 0): 0}), END, **options_of([0, 1]))


def test_long_gaps_cost_rounds_and_no_creep() -> None:
    """Ten million lookaheads between two events: one round lifts the promises over the gap."""
    model = linked(2, {(0, 1): 1, (1, 0): 1}, tokens=1, hops=6, spread=10**7, emit=0.0)
    end = 20 * 10**7
    result = run(model, end, **options_of([0, 1]))
    assert result.digest == run(model, end, tier="python").digest
    assert result.stats.gvt_rounds > 0
    assert result.stats.turns < 10**6


@slow
@given(data=st.data(), fail_at=st.integers(1, 6))
def test_a_failing_handler_ends_the_run_where_the_sequential_one_ends(data: st.DataObject, fail_at: int) -> None:
    """Everything before the failed event is committed, nothing after it, and the text of the error is the same."""
    links = {(0, 1): 2, (1, 2): 0, (2, 0): 1, (1, 3): 3, (3, 1): 1, (0, 3): 0}
    model = linked(4, links, fail_at=fail_at, seed=data.draw(st.integers(0, 50)))
    pe_of = data.draw(partitions(4))
    ends = []
    for options in ({"tier": "python"}, options_of(pe_of, batch=4, slice_turns=5)):
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


@settings(slow, max_examples=settings.default.max_examples // 5)
@given(outputs_max=st.integers(1, 40), seed=st.integers(0, 20))
def test_full_outputs_stop_the_run_at_an_exact_state(outputs_max: int, seed: int) -> None:
    """With few outputs left the PEs take turns: the run stops behind the event that filled them."""
    model = linked(4, {(0, 1): 1, (1, 2): 1, (2, 3): 1, (3, 0): 1}, emit=0.5, hops=6, seed=seed)
    oracle = Engine(model, outputs_max=outputs_max, tier="python")
    with Engine(model, outputs_max=outputs_max, **options_of([0, 1, 0, 1])) as engine:
        while True:
            statuses = {each.advance(END) for each in (oracle, engine)}
            assert len(statuses) == 1
            assert oracle.gvt == engine.gvt
            assert oracle.image() == engine.image()
            assert oracle.outputs() == engine.outputs()
            if statuses == {Status.DONE}:
                break
        assert oracle.digest() == engine.digest()


def test_outputs_near_the_bound_are_not_lost() -> None:
    """Threads first, then turns in key order; taken again and again."""
    model = linked(4, {(0, 1): 1, (1, 2): 1, (2, 3): 1, (3, 0): 1}, tokens=40, hops=8, emit=1.0)
    expected = run(model, 40, tier="python")
    outputs = []
    with Engine(model, outputs_max=1200, **options_of([0, 1, 0, 1])) as engine:
        while engine.advance(40) is Status.FULL:
            outputs += engine.outputs()
        outputs += engine.outputs()
        assert len(outputs) > 1200
        assert outputs == list(expected.outputs)
        assert engine.digest() == expected.digest


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
            engine.watermark(source, END + 1)
            assert engine.advance(END) is Status.DONE
            assert engine.stalls() == []
            digests.append(engine.digest())
    assert digests[0] == digests[1]


def test_a_run_in_steps_is_the_run_in_one_go() -> None:
    """Promises of one advance hold nothing back in the next; states are those of the Python tier at each step."""
    model = linked(5, {(0, 1): 2, (1, 2): 2, (2, 0): 2, (3, 4): 0, (2, 3): 7})
    oracle = Engine(model, tier="python")
    with Engine(model, **options_of([0, 1, 2, 0, 1])) as engine:
        for until in (0, 1, 17, 17, 30, END):
            oracle.advance(until)
            assert engine.advance(until) is Status.DONE
            assert [engine.state(lp) for lp in range(5)] == [oracle.state(lp) for lp in range(5)]
        assert engine.digest() == oracle.digest()


def test_a_pe_without_any_event_holds_nothing_back() -> None:
    """One PE has nothing to commit, ever."""
    model = linked(3, {(0, 1): 1, (1, 0): 1, (2, 0): 1}, tokens=0)
    digests = []
    for options in ({"tier": "python"}, options_of([0, 1, 2])):
        with Engine(model, **options) as engine:
            engine.inject(model.sources[0], 0, 3, Token(9, 1))
            engine.advance(END)
            assert engine.ledger.committed > 3
            digests.append(engine.digest())
    assert digests[0] == digests[1]


def test_the_memory_bound_is_kept() -> None:
    """What the pending events need is counted over all PEs; the error says how much that is."""
    model = linked(2, {(0, 1): 1, (1, 0): 1}, tokens=400)
    with pytest.raises(PoolExhausted, match="the bound is 100000"):
        run(model, END, memory_max_bytes=100_000, **options_of([0, 1]))


def test_stalls_name_who_waits_for_whose_promise() -> None:
    """Looked at in the middle of a run, as the watchdog of a session does."""
    model = linked(2, {(0, 1): 3, (1, 0): 3}, tokens=0)
    with Engine(model, **options_of([0, 1])) as engine:
        for lp, at in ((0, 10), (1, 40)):
            engine.inject(model.sources[0], lp, at, Token(0, 0))
        assert engine.stalls() == []
        kernel = engine._kernel  # type: ignore[attr-defined]
        kernel._bound = 100
        assert kernel.stalls() == [
            "PE 0 waits for PE 1's promise of tick 10 at node.0: it has promised 3 and stands at node.1, tick 40",
            "PE 1 waits for PE 0's promise of tick 40 at node.1: it has promised 3 and stands at node.0, tick 10",
        ]
        engine.advance(50)
        assert engine.stalls() == []


def test_a_message_in_the_past_of_its_pe_is_our_fault() -> None:
    """The kernel checks every message that it takes out of a ring."""
    model = linked(2, {(0, 1): 1, (1, 0): 1})
    with Engine(model, **options_of([0, 1])) as engine:
        engine.advance(5)
        kernel = engine._kernel  # type: ignore[attr-defined]
        for pe in kernel._pes:
            pe.reg[10] = 1000  # CLOCK: as if it had executed up to there
        with pytest.raises(InternalError, match="never executes what can be preceded"):
            engine.advance(END)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(20))
def test_threads_under_load(seed: int) -> None:
    """Long runs with small rings on more threads than cores."""
    model = phold(lps=64, population=4, remote=0.9, lookahead=seconds(0.01), seed=seed)
    expected = run(model, seconds(20), tier="compiled")
    result = run(model, seconds(20), ring=4, **options_of([lp % 8 for lp in range(64)]))
    assert result.digest == expected.digest
