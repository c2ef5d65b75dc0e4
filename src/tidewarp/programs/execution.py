"""Execution: a program, its inputs, its result. Pure: what runs, and in which order, leaves no trace in the bytes.

What a run comes to is decided in stages, and in each of them by the failing node with the smallest index:

1. INVALID_PROGRAM: a node that its operation does not fit (number of inputs, output that is not there, bad params).
2. INVALID_INPUTS: not the number of inputs that the program has; no params where a node reads them.
3. RUNTIME, before anything runs: what the sizes already say (:mod:`~tidewarp.programs.sizes`). All other nodes are skipped.
4. RUNTIME, level by level; the nodes behind the one that fails are skipped, whether or not they had run.

What a machine cannot do is in none of them: it is OutOfModel, and there is no result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

from tidewarp.codec.artifacts import Artifact
from tidewarp.codec.computations import (
    ANY_PLATFORM,
    Environment,
    Listing,
    ListingRow,
    Manifest,
    computation_key,
    platform_row,
    salt_row,
)
from tidewarp.codec.programs import SCHEME_REFERENCE, External, Output, Program
from tidewarp.codec.references import Reference
from tidewarp.codec.results import Diagnostic, NodeStatus, NodeTrace, Result, Status, Trace
from tidewarp.errors import CodecError, OutOfModel
from tidewarp.programs.operations import HostOperation, Operation, OperationFailed, OperationRegistry
from tidewarp.programs.sizes import known_sizes
from tidewarp.seeds import Stream

__all__ = ["LIMITS", "Computation", "Execution", "Limits", "Map", "computation_of", "execute"]

Map: TypeAlias = Callable[[Callable[[int], Any], Iterable[int]], Iterable[Any]]
"""As the builtin ``map``: results in the order of the items. That of a pool of threads runs them side by side."""

_SKIPPED = NodeTrace(NodeStatus.SKIPPED, 0, ())


def _never() -> bool:
    return False


class Limits(NamedTuple):
    """What this machine gives to a run. To meet one leaves no result.

    ``live_bytes``: payloads held at one time, inputs included. ``cancelled`` is asked before each node, in the thread that
    runs it.
    """

    live_bytes: int = 1 << 30
    cancelled: Callable[[], bool] = _never


LIMITS = Limits()


class Computation(NamedTuple):
    """What names a run before it is made: the key (32 bytes), and what goes into it beside program and manifest."""

    key: bytes
    environment: Environment
    listing: Listing


class Execution(NamedTuple):
    """A run, and what names it. ``outputs`` are the artifacts of the program's roots: none unless the status is OK."""

    key: bytes
    result: Result
    trace: Trace
    outputs: tuple[Artifact, ...]
    manifest: Manifest
    environment: Environment
    listing: Listing


def execute(
    program: Program,
    inputs: Sequence[Artifact],
    params: Artifact | None,
    registry: OperationRegistry,
    limits: Limits = LIMITS,
    *,
    salt: bytes = b"",
    map: Map = map,
) -> Execution:
    """Run ``program`` on ``inputs`` and ``params``.

    ``salt`` makes another computation of it, with a key of its own. ``map`` is given the nodes that do not depend on
    each other; the result does not depend on it.

    Raises:
        OutOfModel: an operation that is not registered here, a limit, no memory, a bug in a host operation.
        CodecError: the program does not stand in its one form, or there are more than 65,536 inputs.
    """
    manifest = Manifest(
        tuple([artifact.reference() for artifact in inputs]), None if params is None else params.reference()
    )
    name, operations = program.reference(), registry.of_nodes(program)
    key, environment, listing = _computation(name, operations, manifest, registry.platform, salt)
    run = _Run(program, operations, tuple(inputs), params, limits, key)
    end = run.start() or run.finish(map)
    roots = program.roots if end.status == Status.OK else ()
    result = Result(
        end.status,
        end.code,
        SCHEME_REFERENCE,
        name,
        manifest.inputs,
        manifest.params,
        tuple([run.traces[root.node].outputs[root.output] for root in roots]),
        end.diagnostics,
    )
    outputs = tuple([run.held[root.node][root.output] for root in roots])
    return Execution(key, result, Trace(result.reference(), tuple(run.traces)), outputs, manifest, environment, listing)


