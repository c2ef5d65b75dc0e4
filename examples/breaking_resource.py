"""A model of a mill whose spindles break or are switched off: a stopped job goes on later with the work it has left."""

from __future__ import annotations

import simpy

import tidewarp as tw


def build(twin: tw.Twin) -> None:
    mill, works = twin.resource("mill", 3), twin.stream("mill.works")
    on = twin.variable("mill.on", int, 3, low=0, high=3)  # spindles: this the plant tells,
    broken = twin.variable("mill.broken", int, 0, low=0, high=3)  # and this the model itself
    # Figures that are variables are part of the digest, and whoever holds the twin can read them.
    done, stops = twin.variable("jobs.done", int, 0), twin.variable("jobs.stops", int, 0)
    lost_s = twin.variable("jobs.lost_s", float, 0.0, unit="s")

    def job() -> simpy.events.ProcessGenerator:
        left_s, stopped_s = works.lognormal(900.0, 300.0), None
        while left_s > 0:
            began_s = None  # it has no spindle yet
            try:
                with mill.request(priority=1 if stopped_s is None else 0) as spindle:  # who was stopped comes first
                    yield spindle
                    began_s = twin.now
                    lost_s.update(lost_s.value + (0.0 if stopped_s is None else began_s - stopped_s))
                    yield twin.env.timeout(left_s)
                    left_s = 0.0
            except simpy.Interrupt:  # the block is left: its spindle is given back, or its request withdrawn
                if began_s is not None:
                    left_s, stopped_s = left_s - (twin.now - began_s), twin.now
                    stops.update(stops.value + 1)
        done.update(done.value + 1)

    def wear(spindle: int) -> simpy.events.ProcessGenerator:
        times = twin.stream(f"mill.spindle-{spindle}")  # of its own: no other draw shifts its numbers
        while True:
            yield twin.env.timeout(times.exponential(6 * 3_600.0))
            broken.update(broken.value + 1)
            yield twin.env.timeout(times.exponential(1_800.0))
            broken.update(broken.value - 1)

    def follow() -> simpy.events.ProcessGenerator:
        while True:
            yield on.wait_for_change() | broken.wait_for_change()
            twin.registry.update("mill.current_cap", max(0, on.value - broken.value))
            for process in [one.proc for one in mill.users[mill.capacity :] if one.proc is not None]:
                process.interrupt()  # a smaller capacity stops nobody by itself: stop those who came last

    for process in (follow(), *map(wear, range(3)), *(job() for _ in range(250))):
        twin.process(process)
    twin.connect(tw.sources.schedule([("8h", "mill.on", 1), ("14h", "mill.on", 0), ("15h", "mill.on", 3)]))


if __name__ == "__main__":
    with tw.open("mill.tw", build, seed=1) as twin:
        ran = twin.run(until="24h")
        for path, value in twin.registry.values().items():
            print(f"{path:18}{value:8,.0f}")
    print(f"digest {ran.digest[:16]}; the replay is equal: {tw.replay('mill.tw', build).equal}")
