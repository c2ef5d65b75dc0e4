"""What the published engine does, written from the list of its defects: for the checks that have to reject it."""

from __future__ import annotations

import heapq
from collections import Counter
from functools import total_ordering

from tidewarp.kernel.nodes import TimeWarpEngine, TwinEvent


def fold(state, value):
    """The order of values is visible in the state."""
    return (state * 31 + value + 1) % 1_000_003


def relay(node, event, ctx):
    """Fold the value in; a value above 99 is passed on to the next node, 10 ns later and 100 less."""
    value = event.payload["v"]
    node.state = fold(node.state, value)
    if value > 99:
        ctx.send((node.node_id + 1) % ctx.num_nodes, 10, {"v": value - 100})


class Ours:
    """The engine under the few calls that a check needs."""

    def __init__(self, nodes=3, handler=relay, **options):
        self.engine = TimeWarpEngine(nodes, 1, handler=handler, initial_state=0, **options)

    def inject(self, time, node=0, value=0, priority=0):
        self.engine.inject_event(TwinEvent(time, priority, source_node=-1, target_node=node, payload={"v": value}))

    def run(self, steps=10**6):
        done = 0
        while done < steps and self.engine.process_next() is not None:
            done += 1
        return done

    @property
    def log(self):
        return [(e.virtual_time_ns, e.target_node, e.payload["v"]) for e in self.engine.processed]

    @property
    def states(self):
        return [node.state for node in self.engine.nodes.values()]

    @property
    def antis(self):
        return len(self.engine.anti_messages)

    def gvt(self):
        return self.engine.compute_gvt()


@total_ordering
class _Item:
    """Compared by time and priority alone."""

    def __init__(self, time, priority, node, value, anti=False):
        self.time, self.priority, self.node, self.value, self.anti = time, priority, node, value, anti

    def __eq__(self, other):
        return (self.time, self.priority) == (other.time, other.priority)

    def __lt__(self, other):
        return (self.time, self.priority) < (other.time, other.priority)


class Published:
    """A heap of events, clocks that are set back, and anti-messages that nothing takes notice of."""

    def __init__(self, nodes=3):
        self.nodes = nodes
        self.states, self.lvts = [0] * nodes, [0] * nodes
        self.queue, self.done, self.sent_antis = [], [], []
        self.rollbacks = 0

    def inject(self, time, node=0, value=0, priority=0):
        heapq.heappush(self.queue, _Item(time, priority, node, value))

    def run(self, steps=10**6):
        done = 0
        while done < steps and self.queue:
            self._execute(heapq.heappop(self.queue))
            done += 1
        return done

    def _execute(self, item):
        if item.time < self.lvts[item.node] and not item.anti:
            self._roll_back(item)
        self.lvts[item.node] = item.time
        self.done.append(item)
        if not item.anti:
            self.states[item.node] = fold(self.states[item.node], item.value)
            if item.value > 99:
                self.inject(item.time + 10, (item.node + 1) % self.nodes, item.value - 100)

    def _roll_back(self, cause):
        self.rollbacks += 1
        for item in list(self.done):
            if item.node == cause.node and item.time > cause.time:
                anti = _Item(item.time, item.priority, item.node, item.value, anti=True)
                self.sent_antis.append(anti)
                heapq.heappush(self.queue, anti)

    @property
    def log(self):
        return [(item.time, item.node, item.value) for item in self.done]

    @property
    def antis(self):
        return len(self.sent_antis)

    def gvt(self):
        return min([*self.lvts, *(item.time for item in self.queue)])


def in_order(events, nodes=3):
    """The states and the log that (time, node, value) must lead to: a loop over a sorted list."""
    queue = sorted(events)
    states, log = [0] * nodes, []
    while queue:
        time, node, value = queue.pop(0)
        log.append((time, node, value))
        states[node] = fold(states[node], value)
        if value > 99:
            queue = sorted([*queue, (time + 10, (node + 1) % nodes, value - 100)])
    return states, Counter(log)


def rejected(check, *arguments):
    """True if a check does not accept these."""
    try:
        check(*arguments)
    except AssertionError:
        return True
    return False
