"""Which PE runs which LP: balanced, deterministic, few links across, and checked."""

from __future__ import annotations

import sys
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from linked_models import linked

from tidewarp.errors import OperatorError
from tidewarp.kernel import Model
from tidewarp.kernel.options import Options
from tidewarp.kernel.partition import cut, partition
from tidewarp.seeds import Stream


def shuffled(lps: int) -> list[int]:
    """The LPs in an order of no meaning."""
    stream = Stream(1, "tests.partition")
    return sorted(range(lps), key=lambda _: stream.bits())


def ring(lps: int) -> Model:
    """Each LP is linked with the next in an order of no meaning."""
    order = shuffled(lps)
    return linked(lps, {(order[i], order[(i + 1) % lps]): 1 for i in range(lps)})


def grid(side: int) -> Model:
    """A square grid of LPs, linked to the right and downwards, numbered in an order of no meaning."""
    order = shuffled(side * side)
    links = {}
    for i in range(side):
        for j in range(side):
            links |= {(order[i * side + j], order[i * side + j + 1]): 1} if j + 1 < side else {}
            links |= {(order[i * side + j], order[i * side + j + side]): 1} if i + 1 < side else {}
    return linked(side * side, links)


def sizes(pe_of: list[int]) -> list[int]:
    """LPs of each PE."""
    return [pe_of.count(pe) for pe in range(max(pe_of) + 1)]


@given(lps=st.integers(1, 60), workers=st.integers(1, 60))
def test_blocks_are_consecutive_and_differ_by_one(lps: int, workers: int) -> None:
    """The default: neighbours in number are neighbours in place."""
    model = linked(lps, {})
    if workers > lps:
        with pytest.raises(OperatorError) as caught:
            partition(model, Options(workers=workers))
        assert str(caught.value).startswith(f"{workers} workers for {lps} LPs: ")
        assert str(caught.value).endswith(f"use at most {lps}")
        return
    pe_of = partition(model, Options(workers=workers))
    assert pe_of == sorted(pe_of)
    assert len(sizes(pe_of)) == workers
    assert max(sizes(pe_of)) - min(sizes(pe_of)) <= 1


@pytest.fixture(params=["scipy", "none"])
def tools(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With what is installed, and with no tool at all."""
    if request.param == "none":
        monkeypatch.setattr("tidewarp.kernel.partition.find_spec", lambda name: None)
    else:
        pytest.importorskip("scipy", reason="pip install scipy")
    return str(request.param)


def test_a_ring_is_cut_twice(tools: str) -> None:
    """However its LPs are numbered, two PEs of a ring share two links; blocks would share half of all."""
    model = ring(60)
    pe_of = partition(model, Options(workers=2, partition="graph"))
    assert sizes(pe_of) == [30, 30]
    assert model.links is not None
    assert cut(model.links, pe_of) <= 4
    assert cut(model.links, partition(model, Options(workers=2))) > 20


def test_a_grid_is_cut_across(tools: str) -> None:
    """Four PEs of a 16 x 16 grid: four quarters share 32 links, parts in the given numbers several hundred."""
    model = grid(16)
    pe_of = partition(model, Options(workers=4, partition="graph"))
    assert sizes(pe_of) == [64] * 4
    assert model.links is not None
    assert cut(model.links, pe_of) < 80
    assert partition(model, Options(workers=4, partition="graph")) == pe_of


def test_unconnected_parts_are_not_torn(tools: str) -> None:
    """Two rings on two PEs share nothing."""
    order = shuffled(24)
    halves = order[:12], order[12:]
    model = linked(24, {(half[i], half[(i + 1) % 12]): 1 for half in halves for i in range(12)})
    pe_of = partition(model, Options(workers=2, partition="graph"))
    assert model.links is not None
    assert cut(model.links, pe_of) == 0


@given(st.data())
def test_graph_gives_every_pe_its_share(data: st.DataObject) -> None:
    """Any links, also none, any number of PEs: balanced, and the same each time."""
    lps = data.draw(st.integers(1, 20))
    ends = st.tuples(st.integers(0, lps - 1), st.integers(0, lps - 1))
    links = data.draw(st.lists(ends, max_size=40, unique=True))
    workers = data.draw(st.integers(1, lps))
    options = Options(workers=workers, partition="graph")
    found = partition(linked(lps, dict.fromkeys(links, 1)), options)
    assert max(sizes(found)) - min(sizes(found)) <= 1
    assert len(sizes(found)) == workers
    assert found == partition(linked(lps, dict.fromkeys(links, 1)), options)


def test_a_large_graph_takes_the_iterative_way() -> None:
    """Above the dense limit the sparse solver begins with a fixed vector, so two calls agree."""
    pytest.importorskip("scipy", reason="pip install scipy")
    model = ring(700)
    pe_of = partition(model, Options(workers=3, partition="graph"))
    assert model.links is not None
    assert cut(model.links, pe_of) <= 12
    assert pe_of == partition(model, Options(workers=3, partition="graph"))


def test_metis_is_used_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets the graph with both directions joined and counted; a part that it leaves empty makes us do without."""
    calls: list[dict[str, list[int]]] = []

    class Metis:
        answer: ClassVar = [1, 1, 0]

        @classmethod
        def part_graph(cls, pes: int, **graph: list[int]) -> tuple[int, list[int]]:
            calls.append(graph)
            return 1, cls.answer

    monkeypatch.setitem(sys.modules, "pymetis", Metis)
    monkeypatch.setattr("tidewarp.kernel.partition.find_spec", lambda name: name == "pymetis" or None)
    model = linked(3, {(0, 1): 1, (1, 0): 2, (1, 2): 1})
    options = Options(workers=2, partition="graph")
    assert partition(model, options) == [1, 1, 0]
    assert calls == [{"xadj": [0, 1, 3, 4], "adjncy": [1, 0, 2, 1], "eweights": [2, 2, 1, 1]}]
    Metis.answer = [0, 0, 0]
    assert sorted(partition(model, options)) == [0, 0, 1]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([0, 1, 0], "3 LPs"),
        ([0, 1, 2, 0], "LP 2 on PE 2"),
        ([0, -1, 0, 1], "LP 1 on PE -1"),
        ([0, 1, 1.0, 0], "LP 2 on PE 1.0"),
        ([0, 0, 0, 0], "PE 1"),
    ],
)
def test_an_array_is_checked(given: list[int], words: str) -> None:
    """One PE for each LP, every PE with one LP at least."""
    with pytest.raises(OperatorError, match=words):
        partition(linked(4, {}), Options(workers=2, partition=given))


def test_an_array_is_taken_as_it_is() -> None:
    """No rule but the user's."""
    assert partition(linked(4, {}), Options(workers=2, partition=[1, 1, 1, 0])) == [1, 1, 1, 0]


def test_the_number_of_pes_may_be_that_of_all_ranks() -> None:
    """Workers of all ranks together."""
    assert partition(linked(6, {}), Options(workers=1), pes=3) == [0, 0, 1, 1, 2, 2]
