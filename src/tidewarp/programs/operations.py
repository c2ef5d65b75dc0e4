"""Operations: what the nodes of a program do. Five on bytes are the kernel; upper layers register their own.

    operation (version 1)  code    inputs, params                       output, and failures by index
    pel.bytes.concat       1       1 or more; empty                     the payloads in a row, untagged; 1: above 2^40 bytes
    pel.bytes.slice        2       1; offset U64, length U64            that part, untagged; 1: beyond the input, nothing is clipped
    pel.bytes.const        3       0; ArtifactBytes                     that artifact with its tag
    pel.bytes.hash.asl1    4       1; hash id U16                       the digest of the payload; 1: a hash id that is not 1
    pel.bytes.params       5       0; empty                             the params of the run
    host operations        0xFFFF  as registered; canonical document    as registered; the index of OperationFailed

How long the output of a kernel operation is, and whether it fails, follows from its params and the sizes of its
inputs: :mod:`~tidewarp.programs.sizes` knows it before anything is made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from tidewarp.codec.artifacts import Artifact
from tidewarp.codec.canonical import unpack
from tidewarp.codec.frames import ITEMS_MAX, TEXT_BYTES_MAX, Reader
from tidewarp.codec.programs import Node, Program
from tidewarp.codec.references import SHA256
from tidewarp.errors import ModelError, OutOfModel
from tidewarp.seeds import Stream

__all__ = [
    "CONCAT_BYTES_MAX",
    "HOST_CODE",
    "MESSAGE_BYTES_MAX",
    "OUTPUTS_MAX",
    "HostFunction",
    "HostOperation",
    "KernelOperation",
    "Operation",
    "OperationFailed",
    "OperationRegistry",
]

CONCAT_BYTES_MAX: Final = 1 << 40
HOST_CODE: Final = 0xFFFF
MESSAGE_BYTES_MAX: Final = 4_096
OUTPUTS_MAX: Final = 1_024  # of one operation

_KERNEL_PREFIX = "pel."
_KERNEL_IMPL = bytes(32)
_DIGEST_BYTES = 32

HostFunction: TypeAlias = Callable[[tuple[Artifact, ...], Any, Stream], Sequence[Artifact]]
"""``function(inputs, params, stream)``: a pure function of these, and all that it gets.

