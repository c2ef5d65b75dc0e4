"""The network of ``tidewarp bench spiking`` on Brian2 (numpy target), as a program of its own: ``python FILE NETWORK.npz``.

It builds the network, then for each line on standard input runs it once from its start and prints one JSON object. It
knows nothing of tidewarp, so any Python that has Brian2 can run it.
"""

import json
import sys
from typing import Any, NamedTuple


class Built(NamedTuple):
    """A network of Brian2 in its stored start state, its neurons, how long to run it (seconds)."""

    network: Any
    neurons: Any
    seconds: float


def build(path: str) -> Built:
    """Neurons, synapses, background and sensors as in the file; two steps are run, so that no code is left to be made."""
    import brian2 as b
    import numpy as np

    b.prefs.codegen.target = "numpy"
    given = np.load(path)
    step, total = float(given["step_s"]), int(given["neurons"])
    b.defaultclock.dt = step * b.second
    names = {"tau": given["tau_s"] * b.second, "threshold": float(given["threshold"]), "kick": float(given["kick"])}
    names["chance"] = float(given["kick_chance"])
    neurons = b.NeuronGroup(
        total,
        "dv/dt = -v / tau : 1\ncount : integer",
        threshold="v >= threshold",
        reset="v = 0; count += 1",
        refractory=f"timestep(t - lastspike, dt) <= {int(given['refractory'])}",
        method="exact",
        namespace=names,
    )
    background = neurons.run_regularly("v += kick * int(rand() < chance)", dt=step * b.second, when="synapses")
    # Refractory neurons lose their input: they are put back before anybody looks at them.
    lost = neurons.run_regularly("v *= int(not_refractory)", dt=step * b.second, when="before_thresholds")
    synapses = b.Synapses(neurons, neurons, "w : 1", on_pre="v_post += w")
    synapses.connect(i=given["src"], j=given["dst"])
    synapses.w = given["weight"]
    synapses.delay = given["delay_steps"] * step * b.second
    sensors = b.SpikeGeneratorGroup(total, given["sensor"], given["sensor_s"] * b.second)
    into = b.Synapses(sensors, neurons, on_pre="v_post += kick", namespace=names)
    into.connect(j="i")
    network = b.Network(neurons, background, lost, synapses, sensors, into)
    # Spikes arrive behind the decay and before the threshold of their step, as in tidewarp's network.
    network.schedule = ["start", "groups", "synapses", "thresholds", "resets", "end"]
    network.store()
    network.run(2 * step * b.second, namespace={})
    network.restore()
    return Built(network, neurons, float(given["seconds"]))


def run(built: Built) -> dict[str, float]:
    """One run from the start: spikes, and the wall seconds that Brian2 took for its steps, without what it prepares."""
    import brian2 as b

    built.network.restore()
    built.network.run(built.seconds * b.second, namespace={})
    return {"seconds": float(b.get_device()._last_run_time), "spikes": int(built.neurons.count[:].sum())}


def main() -> int:
    """Exit code 3 where Brian2 cannot be imported; the reason is the answer."""
    try:
        import brian2

        answer: dict[str, Any] = {"version": brian2.__version__}
    except (ImportError, AttributeError) as error:  # its release may be older than numpy's
        print(json.dumps({"error": str(error)}), flush=True)
        return 3
    built = build(sys.argv[1])
    print(json.dumps(answer), flush=True)
    for _ in sys.stdin:
        print(json.dumps(run(built)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
