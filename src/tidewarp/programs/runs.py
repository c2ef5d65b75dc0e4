"""Runs over a store: inputs by reference, and what came of them kept with the receipt, in one transaction.

A run that was accepted before is not executed again: the computation key says which one it is, before anything runs.
What is believed of others' receipts is the store's affair (:class:`~tidewarp.store.fold.View`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Final, Literal, NamedTuple, Protocol

from tidewarp.codec.artifacts import (
    TAG_ENVIRONMENT,
    TAG_EXECUTOR,
    TAG_LISTING,
    TAG_MANIFEST,
    TAG_PROGRAM,
    TAG_RESULT,
    TAG_TRACE,
    Artifact,
)
from tidewarp.codec.computations import Manifest
from tidewarp.codec.programs import SCHEME, SCHEME_REFERENCE, Program
from tidewarp.codec.receipts import BY_CONSTRUCTION, DECLARED, Determinism, Executor, Receipt
from tidewarp.codec.references import Reference
from tidewarp.codec.results import Result, Status
from tidewarp.errors import CodecError, NotFound, OperatorError, OutOfModel, ProgramRefused
from tidewarp.programs.execution import LIMITS, Computation, Execution, Limits, computation_of, execute
from tidewarp.programs.operations import HostOperation, OperationRegistry
from tidewarp.store.fold import Agreement, View
from tidewarp.store.links import PAYLOAD_BYTES_MAX

__all__ = ["EVALUATOR", "Run", "RunStore", "read_program", "run"]

EVALUATOR: Final = b"tidewarp-pel/1"
"""What a receipt says of who evaluated: this code, and the version of what it does."""


class ArtifactSize(Protocol):
    """What is known of an artifact before its bytes are read."""

    @property
    def tag(self) -> int | None:
        """What its payload is."""

    @property
    def size(self) -> int:
        """Bytes of its payload."""


class RunStore(Protocol):
    """What a run needs of a store; the stores of :mod:`tidewarp.store` fit it as they are."""

    def view(self, *, scope: Literal["published", "all"] = "published") -> View:
        """What is visible now."""

    def info(self, ref: Reference) -> ArtifactSize:
        """Of an artifact. Raises NotFound."""

    def has(self, refs: Sequence[Reference]) -> list[bool]:
        """Of which the bytes are here."""

    def get(self, ref: Reference) -> bytes:
        """The payload. Raises NotFound, Withheld, Erased, Corrupt."""

    def put_many(self, items: Iterable[tuple[bytes, int | None]], *, publish: bool = True) -> list[Reference]:
        """Keep artifacts: (payload, tag)."""

    def put_receipt(
        self, receipt: bytes, key: bytes, outputs: Sequence[Reference], *, publish: bool = True
    ) -> Reference:
        """Keep a receipt."""

    def transaction(self) -> AbstractContextManager[object]:
        """What is kept in it is durable together, or not there."""


class Run(NamedTuple):
    """A run by its names. ``key`` has 32 bytes; ``trace`` is None where none was kept.

    ``reused``: nothing was executed, since a receipt of an earlier run is accepted.
    """

    key: bytes
    status: Status
    result: Reference
    receipt: Reference
    outputs: tuple[Reference, ...]
    trace: Reference | None
    reused: bool


def run(
    store: RunStore,
    program: Reference,
    inputs: Sequence[Reference],
    *,
    params: Reference | None = None,
    registry: OperationRegistry,
    executor: Executor,
    seed: bytes | None = None,
    now: Callable[[], int] | None = None,
    trace: bool = True,
    salt: bytes = b"",
    force: bool = False,
    limits: Limits = LIMITS,
) -> Run:
    """Run ``program`` on ``inputs``, or find the accepted result of an earlier run.

    Outputs, result, trace and receipt, and all that the receipt names, are kept and published in one transaction. A
    status other than OK is a result like any other.

    Args:
        store: where everything is read from and kept.
        program: an artifact that is a program.
        inputs: what it is run on; order and repetitions count.
        params: what its nodes ``pel.bytes.params`` give.
        registry: the operations that there are here.
        executor: who the receipt says has run it.
        seed: of the executor's Ed25519 key (32 bytes), to sign the receipt; None: it has no signature.
        now: Unix ns, for the receipt's times; None leaves them out, so that equal runs give equal receipts.
        trace: keep what each node did too.
        salt: another salt makes another computation, so that a result can be disowned.
        force: execute although a result is accepted.
        limits: what this machine gives to the run.

    Raises:
        NotFound: the program, an input or the params are not visible here.
        Withheld, Erased, Corrupt: their bytes are not here.
        ProgramRefused: the artifact is no program.
        OutOfModel: this machine cannot run it; nothing was kept.
        OperatorError: its clock is before 1970; nothing was kept.
        QuotaExceeded, StoreFull, StoreFailed: nothing was kept.
    """
    view = store.view(scope="all")
    for ref in (program, *inputs, *([] if params is None else [params])):
        if not view.is_visible(ref):
            raise NotFound(ref.hex(), "it is not visible in this store", "put it, or lift its tombstone")
    decoded = read_program(store, program)
    manifest = Manifest(tuple(inputs), params)
    computation = computation_of(decoded, manifest, registry, salt)
    accepted = None if force else _accepted(store, view, program, manifest, computation)
    if accepted is not None:
        return accepted

    started = 0 if now is None else _checked(now())
    artifacts = _artifacts(store, manifest, limits)
    given = None if params is None else artifacts.pop()
    execution = execute(decoded, artifacts, given, registry, limits, salt=salt)
    completed = 0 if now is None else max(started, now())
    receipt = _receipt(decoded, execution, registry, executor, started, completed)
    return _keep(store, execution, executor, receipt if seed is None else receipt.signed(execution.key, seed), trace)


def read_program(store: RunStore, ref: Reference) -> Program:
    """The program ``ref`` in ``store``.

    Raises:
        ProgramRefused: the artifact is none. What ``store`` raises.
    """
    info = store.info(ref)
    if info.tag != TAG_PROGRAM:
        tag = "no tag" if info.tag is None else f"tag {info.tag:#x}"
        raise ProgramRefused(ref.hex(), f"a program has tag {TAG_PROGRAM:#x}, this artifact has {tag}", "build one")
    if info.size > PAYLOAD_BYTES_MAX:
        rule = f"a program has at most {PAYLOAD_BYTES_MAX} bytes, this artifact has {info.size}"
        raise ProgramRefused(ref.hex(), rule, "give what is long as an input")
    try:
        return Program.from_bytes(store.get(ref))
    except CodecError as error:
        raise ProgramRefused(ref.hex(), f"{error.value}: {error.rule}", "build the program again") from error


def _checked(unix_ns: int) -> int:
    """The time, which a receipt can say. Raises OperatorError."""
    if unix_ns < 0:
        rule = "a receipt has times from 1970 on"
        raise OperatorError(f"clock of this machine: {unix_ns} ns", rule, "set the clock, or leave the times out")
    return unix_ns


def _accepted(
    store: RunStore, view: View, program: Reference, manifest: Manifest, computation: Computation
) -> Run | None:
    """The run of an earlier receipt that all others agree with, if its bytes are here."""
    state = view.key_state(computation.key)
    if state is None or state.agreement is not Agreement.ACCEPTED:
        return None
    (outputs,) = state.lists
    for claim in view.receipts(computation.key):
        if claim.outputs != outputs or not view.is_visible(claim.receipt) or not all(store.has([claim.receipt])):
            continue
        receipt = Receipt.from_bytes(store.get(claim.receipt))
        if receipt[:3] != (program, manifest.reference(), computation.environment.reference()):
            continue  # its record has a key that is not its own
        result = receipt.output
        if len(outputs) == 1:  # then that is the output, and the result follows from what is known
            result = _result(program, manifest, outputs).reference()
        if all(store.has([result, *outputs])):
            status = Result.from_bytes(store.get(result)).status
            return Run(computation.key, status, result, claim.receipt, outputs, None, reused=True)
    return None


def _result(program: Reference, manifest: Manifest, outputs: tuple[Reference, ...]) -> Result:
    return Result(Status.OK, 0, SCHEME_REFERENCE, program, manifest.inputs, manifest.params, outputs)


def _artifacts(store: RunStore, manifest: Manifest, limits: Limits) -> list[Artifact]:
    """The inputs and, last, the params; what would be too much for this machine is not read at all."""
    wanted = [*manifest.inputs, *([] if manifest.params is None else [manifest.params])]
    infos = [store.info(ref) for ref in wanted]
    size = sum(info.size for info in infos)
    if size > limits.live_bytes:
        raise OutOfModel(
            f"inputs of {size} bytes",
            f"a run holds at most {limits.live_bytes} here",
            "run it on a larger machine",
        )
    return [Artifact(store.get(ref), info.tag) for ref, info in zip(wanted, infos, strict=True)]


def _receipt(
    program: Program,
    execution: Execution,
    registry: OperationRegistry,
    executor: Executor,
    started: int,
    completed: int,
) -> Receipt:
    declared = any(isinstance(operation, HostOperation) for operation in registry.of_nodes(program))
    return Receipt(
        execution.result.program,
        execution.manifest.reference(),
        execution.environment.reference(),
        EVALUATOR,
        execution.result.answer(),
        (executor.reference(),),
        started,
        completed,
        determinism=Determinism(DECLARED if declared else BY_CONSTRUCTION),
    )


def _keep(store: RunStore, execution: Execution, executor: Executor, receipt: Receipt, trace: bool) -> Run:
    """Children before parents, so that whoever reads along never meets a name without its bytes."""
    items = [
        (SCHEME.payload, SCHEME.tag),
        (execution.listing.to_bytes(), TAG_LISTING),
        (execution.environment.to_bytes(), TAG_ENVIRONMENT),
        (execution.manifest.to_bytes(), TAG_MANIFEST),
        (executor.to_bytes(), TAG_EXECUTOR),
        *execution.outputs,
        (execution.result.to_bytes(), TAG_RESULT),
    ]
    if trace:
        items.append((execution.trace.to_bytes(), TAG_TRACE))
    with store.transaction():
        store.put_many(items)
        name = store.put_receipt(receipt.to_bytes(), execution.key, execution.result.outputs)
    return Run(
        execution.key,
        execution.result.status,
        execution.result.reference(),
        name,
        execution.result.outputs,
        execution.trace.reference() if trace else None,
        reused=False,
    )