``params`` is the value of the node's document. The stream is seeded by the first 8 bytes of the computation key, and
its name is ``NAME/VERSION.NODE``: equal runs draw equal numbers, two nodes of a run do not.
"""


class OperationFailed(Exception):
    """An operation has no output for these inputs: part of what it computes, hence of the result, and no error.

    ``index`` (1 to 65,535) says why, in the operation's own numbering. ``message`` is a diagnostic of the result of a
    host operation, so it must be the same on every machine.
    """

    def __init__(self, index: int, message: str = "") -> None:
        super().__init__(index, message)
        if not 1 <= index <= 0xFFFF:
            raise ModelError(f"failure {index!r:.40}", "the index of a failure is 1 to 65535", "number them from 1")
        self.index = index
        self.message = message.encode()
        if len(self.message) > MESSAGE_BYTES_MAX:
            raise ModelError(
                f"failure {index} with a message of {len(self.message)} bytes",
                f"a message has at most {MESSAGE_BYTES_MAX}",
                "shorten it",
            )


@dataclass(frozen=True, slots=True)
class KernelOperation:
    """An operation on bytes. It has one output; what it fails at, ``size`` raises and ``run`` does not meet.

    ``read`` makes a value of the node's params or raises CodecError. ``size`` and ``run`` are given that value;
    sizes are bytes of payload.
    """

    name: str
    code: int
    inputs: range
    """The numbers of inputs that it takes."""
    read: Callable[[bytes], Any]
    size: Callable[[Any, Sequence[int]], int]
    run: Callable[[Any, Sequence[Artifact]], Artifact]
    reads_run_params: bool = False
    """Are the params of the run an input, behind those of the node?"""
    version: int = 1
    outputs: int = 1
    impl: bytes = _KERNEL_IMPL
    platform_bound: bool = False


@dataclass(frozen=True, slots=True)
class HostOperation:
    """An operation of an upper layer, as :meth:`OperationRegistry.register` took it."""

    name: str
    version: int
    function: HostFunction
    inputs: range
    outputs: int
    impl: bytes
    platform_bound: bool
    code: int = HOST_CODE
    reads_run_params: bool = False
    read: Callable[[bytes], Any] = unpack


Operation: TypeAlias = KernelOperation | HostOperation


class OperationRegistry:
    """The operations that programs may use here, by name and version. :meth:`kernel` has the five.

    ``platform`` names this machine for operations whose bytes depend on it.
    """

    def __init__(self, operations: Iterable[Operation] = (), *, platform: str | None = None) -> None:
        self.platform = platform
        self._operations = {(operation.name, operation.version): operation for operation in operations}

    @classmethod
    def kernel(cls, *, platform: str | None = None) -> OperationRegistry:
        """A registry of the five kernel operations; more may be registered in it."""
        return cls(_KERNEL, platform=platform)

    def register(
        self,
        name: str,
        version: int,
        function: HostFunction,
        *,
        inputs: int,
        outputs: int,
        impl: bytes,
        platform_bound: bool = False,
    ) -> None:
        """Add a host operation with that many inputs and outputs.

        ``impl`` (32 bytes, not zero) names what the function computes and not how: functions with one ``impl`` give
        equal outputs for equal inputs. What only holds on one platform is ``platform_bound``.

        Raises:
            ModelError: a name that is taken, empty, of the kernel (``pel.…``), with a slash or space or of more than
                1,024 bytes; a number out of range; a digest that is none; a bound operation in a registry that does
                not name its platform.
        """
        what = f"operation {name!r:.80}/{version!r:.20}"
        if not name or name.startswith(_KERNEL_PREFIX) or "/" in name or not name.isprintable() or " " in name:
            raise ModelError(what, "a name is printable, without slash or space, and not the kernel's", "rename it")
        if len(name.encode()) > TEXT_BYTES_MAX:
            raise ModelError(what, f"a name has at most {TEXT_BYTES_MAX} bytes", "shorten it")
        if not 1 <= version < 1 << 32 or not 0 <= inputs <= ITEMS_MAX or not 1 <= outputs <= OUTPUTS_MAX:
            raise ModelError(
                f"{what} with {inputs} inputs and {outputs} outputs",
                f"versions count from 1, inputs are 0 to {ITEMS_MAX}, outputs 1 to {OUTPUTS_MAX}",
                "correct the number",
            )
        if len(impl) != 32 or impl == _KERNEL_IMPL:
            raise ModelError(what, "its impl is a digest of 32 bytes, not zero", "hash what names its semantics")
        if platform_bound and self.platform is None:
            raise ModelError(what, "it is bound to a platform and the registry names none", "give the registry one")
        if (name, version) in self._operations:
            raise ModelError(what, "registered already", "raise the version")
        takes = range(inputs, inputs + 1)
        self._operations[name, version] = HostOperation(name, version, function, takes, outputs, impl, platform_bound)

    def find(self, name: str, version: int) -> Operation | None:
        """The operation, or None if there is no such one here."""
        return self._operations.get((name, version))

    def of_nodes(self, program: Program) -> list[Operation]:
        """The operation of each node.

        Raises:
            OutOfModel: one of them is not registered here.
        """
        return [self._of_node(at, node) for at, node in enumerate(program.nodes)]

    def _of_node(self, at: int, node: Node) -> Operation:
        operation = self.find(node.operation, node.version)
        if operation is None:
            raise OutOfModel(
                f"node {at}",
                f"operation {node.operation}/{node.version} is not registered here",
                "register it, or run the program where it is",
            )
        return operation


def _read_nothing(params: bytes) -> None:
    Reader(params, "params").end()


def _read_slice(params: bytes) -> tuple[int, int]:
    reader = Reader(params, "params")
    part = reader.u64(), reader.u64()
    reader.end()
    return part


def _read_hash_id(params: bytes) -> int:
    reader = Reader(params, "params")
    hash_id = reader.u16()
    reader.end()
    return hash_id


def _concat_size(_: None, sizes: Sequence[int]) -> int:
    size = sum(sizes)
    if size > CONCAT_BYTES_MAX:
        raise OperationFailed(1)
    return size


def _concat(_: None, inputs: Sequence[Artifact]) -> Artifact:
    return Artifact(b"".join([artifact.payload for artifact in inputs]))


def _slice_size(part: tuple[int, int], sizes: Sequence[int]) -> int:
    offset, length = part
    if offset + length > sizes[0]:
        raise OperationFailed(1)
    return length


def _slice(part: tuple[int, int], inputs: Sequence[Artifact]) -> Artifact:
    offset, length = part
    return Artifact(inputs[0].payload[offset : offset + length])


def _const_size(constant: Artifact, _: Sequence[int]) -> int:
    return len(constant.payload)


def _const(constant: Artifact, _: Sequence[Artifact]) -> Artifact:
    return constant


def _hash_size(hash_id: int, _: Sequence[int]) -> int:
    if hash_id != SHA256:
        raise OperationFailed(1)
    return _DIGEST_BYTES


def _hash(_: int, inputs: Sequence[Artifact]) -> Artifact:
    return Artifact(hashlib.sha256(inputs[0].payload).digest())


def _params_size(_: None, sizes: Sequence[int]) -> int:
    return sizes[0]


def _params(_: None, inputs: Sequence[Artifact]) -> Artifact:
    return inputs[0]


_NO_INPUTS, _ONE_INPUT, _ANY_INPUTS = range(1), range(1, 2), range(1, ITEMS_MAX + 1)
_KERNEL = (
    KernelOperation("pel.bytes.concat", 1, _ANY_INPUTS, _read_nothing, _concat_size, _concat),
    KernelOperation("pel.bytes.slice", 2, _ONE_INPUT, _read_slice, _slice_size, _slice),
    KernelOperation("pel.bytes.const", 3, _NO_INPUTS, Artifact.from_bytes, _const_size, _const),
    KernelOperation("pel.bytes.hash.asl1", 4, _ONE_INPUT, _read_hash_id, _hash_size, _hash),
    KernelOperation("pel.bytes.params", 5, _NO_INPUTS, _read_nothing, _params_size, _params, reads_run_params=True),
)
