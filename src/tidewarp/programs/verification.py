"""Verification: is what a receipt claims what comes out when the program is run again?

A receipt is believed by nobody who can run the program. What comes of checking one is a :class:`Verdict`:

    same          it was executed here, and gave these outputs
    different     it was executed here, and gave others: the receipt is wrong, and who claimed it is named
    incomparable  what would be executed here is another computation: another platform, scheme or implementation
    unavailable   bytes that it names are not here, an operation is not registered, a limit of this machine was met
    invalid       it is no receipt, its signature is wrong, or it contradicts what it names

Only the third party's own execution decides between the first two. Nothing that a store says of a receipt is used but
the bytes under the names in it, and these are hashed when they are read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from tidewarp.codec.artifacts import TAG_EXECUTOR, TAG_PROGRAM, TAG_RECEIPT, Artifact
from tidewarp.codec.computations import ANY_PLATFORM, ClaimedComputation, platform_row, read_computation, salt_row
from tidewarp.codec.programs import SCHEME_REFERENCE, Program
from tidewarp.codec.receipts import Executor, Receipt
from tidewarp.codec.references import Reference
from tidewarp.errors import (
    CodecError,
    Corrupt,
    Erased,
    NotFound,
    OperatorError,
    OutOfModel,
    Withheld,
)
from tidewarp.programs.execution import LIMITS, Execution, Limits, computation_of, execute
from tidewarp.programs.operations import OperationRegistry
from tidewarp.programs.runs import RunStore
from tidewarp.seeds import Stream
from tidewarp.store.fold import Agreement, Claim, View

__all__ = [
    "Outcome",
    "Read",
    "Verdict",
    "VerifyReport",
    "check_receipt",
    "reexecute",
    "verify_receipt",
]

Read: TypeAlias = Callable[[Reference], Artifact]
"""The artifact of a name, its bytes hashed. Raises NotFound, Withheld, Erased, Corrupt."""

_KERNEL_PREFIX = "pel."
_KERNEL_IMPL = bytes(32)
_ABSENT = (NotFound, Withheld, Erased, Corrupt)
_NOT_SAID = "nobody else has said what comes of this computation"


class Outcome(StrEnum):
    """What came of checking a receipt; the text is its name in reports."""

    SAME = "same"
    DIFFERENT = "different"
    INCOMPARABLE = "incomparable"
    UNAVAILABLE = "unavailable"
    INVALID = "invalid"


class Verdict(NamedTuple):
    """What came of checking the ``receipt``.

    ``reason`` says why, and ``action`` what to do; nothing where the outcome is "same" or "different". ``key`` has 32 bytes, None if it could not
    be made. ``claimed`` is what the receipt names as the answer; ``outputs`` are those of the execution here, and
    ``answer`` is what a receipt of it would name. ``executors`` are who the receipt says has run it: its writer's word,
    which binds nobody but the ``signer``, whose Ed25519 key (32 bytes) has signed. ``domains`` (32 bytes each) are those
    whose journals hold it.
    """

    receipt: Reference
    outcome: Outcome
    reason: str = ""
    action: str = ""
    key: bytes | None = None
    claimed: Reference | None = None
    answer: Reference | None = None
    outputs: tuple[Reference, ...] = ()
    executors: tuple[Executor, ...] = ()
    signer: bytes | None = None
    domains: tuple[bytes, ...] = ()
    is_overruled: bool = False
    """Different, as the verdict in force says as well: whoever reads the store knows it already."""


class VerifyReport(NamedTuple):
    """The verdicts on a sample of receipts, in the order of their names, and ``receipts``, how many there are in all."""

    receipts: int
    verdicts: tuple[Verdict, ...]

    def count(self, outcome: Outcome) -> int:
        """How many of the verdicts have it."""
        return Counter(verdict.outcome for verdict in self.verdicts)[outcome]

    @property
    def executed(self) -> int:
        """How many of them were executed."""
        return self.count(Outcome.SAME) + self.count(Outcome.DIFFERENT)

    @property
    def bad(self) -> tuple[Verdict, ...]:
        """Those that are invalid, or different and not overruled."""
        return tuple(
            one
            for one in self.verdicts
            if one.outcome is Outcome.INVALID or (one.outcome is Outcome.DIFFERENT and not one.is_overruled)
        )


def check_receipt(ref: Reference, read: Read, registry: OperationRegistry, limits: Limits = LIMITS) -> Verdict:
    """Execute what the receipt ``ref`` is about, from the bytes that ``read`` gives, and compare. Pure but for ``read``."""
    return _checked(ref, read, registry, limits)


def verify_receipt(
    store: RunStore,
    ref: Reference,
    registry: OperationRegistry,
    *,
    reexecute: bool = True,
    limits: Limits = LIMITS,
) -> Verdict:
    """Check the receipt ``ref`` in ``store``.

    Args:
        store: where the receipt, and all that it names, is read from.
        ref: of a receipt.
        registry: the operations that there are here.
        reexecute: execute it. False: compare its outputs with what others claim of the same computation, or with the
            verdict on it; where nobody else has said anything, it is "incomparable".
        limits: what this machine gives to a run.
    """
    view = store.view(scope="all")
    read = _reader(store, limits)
    verdict = _checked(ref, read, registry if reexecute else None, limits)
    key = verdict.key
    if key is None:
        return verdict
    claims = view.receipts(key)
    own = [claim for claim in claims if claim.receipt == ref]
    verdict = verdict._replace(domains=tuple(sorted({claim.domain for claim in own})))
    if not reexecute and verdict.outcome is Outcome.INCOMPARABLE:
        return _compared(verdict, view, own, claims)
    if verdict.outcome is Outcome.DIFFERENT:
        state = view.key_state(key)
        is_judged = state is not None and state[:2] == (Agreement.RESOLVED, (verdict.outputs,))
        return verdict._replace(is_overruled=is_judged)
    lies = verdict.outcome is Outcome.SAME and any(claim.outputs != verdict.outputs for claim in own)
    if lies:
        return verdict._replace(outcome=Outcome.INVALID, reason="its record names other outputs than it does itself")
    return verdict


def reexecute(
    store: RunStore, count: int, seed: int, registry: OperationRegistry, *, limits: Limits = LIMITS
) -> VerifyReport:
    """Check ``count`` of the visible receipts in ``store``, or all if there are no more.

    Which ones is a function of ``seed`` (U64) and of what is visible; each is as likely as any other.
    """
    view = store.view(scope="all")
    receipts = sorted(
        {claim.receipt for key in view.computations() for claim in view.receipts(key) if view.is_visible(claim.receipt)}
    )
    sample = _sample(receipts, count, seed)
    verdicts = [verify_receipt(store, ref, registry, limits=limits) for ref in sample]
    return VerifyReport(len(receipts), tuple(verdicts))


def _checked(ref: Reference, read: Read, registry: OperationRegistry | None, limits: Limits) -> Verdict:
    """The verdict on ``ref``; without a registry, on what it says of itself alone."""
    verdict = Verdict(ref, Outcome.INVALID)
    try:
        receipt = Receipt.from_bytes(_typed(read, ref, TAG_RECEIPT, "receipt"))
        verdict = verdict._replace(claimed=receipt.output, executors=_executors(receipt, read))
        claimed = read_computation(receipt, read)
        verdict = verdict._replace(key=claimed.key, signer=receipt.signer(claimed.key))
        program = Program.from_bytes(_typed(read, receipt.function, TAG_PROGRAM, "program"))
        broken = _contradiction(program, claimed)
        if broken:
            return verdict._replace(reason=broken)
        other = _NOT_SAID if registry is None else _another(program, claimed, registry)
        if other or registry is None:
            return verdict._replace(outcome=Outcome.INCOMPARABLE, reason=other)
        execution = _execute(program, claimed, read, registry, limits)
    except (*_ABSENT, OutOfModel) as error:
        reason = f"{error.value}: {error.rule}"
        return verdict._replace(outcome=Outcome.UNAVAILABLE, reason=reason, action=error.action)
    except CodecError as error:
        return verdict._replace(reason=f"{error.value}: {error.rule}", action=error.action)
    answer = execution.result.answer()
    outcome = Outcome.SAME if answer == receipt.output else Outcome.DIFFERENT
    return verdict._replace(outcome=outcome, answer=answer, outputs=execution.result.outputs)


def _reader(store: RunStore, limits: Limits) -> Read:
    """Reads from ``store``, and in all no more than a run may hold."""
    left = limits.live_bytes

    def read(ref: Reference) -> Artifact:
        nonlocal left
        info = store.info(ref)
        left -= info.size
        if left < 0:
            rule = f"a run holds at most {limits.live_bytes} bytes here"
            raise OutOfModel(f"artifact {ref.hex()} of {info.size} bytes", rule, "check it on a larger machine")
        return Artifact(store.get(ref), info.tag)

    return read


def _typed(read: Read, ref: Reference, tag: int, what: str) -> bytes:
    artifact = read(ref)
    if artifact.tag != tag:
        raise CodecError(f"{what} {ref.hex()}", f"its artifact has not the tag {tag:#x}", "name another")
    return artifact.payload


def _executors(receipt: Receipt, read: Read) -> tuple[Executor, ...]:
    """Those whose bytes are here: a name that is missing decides nothing."""
    found = []
    for ref in receipt.executors:
        try:
            found.append(Executor.from_bytes(_typed(read, ref, TAG_EXECUTOR, "executor")))
        except _ABSENT:
            continue
    return tuple(found)


def _contradiction(program: Program, claimed: ClaimedComputation) -> str:
    """What the receipt's listing says that cannot be true of its program and environment, or nothing."""
    _, _, environment, listing = claimed
    beside = []
    if environment.salt:
        beside.append(salt_row(environment.salt))
    if environment.platform != ANY_PLATFORM:
        beside.append(platform_row(environment.platform))
    rows = set(listing.rows)
    used = {(node.operation, node.version) for node in program.nodes}
    if not rows.issuperset(beside) or {row[:2] for row in rows.difference(beside)} != used:
        return "its operation listing is not that of its program and environment"
    if any(row.name.startswith(_KERNEL_PREFIX) and row.impl != _KERNEL_IMPL for row in rows):
        return "its operation listing has an implementation of an operation of the kernel, which has none"
    return ""


