"""``tidewarp bench spiking``: a network of neurons as a multiple of real time, beside the same network on Brian2."""

from __future__ import annotations

import gc
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import click

from tidewarp.cli.bench.kernel_options import duration, engine_options, figures_of, options_of, peak_rss_bytes
from tidewarp.cli.bench.spiking_reference import Reference
from tidewarp.cli.frame import emit, json_option
from tidewarp.clocks import WallClock
from tidewarp.errors import OperatorError
from tidewarp.kernel import Engine, Options, Result
from tidewarp.worlds.spiking import Network, Recorded, Settings, build, hand_over, recording

__all__ = ["command", "measure"]

MS = 1_000_000  # ticks


@click.command()
@engine_options
@click.option("--populations", type=click.IntRange(1, 100_000), default=20, show_default=True, help="Processes.")
@click.option("--neurons", type=click.IntRange(8, 1024), default=500, show_default=True, help="In each population.")
@click.option(
    "--connect",
    type=click.Choice(["dense", "csr", "procedural"]),
    default="csr",
    show_default=True,
    help="Form of the synapses; the network is the same.",
)
@click.option("--fan", type=click.IntRange(0, 1000), default=8, show_default=True, help="Neighbours of a population.")
@click.option("--density", type=float, default=0.1, show_default=True, help="Probability of a synapse.")
@click.option(
    "--delay-ms",
    type=float,
    default=2.0,
    show_default=True,
    help="Axonal delay between neighbours; whole steps of 1 ms.",
)
@click.option("--rate-hz", type=float, default=10.0, show_default=True, help="Kicks of each neuron a second.")
@click.option("--sensor-hz", type=float, default=50.0, show_default=True, help="Spikes a second of each sensor.")
@click.option(
    "--sensor-late-ms", type=float, default=0.0, show_default=True, help="How late sensors hand over, in virtual time."
)
@click.option(
    "--identity",
    type=click.Choice(["none", "state", "commit", "non_speculative"]),
    default="state",
    show_default=True,
    help="How identity neurons keep what is never rolled back.",
)
@click.option(
    "--stochastic",
    type=click.IntRange(0, 65_535),
    default=0,
    show_default=True,
    help="Bits of a stochastic product; 0: exact.",
)
@click.option("--end", type=duration, metavar="DUR", default="2", show_default=True, help="Virtual time to run to.")
@click.option("--seed", type=click.IntRange(0, 2**64 - 1), default=1, show_default=True, help="Of all random numbers.")
@click.option(
    "--repeat", type=click.IntRange(1, 1000), default=1, show_default=True, help="Rounds; the figures are of the best."
)
@click.option(
    "--verify", is_flag=True, help="A sequential run afterwards, its sensors in time; exit 1 if its digest differs."
)
@click.option("--reference", type=click.Choice(["brian2"]), help="The same network on Brian2, in turn with each round.")
@click.option(
    "--reference-python",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    default=sys.executable,
    show_default="this one",
    help="Python that has Brian2.",
)
@json_option
def command(as_json: bool, **values: Any) -> int:
    """Spiking populations with axonal delays: how many times as fast as real time.

    ``seconds`` is the run alone. ``real_time_factor`` is virtual over wall time; ``ratio`` the median over the rounds of ours by Brian2's, which runs
    the same neurons, synapses, weights, delays and step on its numpy target in a process of its own, without the identity
    neurons. The digest does not depend on kernel, tier, workers, or on how late the sensors are.
    """
    document = measure(values)
    emit(document, as_json, _render)
    return 1 if document["verified"] is False else 0


def measure(values: Mapping[str, Any]) -> dict[str, Any]:
    """The document of the command from its parameters.

    Raises:
        OperatorError: a value that breaks its rule.
        MissingExtra: Brian2 or Numba is not installed.
    """
    options = options_of(values)
    _check(values, options)
    network = build(settings_of(values))
    settings, end = network.settings, values["end"]
    spikes = recording(settings.populations, settings.neurons, values["sensor_hz"], settings.step, end, settings.seed)
    late = _ticks("sensor-late-ms", values["sensor_late_ms"])
    compile_s = _open(network, options)
    rounds: list[Result] = []
    theirs: list[Any] = []
    late_events = 0
    with Reference.of(values["reference"], values["reference_python"], network, spikes, end) as reference:
        for _ in range(values["repeat"]):
            gc.collect()
            result, late_events = _run(network, options, spikes, end, late)
            rounds.append(result)
            theirs += reference.rounds(1)
    best = min(rounds, key=lambda result: result.seconds)
    speeds = [end / 1e9 / result.seconds for result in rounds]
    their_speeds = [end / 1e9 / one.seconds for one in theirs]
    return {
        **figures_of(best, options),
        **_counts(network, best, end),
        "sensor_events": len(spikes),
        "late_events": late_events,
        "real_time_factor": max(speeds),
        "reference_real_time_factor": max(their_speeds) if theirs else None,
        "reference_rate_hz": _rate(theirs[-1].spikes, network, end) if theirs else None,
        "ratio": median(a / b for a, b in zip(speeds, their_speeds, strict=True)) if theirs else None,
        "compile_seconds": compile_s,
        "peak_rss_bytes": peak_rss_bytes(),
        "runs": [{"seconds": one.seconds, "rolled_back": one.rolled_back, "digest": one.digest} for one in rounds],
        "seed": values["seed"],
        "verified": _verified(values, options, network, spikes, rounds),
    }


