"""Verdicts on receipts, as the commands that execute them say them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tidewarp.codec.receipts import Executor
from tidewarp.programs.verification import Outcome, Verdict
from tidewarp.store.audit import Finding

__all__ = ["NOTHING_EXECUTED", "counted", "finding_of"]

_COUNTED = (Outcome.SAME, Outcome.DIFFERENT, Outcome.INCOMPARABLE, Outcome.UNAVAILABLE)
_EXECUTED = (Outcome.SAME, Outcome.DIFFERENT)


def counted(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """How many receipts were executed, how many came to what, and of how many that are different a verdict says so.

    Of the first that is unavailable, why.
    """
    outcomes = [verdict.outcome for verdict in verdicts]
    executed = sum(outcome in _EXECUTED for outcome in outcomes)
    overruled = sum(verdict.is_overruled for verdict in verdicts)
    by_outcome = {outcome.value: outcomes.count(outcome) for outcome in _COUNTED}
    unavailable = [one for one in verdicts if one.outcome is Outcome.UNAVAILABLE]
    why = (
        f"receipt {unavailable[0].receipt.hex()}: {unavailable[0].reason}; {unavailable[0].action}"
        if unavailable
        else None
    )
    return {"reexecuted": executed, **by_outcome, "overruled": overruled, "first_unavailable": why}


NOTHING_EXECUTED = counted(())


def finding_of(verdict: Verdict) -> Finding:
    """What is wrong with a receipt; for one that is different, with everybody who stands for it by name."""
    names = [f"domain {domain.hex()}" for domain in verdict.domains]
    names += [_named(executor, verdict.signer) for executor in verdict.executors]
    where = ", ".join([f"receipt {verdict.receipt.hex()}", *names])
    if verdict.outcome is not Outcome.DIFFERENT:
        return Finding(where, f"{verdict.outcome}: {verdict.reason}", verdict.action or "ask who wrote it")
    claimed = "nothing" if verdict.claimed is None else verdict.claimed.hex()
    answer = "nothing" if verdict.answer is None else verdict.answer.hex()
    return Finding(
        where,
        f"different: it claims {claimed}, and executed here it gives {answer}",
        "do not use what it claims; do not let this executor run what matters",
    )


def _named(executor: Executor, signer: bytes | None) -> str:
    """With how it is known: anybody can write another's name into a receipt, and nobody else's signature."""
    how = "by its signature" if executor.public_key == signer else "by name alone, unsigned"
    return f"executor {executor.name!r} {executor.public_key.hex()} ({how})"
