"""Judging: an auditor says which outcome of a computation counts, having executed it."""

from __future__ import annotations

from tidewarp.codec import PUBLISHED
from tidewarp.codec.artifacts import Artifact
from tidewarp.codec.bodies import VERDICT, VerdictBody
from tidewarp.codec.computations import read_computation
from tidewarp.codec.receipts import Executor, Receipt
from tidewarp.codec.references import Reference
from tidewarp.errors import OutOfModel, PolicyDenied
from tidewarp.programs.execution import LIMITS, Limits
from tidewarp.programs.operations import OperationRegistry
from tidewarp.programs.runs import Run, run
from tidewarp.programs.verification import Outcome, verify_receipt
from tidewarp.store.admission import Role
from tidewarp.store.contract import Entry, Store

__all__ = ["judge"]


def judge(
    store: Store,
    ref: Reference,
    registry: OperationRegistry,
    *,
    executor: Executor,
    seed: bytes | None = None,
    limits: Limits = LIMITS,
) -> Run:
    """Settle the computation of the receipt ``ref``: execute it, keep what comes out with a receipt, and say so in a VERDICT.

    Arguments as of :func:`tidewarp.programs.runs.run`, whose errors it raises too.

    It is executed twice, since a verdict of an operation that is not deterministic would be one more opinion.

    Raises:
        PolicyDenied: the store's own domain has not the role ``audit``; its word would count for nothing.
        OutOfModel: the receipt cannot be executed here, or comes to two results; nothing was written.
    """
    standing = store.admission.standing(store.domain)
    if standing is None or Role.AUDIT not in standing.roles:
        raise PolicyDenied(
            f"domain {store.domain.hex()}",
            "the policy in force here does not give it the role audit",
            "let a domain that has it give the verdict, or give it: tidewarp peer trust DIR NAME --key HEX --role audit",
        )
    verdict = verify_receipt(store, ref, registry, limits=limits)
    if verdict.outcome not in (Outcome.SAME, Outcome.DIFFERENT):
        raise OutOfModel(
            f"receipt {ref.hex()}", f"{verdict.outcome}: {verdict.reason}", "judge what can be executed here"
        )
    receipt = Receipt.from_bytes(store.get(ref))
    claimed = read_computation(receipt, lambda name: Artifact(store.get(name), store.info(name).tag))
    with store.transaction():
        done = run(
            store,
            receipt.function,
            claimed.manifest.inputs,
            params=claimed.manifest.params,
            registry=registry,
            executor=executor,
            seed=seed,
            salt=claimed.environment.salt,
            force=True,
            limits=limits,
        )
        if done.outputs != verdict.outputs:
            raise OutOfModel(
                f"receipt {ref.hex()}", "executed twice here, it gave two results", "mend the operation that does so"
            )
        store.journal.append([Entry(VERDICT, VerdictBody(done.key, done.outputs).to_bytes(), PUBLISHED)])
    return done
