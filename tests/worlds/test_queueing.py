"""The shop and the network: conservation, the textbook's averages, and one digest in every engine."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tidewarp.errors import OperatorError
from tidewarp.kernel import Model, run
from tidewarp.units import seconds
from tidewarp.worlds.queueing import Departure, Left, network, shop

MODELS: dict[str, Callable[[], Model]] = {
    "shop": lambda: shop(servers=5, service=seconds(6)),
    "network": lambda: network(stations=9, load=0.9),
}


def test_every_customer_is_somewhere() -> None:
    """Those who were let in have left, were turned away, are in a line, or still walk."""
    model = shop(servers=3, service=seconds(9))
    result = run(model, seconds(2000), tier="python")
    admitted = result.state(model.lp("door"))["admitted"]
    waiting = sum(result.state(model.lp(f"server.{place}"))["length"] for place in range(3))
    gone = len(result.outputs) + result.accumulators["turned_away"]
    assert result.accumulators["turned_away"] > 100
    assert 0 <= admitted - gone - waiting <= 3
    assert all(isinstance(output.message, Departure) and output.message.stay > 0 for output in result.outputs)


def test_a_station_is_busy_for_its_share_of_the_time() -> None:
    """Jackson's network: the load is what was asked for, and the stay follows from it."""
    end = seconds(2500)
    result = run(network(stations=8, load=0.6, walk=0), end, tier="python")
    busy = sum(result.state(lp)["busy"] for lp in range(8)) / 8 / end
    assert busy == pytest.approx(0.6, abs=0.03)
    stays = [output.message.stay for output in result.outputs if isinstance(output.message, Left)]
    # Little's law: load / (1 - load) jobs a station, each station lets load * leave jobs a second leave.
    assert sum(stays) / len(stays) == pytest.approx(seconds(0.6 / 0.4 / (0.6 * 0.5)), rel=0.1)
    assert result.accumulators["lost"] == 0


@pytest.mark.parametrize("name", MODELS)
def test_one_digest_with_promises(name: str) -> None:
    """Servers wait for the door, stations for each other: the digest is the sequential one."""
    expected = run(MODELS[name](), seconds(100), tier="python")
    assert len(expected.outputs) > 50
    for options in ({"workers": 2}, {"workers": 3, "partition": "graph"}, {"workers": 3, "schedule_seed": 5}):
        result = run(MODELS[name](), seconds(100), kernel="conservative", tier="python", **options)
        assert result.digest == expected.digest
        assert result.stats.remote_sent > 0


@pytest.mark.parametrize("name", MODELS)
def test_one_digest_in_both_tiers(require: Callable[[str], None], name: str) -> None:
    """The handlers compile, and threads change nothing."""
    require("numba")
    expected = run(MODELS[name](), seconds(100), tier="python")
    for options in ({"kernel": "sequential"}, {"kernel": "conservative", "workers": 2}):
        assert run(MODELS[name](), seconds(100), tier="compiled", **options).digest == expected.digest


@pytest.mark.parametrize(
    "options", [{"load": 1.0}, {"load": 0.0}, {"leave": 0.0}, {"leave": 1.1}, {"degree": 0}, {"degree": 4}]
)
def test_shares_and_degrees_are_checked(options: dict[str, float]) -> None:
    """A network that would fill up, or that nobody could leave, is refused."""
    with pytest.raises(OperatorError):
        network(**{"stations": 4, **options})  # type: ignore[arg-type]
