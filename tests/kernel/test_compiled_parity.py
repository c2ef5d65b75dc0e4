"""Both tiers do the same: every method of the context, every kind of field, every refusal, the digest of whole runs."""

from __future__ import annotations

import pytest
from compiled_models import Do, Step, probes
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewarp.errors import TidewarpError
from tidewarp.kernel import Engine, Status, run
from tidewarp.units import seconds
from tidewarp.worlds.phold import phold


@pytest.fixture(autouse=True, scope="module")
def _numba(require):
    require("numba")


SMALL = st.integers(-3, 12)
WHOLE = st.one_of(SMALL, SMALL, st.integers(-(2**63), 2**63 - 1))
REAL = st.one_of(st.floats(-10.0, 1e6), st.floats())
CALM = [Step.BITS, Step.RANDOM, Step.NORMAL, Step.ADD, Step.RING, Step.WORDS, Step.EMIT, Step.SEND_MANY]


def do(steps, a=WHOLE, b=WHOLE):
    return st.builds(Do, steps, a, b, REAL)


def told(tier, script, **shape):
    """What came of a script: the error's class and words, how far it got, digest, outputs, accumulators, fields."""
    with Engine(probes(**shape), tier=tier) as engine:
        source = engine.model.sources[0]
        for place, message in enumerate(script):
            engine.inject(source, place % engine.model.n_lps, 3 * place, message)
        try:
            engine.advance(3 * len(script) + 20)
            digest = engine.digest()
        except TidewarpError as error:
            return type(error), str(error), engine.ledger.committed, shown(engine), engine.ledger.events.head()
        return digest, shown(engine), engine.ledger.accumulators, [str(engine.state(lp)) for lp in range(4)]


def shown(engine):
    """The outputs as text, members of enums as numbers."""
    return [
        (output[:3], [str(x + 0) if isinstance(x, int) else str(x) for x in output.message])
        for output in engine.outputs()
    ]


@given(script=st.lists(do(st.sampled_from(CALM), a=st.integers(0, 2**40), b=SMALL), max_size=20))
@settings(max_examples=max(10, settings().max_examples // 10))
def test_what_is_allowed_gives_one_digest(script):
    """Draws, floats, arrays, tables, functions, effects."""
    assert told("compiled", script) == told("python", script)


LINKED = {"links": True, "lookahead": 2}


@pytest.mark.parametrize(("step", "shape"), [*((step, {}) for step in Step), (Step.SEND, LINKED), (Step.OUT, LINKED)])
@given(data=st.data())
@settings(max_examples=max(4, settings().max_examples // 25))
def test_each_method_refuses_the_same(step, shape, data):
    """The class of the error, its words, and what is committed before it."""
    first, second = data.draw(do(st.just(step))), data.draw(do(st.just(step), a=SMALL, b=SMALL))
    script = [Do(Step.BITS, 0, 0, 0.0), second, first]
    python, compiled = told("python", script, **shape), told("compiled", script, **shape)
    if python != compiled:  # the one difference: what leaves 64 bits on the way is an error in the compiled tier
        assert "compiled numbers do not" in compiled[1] or "its kind is" in compiled[1]


@pytest.mark.parametrize("digest", ["events", "state"])
def test_phold_has_one_digest(digest):
    """Ten thousand events, most of them with ties broken by nothing but the key."""
    options = {"digest": digest, "until": seconds(6)}
    model = {"lps": 24, "population": 8, "remote": 0.5, "grain": 2}
    assert (
        run(phold(**model), tier="compiled", **options).digest == run(phold(**model), tier="python", **options).digest
    )


def test_a_run_in_steps_is_the_run_in_one():
    """Pending events, streams and the open block of the trace survive the end of a slice."""
    with Engine(phold(lps=12), tier="compiled") as engine:
        for until in range(0, seconds(5), seconds(0.37)):
            engine.advance(until)
        engine.advance(seconds(5))
        assert engine.digest() == run(phold(lps=12), seconds(5), tier="python").digest


def test_outputs_wait_to_be_taken():
    """The engine stops where the reference stops, and goes on when there is room."""
    script = [Do(Step.EMIT, k, 0, 1.0) for k in range(9)]
    digests = []
    for tier in ("python", "compiled"):
        with Engine(probes(), tier=tier, outputs_max=5) as engine:
            for place, message in enumerate(script):
                engine.inject(engine.model.sources[0], 0, place, message)
            stops = []
            while engine.advance(100) is Status.FULL:
                stops.append((engine.gvt, len(engine.outputs())))
            digests.append((engine.digest(), stops))
    assert digests[0] == digests[1]
    assert len(digests[0][1]) == 3


def test_the_image_of_one_tier_is_the_others():
    """Taken in the middle of a run, with NaN, -0.0 and events to come."""
    images = []
    for tier in ("python", "compiled"):
        with Engine(probes(), tier=tier) as engine:
            for place in range(8):
                engine.inject(
                    engine.model.sources[0],
                    place % 4,
                    place,
                    Do(Step.TABLE if place % 2 else Step.SEND_MANY, 9, 0, 0.0),
                )
            engine.advance(5)
            images.append(engine.image())
    assert images[0] == images[1]


def test_the_pending_set_grows_and_has_a_bound():
    """Sixteen thousand sends fit; with a bound on memory they are refused by name."""
    from tidewarp.errors import PoolExhausted

    script = [Do(Step.SEND_MANY, 399, 0, 0.0)] * 40
    assert told("compiled", script)[0] == told("python", script)[0]
    with Engine(probes(), tier="compiled", memory_max_bytes=1_000_000) as engine:
        for place, message in enumerate(script):
            engine.inject(engine.model.sources[0], place % 4, 0, message)
        with pytest.raises(PoolExhausted, match="the bound is 1000000"):
            engine.advance(0)