def computation_of(program: Program, manifest: Manifest, registry: OperationRegistry, salt: bytes = b"") -> Computation:
    """The computation that ``program`` on the inputs of ``manifest`` is here, without running it.

    Raises:
        OutOfModel: an operation that is not registered here.
        CodecError: as :func:`execute`.
    """
    return _computation(program.reference(), registry.of_nodes(program), manifest, registry.platform, salt)


def _computation(
    program: Reference, operations: Sequence[Operation], manifest: Manifest, platform: str | None, salt: bytes
) -> Computation:
    rows = [ListingRow(operation.name, operation.version, operation.impl) for operation in operations]
    if platform is not None and any(operation.platform_bound for operation in operations):
        rows.append(platform_row(platform))
    else:
        platform = ANY_PLATFORM
    if salt:
        rows.append(salt_row(salt))
    listing = Listing.of(rows)
    key = computation_key(SCHEME_REFERENCE, program, manifest.inputs, manifest.params, listing.reference())
    return Computation(key, Environment(listing.reference(), SCHEME_REFERENCE, platform, salt), listing)


class _End(NamedTuple):
    """How a run ended. ``node``: the one that decided it, None where no node is to blame."""

    status: Status
    node: int | None = None
    code: int = 0
    diagnostics: tuple[Diagnostic, ...] = ()


class _Done(NamedTuple):
    """What a node made, and the names of it: these are hashed where the node runs."""

    outputs: tuple[Artifact, ...]
    references: tuple[Reference, ...]