def _another(program: Program, claimed: ClaimedComputation, registry: OperationRegistry) -> str:
    """Why what would be executed here is another computation, or nothing. Raises OutOfModel: an operation is missing."""
    _, manifest, environment, listing = claimed
    if environment.scheme != SCHEME_REFERENCE:
        return f"its scheme is {environment.scheme.hex()}, here is {SCHEME_REFERENCE.hex()}"
    here = computation_of(program, manifest, registry, environment.salt)
    if here.environment.platform != environment.platform:
        return f"it was run on {environment.platform!r}, here is {here.environment.platform!r}"
    if here.key != claimed.key:
        other = sorted(f"{row.name}/{row.version}" for row in set(listing.rows) - set(here.listing.rows))
        return f"another implementation of {', '.join(other)} is here"
    return ""


def _execute(
    program: Program, claimed: ClaimedComputation, read: Read, registry: OperationRegistry, limits: Limits
) -> Execution:
    _, manifest, environment, _ = claimed
    inputs = [read(ref) for ref in manifest.inputs]
    params = None if manifest.params is None else read(manifest.params)
    return execute(program, inputs, params, registry, limits, salt=environment.salt)


def _compared(verdict: Verdict, view: View, own: Sequence[Claim], claims: Sequence[Claim]) -> Verdict:
    """The verdict by the word of others."""
    if verdict.key is None or not own:
        return verdict
    said = {claim.outputs for claim in own}
    state = view.key_state(verdict.key)
    if state is not None and state.agreement is Agreement.RESOLVED:
        outcome = Outcome.SAME if said == set(state.lists) else Outcome.DIFFERENT
        return verdict._replace(outcome=outcome, reason="", outputs=state.lists[0])
    others = {claim.outputs for claim in claims if claim.domain not in verdict.domains}
    if others and others == said:
        return verdict._replace(outcome=Outcome.SAME, reason="", outputs=own[0].outputs)
    if others:
        return verdict._replace(reason="receipts contradict each other: only executing it tells which is wrong")
    return verdict


def _sample(items: Collection[Reference], count: int, seed: int) -> list[Reference]:
    """``count`` of ``items``, ascending: Knuth's algorithm S (The Art of Computer Programming, volume 2, 3.4.2)."""
    if count < 0:
        raise OperatorError(f"sample of {count}", "a sample has 0 receipts or more", "give the number of receipts")
    stream = Stream(seed, "programs.verification.sample")
    chosen: list[Reference] = []
    for seen, item in enumerate(items):
        if stream.below(len(items) - seen) < count - len(chosen):
            chosen.append(item)
    return chosen