def settings_of(values: Mapping[str, Any]) -> Settings:
    """The network that the parameters describe."""
    names = ("populations", "neurons", "connect", "fan", "density", "rate_hz", "identity", "stochastic", "seed")
    return Settings(delay=_ticks("delay-ms", values["delay_ms"]), **{name: values[name] for name in names})


def _ticks(name: str, milliseconds: float) -> int:
    if not 0.0 <= milliseconds <= 1e9:
        raise OperatorError(f"--{name} {milliseconds}", "it is 0 to 1e9 milliseconds", "correct it")
    return round(milliseconds * MS)


def _check(values: Mapping[str, Any], options: Options) -> None:
    if values["verify"] and options.digest == "off":
        raise OperatorError("--verify with --digest off", "there is nothing to compare", "leave one of both out")
    if values["end"] < MS:
        raise OperatorError(f"--end of {values['end']} ticks", "a run has one step of 1 ms at least", "give e.g. 2")


def _open(network: Network, options: Options) -> float:
    """Open an engine and close it: wall seconds that compiled code takes to be read, or made."""
    clock = WallClock()
    started_s = clock.now()
    with Engine(network.model, options):
        return clock.now() - started_s


def _run(network: Network, options: Options, spikes: Sequence[Recorded], end: int, late: int) -> tuple[Result, int]:
    """One run to ``end``, and how many sensor spikes came late."""
    with Engine(network.model, options) as engine:
        late_events = hand_over(engine, network.sensors, spikes, end, late=late)
        result = Result(
            committed=engine.ledger.committed,
            seconds=engine.seconds,
            digest=None if options.digest == "off" else engine.digest(),
            trace_digests={},
            outputs=[],
            accumulators={},
            stats=engine.stats(),
            model=network.model,
            image=engine.image(),
        )
    return result, late_events


def _counts(network: Network, result: Result, end: int) -> dict[str, Any]:
    """What the neurons did."""
    populations = network.settings.populations
    spikes = sum(result.state(lp)["spikes"] for lp in range(populations))
    identities = range(populations, network.model.n_lps)
    deep = [result.state(lp)["v_deep"] for lp in identities]
    steps = populations * network.settings.neurons * (end // network.settings.step)
    return {
        "spikes": spikes,
        "rate_hz": _rate(spikes, network, end),
        "neuron_steps_per_s": steps / result.seconds,
        "v_deep_mean": math.fsum(deep) / len(deep) if deep else None,
    }


def _rate(spikes: float, network: Network, end: int) -> float:
    return spikes / (network.settings.populations * network.settings.neurons * end / 1e9)


def _verified(
    values: Mapping[str, Any],
    options: Options,
    network: Network,
    spikes: Sequence[Recorded],
    rounds: Sequence[Result],
) -> bool | None:
    """Whether all rounds, and with ``--verify`` the sequential run, have one digest; None if nobody asked and they have."""
    digests = {result.digest for result in rounds}
    if values["verify"]:
        sequential = Options(tier=options.tier, digest=options.digest)
        digests.add(_run(network, sequential, spikes, values["end"], 0)[0].digest)
    return False if len(digests) > 1 else (values["verify"] or None)


def _render(document: Mapping[str, Any]) -> str:
    how = f"{document['kernel']}, {document['tier']}, {document['workers']} workers"
    lines = [
        f"{document['real_time_factor']:.2f}x real time   {how}",
        f"neurons      {document['neuron_steps_per_s']:,.0f} steps/s, {document['rate_hz']:.2f} Hz",
        f"sensors      {document['sensor_events']:,} spikes, {document['late_events']:,} of them late",
        f"committed    {document['committed']:,} events in {document['seconds']:.3f} s",
        f"rolled back  {document['rolled_back']:,} ({document['rolled_back_share']:.2%}) in {document['rollbacks']:,} rollbacks",
        f"opened in    {document['compile_seconds']:.2f} s",
        f"digest       {document['digest']}",
    ]
    if document["v_deep_mean"] is not None:
        lines.insert(3, f"identity     deep compartments at {document['v_deep_mean']:.6g} on average")
    if document["ratio"] is not None:
        theirs = f"{document['reference_real_time_factor']:.2f}x real time at {document['reference_rate_hz']:.2f} Hz"
        lines.append(f"Brian2       {theirs}; we are {document['ratio']:.2f}x as fast")
    if document["verified"] is not None:
        same = "the sequential run has the same digest" if document["verified"] else "NO: digests differ"
        lines.append(f"verified     {same}")
    return "\n".join(lines)