class _Run:
    """One run of a program. When it is over ``traces`` has a row for each node, and ``held`` the outputs of the roots."""

    def __init__(
        self,
        program: Program,
        operations: Sequence[Operation],
        inputs: tuple[Artifact, ...],
        params: Artifact | None,
        limits: Limits,
        key: bytes,
    ) -> None:
        self.traces: list[NodeTrace] = []
        self.held: dict[int, tuple[Artifact, ...]] = {}  # by node
        self._program = program
        self._operations = operations
        self._values: list[Any] = []
        self._inputs = inputs
        self._params = params
        self._limits = limits
        self._key = key
        self._reads = Counter(source.node for node in program.nodes for source in node.inputs if type(source) is Output)
        self._reads.update(root.node for root in program.roots)  # these are never taken off, so roots stay
        self._live = sum(len(artifact.payload) for artifact in inputs) + (0 if params is None else len(params.payload))

    def start(self) -> _End | None:
        """The stages before anything runs."""
        failure = self._invalid_program() or self._invalid_inputs() or self._failing_sizes()
        return None if failure is None else self._failed(failure)

    def finish(self, map: Map) -> _End:
        """Run all nodes, those of a level by ``map``."""
        for level in self._program.levels():
            places = self._planned(level)
            for at, done in zip(places, map(self._run_node, places), strict=True):
                if isinstance(done, OutOfModel):
                    raise done
                if isinstance(done, OperationFailed):
                    return self._failed(self._failure(at, done))
                self._keep(at, done)
            self._release(level)
        return _End(Status.OK)

    def _invalid_program(self) -> _End | None:
        for at, (node, operation) in enumerate(zip(self._program.nodes, self._operations, strict=True)):
            if len(node.inputs) not in operation.inputs or not all(map(self._is_there, node.inputs)):
                return _End(Status.INVALID_PROGRAM, at)
            try:
                self._values.append(operation.read(node.params))
            except CodecError:
                return _End(Status.INVALID_PROGRAM, at)
        if not all(map(self._is_there, self._program.roots)):
            return _End(Status.INVALID_PROGRAM)
        return None

    def _is_there(self, source: External | Output) -> bool:
        return isinstance(source, External) or source.output < self._operations[source.node].outputs

    def _invalid_inputs(self) -> _End | None:
        if len(self._inputs) != self._program.externals:
            return _End(Status.INVALID_INPUTS)
        if self._params is None:
            for at, operation in enumerate(self._operations):
                if operation.reads_run_params:
                    return _End(Status.INVALID_INPUTS, at)
        return None

    def _failing_sizes(self) -> _End | None:
        sizes = known_sizes(
            self._program,
            self._operations,
            self._values,
            [len(artifact.payload) for artifact in self._inputs],
            None if self._params is None else len(self._params.payload),
        )
        if sizes.failure is not None:
            at, index = sizes.failure
            return self._failure(at, OperationFailed(index))
        self._check_live(max([size for size in sizes.by_node if size is not None], default=0))
        return None

    def _failure(self, at: int, failed: OperationFailed) -> _End:
        operation = self._operations[at]
        diagnostics = (Diagnostic(failed.index, failed.message),) if isinstance(operation, HostOperation) else ()
        return _End(Status.RUNTIME, at, operation.code << 16 | failed.index, diagnostics)

    def _failed(self, failure: _End) -> _End:
        """Fill ``traces`` up to the end: what was kept stands before the node that failed."""
        self.traces += [_SKIPPED] * (len(self._program.nodes) - len(self.traces))
        if failure.node is not None:
            self.traces[failure.node] = NodeTrace(NodeStatus.FAILED, failure.code, ())
        return failure

    def _planned(self, level: range) -> range:
        """The nodes of ``level`` to run: all, or those up to the first whose sizes fail, since it or one before decides.

        What they will hold is refused here, before anything of it is made; what host operations make comes on top.
        """
        live = self._live
        for at in level:
            operation = self._operations[at]
            if not isinstance(operation, HostOperation):
                try:
                    live += operation.size(self._values[at], self._input_sizes(at))
                except OperationFailed:
                    level = range(level.start, at + 1)
                    break
        self._check_live(live)
        return level

    def _run_node(self, at: int) -> _Done | OperationFailed | OutOfModel:
        """What node ``at`` comes to. Any thread may run it: it only reads what is held.

        Errors are returned, since a node before it may decide that it does not count.
        """
        operation = self._operations[at]
        if self._limits.cancelled():
            return OutOfModel(self._named(at), "the run was cancelled", "run it again")
        try:
            if isinstance(operation, HostOperation):
                outputs = self._run_host(at, operation)
            else:
                operation.size(self._values[at], self._input_sizes(at))
                outputs = (operation.run(self._values[at], self._artifacts(at)),)
            return _Done(outputs, tuple([artifact.reference() for artifact in outputs]))
        except (OperationFailed, OutOfModel) as error:
            return error
        except Exception as error:
            return self._bug(at, error)

    def _bug(self, at: int, error: Exception) -> OutOfModel:
        if isinstance(error, MemoryError):
            bug = OutOfModel(self._named(at), "there is no memory for it", "run it on a larger machine")
        else:
            bug = OutOfModel(self._named(at), f"has a bug: {error!r}", "mend the operation, and run it again")
        bug.__cause__ = error
        return bug

    def _run_host(self, at: int, operation: HostOperation) -> tuple[Artifact, ...]:
        stream = Stream(int.from_bytes(self._key[:8], "big"), f"{operation.name}/{operation.version}.{at}")
        outputs = operation.function(tuple(self._artifacts(at)), self._values[at], stream)
        if len(outputs) != operation.outputs:
            raise TypeError(f"{len(outputs)} outputs, {operation.outputs} are registered")
        for artifact in outputs:
            if type(artifact) is not Artifact or type(artifact.payload) is not bytes:
                raise TypeError(f"an output is an Artifact of bytes, not a {type(artifact).__name__}")
        return tuple(outputs)

    def _artifacts(self, at: int) -> list[Artifact]:
        """The inputs of node ``at``."""
        artifacts = [
            self._inputs[source.number] if isinstance(source, External) else self.held[source.node][source.output]
            for source in self._program.nodes[at].inputs
        ]
        if self._params is not None and self._operations[at].reads_run_params:
            artifacts.append(self._params)
        return artifacts

    def _input_sizes(self, at: int) -> list[int]:
        return [len(artifact.payload) for artifact in self._artifacts(at)]

    def _keep(self, at: int, done: _Done) -> None:
        self.held[at] = done.outputs
        self._live += sum(len(artifact.payload) for artifact in done.outputs)
        self._check_live(self._live)
        self.traces.append(NodeTrace(NodeStatus.OK, 0, done.references))

    def _release(self, level: range) -> None:
        """Let go of what no later node reads."""
        for at in level:
            for source in self._program.nodes[at].inputs:
                if isinstance(source, Output):
                    self._reads[source.node] -= 1
                    if not self._reads[source.node]:
                        self._live -= sum(len(artifact.payload) for artifact in self.held.pop(source.node))

    def _check_live(self, size: int) -> None:
        if size > self._limits.live_bytes:
            raise OutOfModel(
                f"{size} live bytes",
                f"a run has at most {self._limits.live_bytes} here",
                "raise Limits.live_bytes, or split the program",
            )

    def _named(self, at: int) -> str:
        node = self._program.nodes[at]
        return f"node {at} ({node.operation}/{node.version})"
