"""Pending sets of the compiled tier: binary heaps of (time, slot), whose event keys are looked at on ties only."""

from __future__ import annotations

from typing import Any

from tidewarp.kernel.compiled.words import inlined

__all__ = ["before", "heap_pop", "heap_push", "heap_replace"]


@inlined
def before(pool: Any, ta: Any, a: Any, tb: Any, b: Any) -> Any:
    """Does event a at ta precede event b at tb?"""
    if ta != tb:
        return ta < tb
    x, y = pool[a], pool[b]
    if x.generation != y.generation:
        return x.generation < y.generation
    if x.dst != y.dst:
        return x.dst < y.dst
    if x.src != y.src:
        return x.src < y.src
    return x.seq < y.seq


@inlined
def heap_push(times: Any, slots: Any, n: Any, pool: Any, s: Any) -> Any:
    """Add slot s to a heap of n; returns n + 1."""
    t = pool[s].time
    i = n
    while i > 0:
        p = (i - 1) >> 1
        if not before(pool, t, s, times[p], slots[p]):
            break
        times[i], slots[i] = times[p], slots[p]
        i = p
    times[i], slots[i] = t, s
    return n + 1


@inlined
def heap_pop(times: Any, slots: Any, n: Any, pool: Any) -> Any:
    """Take the first slot off a heap of n; returns n - 1."""
    n -= 1
    t, s = times[n], slots[n]
    i = 0
    while 2 * i + 1 < n:
        c = 2 * i + 1
        if c + 1 < n and before(pool, times[c + 1], slots[c + 1], times[c], slots[c]):
            c += 1
        if not before(pool, times[c], slots[c], t, s):
            break
        times[i], slots[i] = times[c], slots[c]
        i = c
    times[i], slots[i] = t, s
    return n


@inlined
def heap_replace(times: Any, slots: Any, n: Any, pool: Any, s: Any) -> None:
    """Put slot s in the place of the first one, which is done: half the work of a pop and a push."""
    t = pool[s].time
    i = 0
    while 2 * i + 1 < n:
        c = 2 * i + 1
        if c + 1 < n and before(pool, times[c + 1], slots[c + 1], times[c], slots[c]):
            c += 1
        if not before(pool, times[c], slots[c], t, s):
            break
        times[i], slots[i] = times[c], slots[c]
        i = c
    times[i], slots[i] = t, s
