"""What ``connect`` and ``sink`` are given: checked, with the defaults of the kind."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from tidewarp.connect.contract import Decoder, Form, Output, Sink, Source
from tidewarp.connect.gate import BEYOND_POLICIES, FULL_POLICIES, GAP_POLICIES, LATE_POLICIES, TIMES, Policy
from tidewarp.connect.outbox import Delivery
from tidewarp.connect.received import Decoding, chosen_decoder
from tidewarp.errors import OperatorError
from tidewarp.store import NAME_BYTES_MAX
from tidewarp.units import Duration, ticks

__all__ = [
    "BATCH_MAX",
    "checked_name",
    "decoder_maker",
    "delivery_of",
    "is_live",
    "policy_document",
    "policy_of",
    "span",
]

BATCH_MAX = 8_192
"""Inputs per journal record, at most."""

_LIVE_BATCH = 512
"""Inputs per journal record of a live source: decoding them keeps the clock from its next slice."""


def policy_of(
    source: Source,
    batch: int,
    *,
    time: str | None,
    disorder: Duration,
    idle: Duration | None,
    wait: bool | None,
    late: str | None,
    horizon: Duration | None,
    beyond: str,
    gap: str,
    queue: int,
    full: str,
) -> Policy:
    """How ``connect`` treats a source: what was given, and the defaults of its kind. Raises OperatorError."""
    live = is_live(source)
    ordered = time or ("arrival" if live else "payload")
    waits = not live if wait is None else wait
    treated = late or ("repair" if live and ordered != "arrival" else "stop")
    for what, word, words in (
        ("time", ordered, TIMES),
        ("late", treated, LATE_POLICIES),
        ("beyond", beyond, BEYOND_POLICIES),
        ("gap", gap, GAP_POLICIES),
        ("full", full, FULL_POLICIES),
    ):
        if word not in words:
            raise OperatorError(f"{what}={word!r}", f"one of {', '.join(words)}", "choose one of them")
    if queue < 1:
        raise OperatorError(f"queue={queue}", "a queue holds at least 1 input", "give a larger one")
    if full != "block" and waits:
        rule = "what the clock waits for must come: messages would be let go by chance"
        raise OperatorError(f"full={full!r} of a source with wait=True", rule, "leave full out, or give wait=False")
    bound = span("disorder", disorder)
    reach = span("horizon", ("5 s" if live else "1 h") if horizon is None else horizon)
    silence = span("idle", 1 if idle is None else idle) / 10**9 if live or idle is not None else None
    return Policy(
        disorder=bound,
        late=treated,
        queue=queue,
        full=full,
        batch=min(batch, queue, _LIVE_BATCH if live else BATCH_MAX),
        time=ordered,
        wait=waits,
        idle_s=silence if waits else None,
        horizon=reach if treated == "repair" else 0,
        beyond=beyond,
        gap=gap,
    )


def policy_document(policy: Policy) -> dict[str, Any]:
    """What decides the meaning of messages: journaled, compared at a resume."""
    return {
        "ordered_by": policy.time,
        "wait": policy.wait,
        "disorder": policy.disorder,
        "late": policy.late,
        "horizon": policy.horizon,
        "beyond": policy.beyond,
    }


def decoder_maker(decoding: Decoding | None, map: Mapping[str, str] | None) -> Callable[[int], Decoder | None]:
    """Makes the decoder that takes the place of a source's own, once the epoch is known. Raises OperatorError."""
    if map is not None and isinstance(decoding, Decoder):
        rule = "a map is for messages that are objects; a decoder of yours says itself what they set"
        raise OperatorError("connect(decoder=..., map=...)", rule, "leave one of them out")
    return partial(chosen_decoder, decoding, map)


def delivery_of(
    sink: Sink,
    *,
    batch: int,
    queue: int,
    spill: int,
    retry: tuple[float, float],
    poison: int,
    select: Callable[[Output], bool] | None,
    flush: Duration,
    stall: Duration,
    form: Form | None,
    observe: bool,
    release: str,
) -> Delivery:
    """How ``sink`` serves a sink, as it was given. Raises OperatorError."""
    if batch < 1 or queue < 1 or spill < 0 or poison < 1:
        given = f"batch={batch}, queue={queue}, spill={spill}, poison={poison}"
        raise OperatorError(given, "all are at least 1, spill at least 0", "give larger ones")
    if not 0 < retry[0] <= retry[1] < math.inf:
        raise OperatorError(f"retry={retry!r}", "0 < first pause <= longest pause, in seconds", "correct them")
    if observe and not hasattr(sink, "observe"):
        rule = f"a {getattr(sink, 'kind', 'sink')} sink takes outputs alone"
        raise OperatorError(f"sink {sink.name!r}: observe=True", rule, "observe by another one, such as console")
    if release not in ("final", "early"):
        raise OperatorError(f"release={release!r}", "it is 'final' or 'early'", "choose one of them")
    if release == "early" and not getattr(sink, "takes_early", True):
        rule = f"the records of this {getattr(sink, 'kind', '')} sink have no place for a retraction"
        raise OperatorError(f"sink {sink.name!r}: release='early'", rule, "send JSON, or leave release out")
    return Delivery(
        batch=batch,
        queue=queue,
        spill=spill,
        retry_s=retry,
        poison=poison,
        select=select,
        flush_s=span("flush", flush) / 10**9,
        stall_s=span("stall", stall) / 10**9,
        form=form,
        observe=observe,
        early=release == "early",
    )


def checked_name(name: str) -> str:
    """A source's or sink's name, as journal records can hold it."""
    if not 0 < len(name.encode("utf-8", "replace")) <= NAME_BYTES_MAX or not name.isprintable():
        raise OperatorError(f"name {name!r:.80}", f"1 to {NAME_BYTES_MAX} bytes of printable text", "give another name")
    return name


def span(what: str, duration: Duration) -> int:
    """A length of time in ticks. Raises OperatorError below 0."""
    length = ticks(duration)
    if length < 0:
        raise OperatorError(f"{what}={duration!r}", "a length of time is not negative", "give 0 or more")
    return length


def is_live(source: Source) -> bool:
    """Does it come when it comes? Else its clock is its data's."""
    return getattr(source, "clock", "data") == "wall"  # anything with the methods of a source will do
