"""A replay as an operation of programs: ``tidewarp.journal.replay/1``, so that a run can have a receipt.

    inputs   model descriptor · parameters · journal segment (several in a row are one)
    params   {"until": I64}: the tick to stop at, exclusive; the greatest I64 for the end
    outputs  run digest, 32 bytes · final state, a canonical document
    fails    1 no model descriptor · 2 no parameters · 3 no segment of a twin's journal

The model descriptor (``TAG_MODEL``) is the document ``{digest, files, name}``: the model digest (32 bytes), the reference
of the artifact that has the model's files (a document: path in the model's folder -> bytes), and ``FILE.py:function``.
Parameters are the document ``{}``, or ``{"seed": U64}`` for the same inputs under other random numbers.

A descriptor names code and brings none with it. What runs is the model that the user of this machine has named, if its
digest is the one that is asked for: its files are hashed first, and nothing of them is run before they have that digest. A
machine to which nobody has named it says so, and comes to no result. So does one
on which the model raises: whether it would elsewhere too, nobody knows. The model need not be the one that wrote the journal:
last week's inputs under today's model are a computation like any other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import islice
from pathlib import PurePosixPath
from typing import Any, Final, NamedTuple

from tidewarp.codec import Record, pack, unpack
from tidewarp.codec.artifacts import TAG_MODEL, TAG_PROGRAM, TAG_SEGMENT, Artifact
from tidewarp.codec.programs import External, Node, Output, Program
from tidewarp.codec.references import Reference
from tidewarp.codec.segments import encode_segments, read_segments
from tidewarp.errors import CodecError, Corrupt, OperatorError, OutOfModel, TidewarpError
from tidewarp.programs import OperationFailed, OperationRegistry
from tidewarp.seeds import Stream
from tidewarp.twin.facts import opening_of
from tidewarp.twin.model import ModelSource, load_model, model_source
from tidewarp.twin.replay import rerun
from tidewarp.twin.session import Build
from tidewarp.units import TICK_MAX

__all__ = [
    "REPLAY",
    "REPLAY_VERSION",
    "ModelDescriptor",
    "RunInputs",
    "register_replay",
    "replay_program",
    "run_inputs",
]

REPLAY: Final = "tidewarp.journal.replay"
REPLAY_VERSION: Final = 1
_IMPL = sha256(b"tidewarp.journal.replay/1: the run digest TWRUN1, and the state document in it").digest()
_NO_DESCRIPTOR, _NO_PARAMETERS, _NO_SEGMENT = range(1, 4)


class ModelDescriptor(NamedTuple):
    """What names a model: ``FILE.py:function``, the artifact with its files, the model digest (32 bytes)."""

    name: str
    files: Reference
    digest: bytes

    def to_bytes(self) -> bytes:
        """The payload of its artifact."""
        return pack({"digest": self.digest, "files": self.files.to_bytes(), "name": self.name})

    @classmethod
    def from_bytes(cls, data: bytes) -> ModelDescriptor:
        """The descriptor whose bytes are ``data``. Raises CodecError."""
        match unpack(data):
            case {"digest": bytes(digest), "files": bytes(files), "name": str(name), **others}:
                if len(digest) == 32 and not others:
                    return cls(name, Reference.from_bytes(files), digest)
        raise CodecError(
            f"model descriptor of {len(data)} bytes", "it is {digest, files, name}", "send the bytes as they were made"
        )


def model_files(descriptor: ModelDescriptor, data: bytes) -> dict[str, bytes]:
    """The files of a model, by their paths in its folder, from the payload of ``descriptor.files``.

    Raises:
        CodecError: it is no such document, they are not those of the digest, or a path leads out of the folder.
    """
    contents = unpack(data)
    value, action = f"files of model {descriptor.name:.80}", "ask who wrote the receipt"
    if type(contents) is not dict or not all(type(content) is bytes for content in contents.values()):
        raise CodecError(value, "a document of paths and bytes", action)
    for name in contents:
        path = PurePosixPath(name)
        if (
            path.is_absolute()
            or ".." in path.parts
            or path.as_posix() != name
            or not name.isprintable()
            or "\\" in name
        ):
            raise CodecError(f"{value}: {name!r:.80}", "a path stays in the folder of the model", action)
    hashes = {name: sha256(content).hexdigest() for name, content in contents.items()}
    if ModelSource(None, descriptor.name, hashes).digest != descriptor.digest.hex():
        raise CodecError(value, f"they do not have the digest {descriptor.digest.hex()}", action)
    return contents


class RunInputs(NamedTuple):
    """All that a replay is run on, as artifacts: the program, its inputs in order, and the files of the model."""

    program: Artifact
    inputs: tuple[Artifact, ...]
    files: Artifact


class _Segment:
    """Records that have come as bytes, for who reads a journal."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = records

    @property
    def size(self) -> int:
        return len(self._records)

    def read(self, after: int = 0, limit: int | None = None, kinds: Collection[int] | None = None) -> Iterator[Record]:
        behind = self._records[after:]
        return islice((one for one in behind if kinds is None or one.kind in kinds), limit)


def register_replay(registry: OperationRegistry, *models: Build | ModelSource) -> None:
    """Add the operation to ``registry``. It can replay these ``models``.

    Args:
        registry: of a machine.
        models: as :func:`tidewarp.twin.load_model` gives them, or as :func:`tidewarp.twin.model.find_model` does: files
            that have been hashed, and are run once a descriptor asks for their digest.

    Raises:
        OperatorError: one of them was not read from a file, so that nothing names it.
        ModelError: it is registered already.
    """
    by_digest = {_named(one if isinstance(one, ModelSource) else model_source(one)): one for one in models}

    def function(inputs: tuple[Artifact, ...], params: Any, _: Stream) -> list[Artifact]:
        return _replayed(by_digest, inputs, params)

    registry.register(REPLAY, REPLAY_VERSION, function, inputs=3, outputs=2, impl=_IMPL)


def run_inputs(records: Sequence[Record], build: Build, *, until: int = TICK_MAX, seed: int | None = None) -> RunInputs:
    """What a program needs to make the run of a journal again.

    Args:
        records: of the journal, from the first on.
        build: its model.
        until: tick to stop at, exclusive.
        seed: in place of the journal's own.

    Raises:
        OperatorError: the model was not read from a file.
        CodecError: no records, or one that does not fit a batch.
    """
    source = model_source(build)
    digest = _named(source)
    assert source.path is not None  # or it had no digest
    contents = {name: (source.path.parent / name).read_bytes() for name in source.files}
    files = Artifact(pack(contents))
    descriptor = ModelDescriptor(f"{source.path.name}:{source.function}", files.reference(), digest)
    segments = [Artifact(one, TAG_SEGMENT) for one in encode_segments(records)]
    parameters = Artifact(pack({} if seed is None else {"seed": seed}))
    program = Artifact(replay_program(len(segments), until).to_bytes(), TAG_PROGRAM)
    return RunInputs(program, (Artifact(descriptor.to_bytes(), TAG_MODEL), parameters, *segments), files)


def replay_program(segments: int, until: int) -> Program:
    """From descriptor, parameters and that many segments to digest and state; ``until`` is a tick, exclusive."""
    whole = [Node("pel.bytes.concat", 1, tuple(External(2 + at) for at in range(segments)))] if segments > 1 else []
    journal = Output(0) if whole else External(2)
    replay = Node(REPLAY, REPLAY_VERSION, (External(0), External(1), journal), pack({"until": until}))
    at = len(whole)
    return Program.of(2 + segments, [*whole, replay], [Output(at, 0), Output(at, 1)])


def _named(source: ModelSource) -> bytes:
    if source.path is None or set(source.files) - {
        name for name in source.files if (source.path.parent / name).is_file()
    }:
        raise OperatorError(
            f"model {source.function}",
            "it is no function of a file, so nothing names it",
            "put build(twin) into a file",
        )
    return bytes.fromhex(source.digest)


def _replayed(
    by_digest: Mapping[bytes, Build | ModelSource], inputs: tuple[Artifact, ...], params: Any
) -> list[Artifact]:
    until = _until(params)
    described, parameters, segment = (artifact.payload for artifact in inputs)
    try:
        descriptor = ModelDescriptor.from_bytes(described)
    except CodecError:
        raise OperationFailed(_NO_DESCRIPTOR) from None
    seed = _seed(parameters)
    try:
        journal = _Segment(read_segments(segment))
        opening_of(journal)
    except (CodecError, Corrupt, OperatorError):
        raise OperationFailed(_NO_SEGMENT) from None
    model = by_digest.get(descriptor.digest)
    if model is None:
        raise _unnamed(descriptor, by_digest)
    try:
        build = load_model(f"{model.path}:{model.function}") if isinstance(model, ModelSource) else model
        twin, _ = rerun(journal, build, until=until, seed=seed)
    except Corrupt:
        raise OperationFailed(_NO_SEGMENT) from None
    except TidewarpError as error:
        raise OutOfModel(error.value, error.rule, error.action) from error
    return [Artifact(bytes.fromhex(twin._run.digest())), Artifact(pack(twin._run.state()))]


def _unnamed(descriptor: ModelDescriptor, by_digest: Mapping[bytes, Build | ModelSource]) -> OutOfModel:
    """That none of the models that were named is the one in ``descriptor``."""
    digest, files = descriptor.digest.hex(), f"artifact {descriptor.files.hex()}; of a bundle: --model-files NEW_DIR"
    if not by_digest:
        rule = "nobody has named it here, and no code is run that came with data"
        action = f"read its files ({files}), and name it: --model FILE.py"
    else:
        named = [(one if isinstance(one, ModelSource) else model_source(one), its) for its, one in by_digest.items()]
        has = ", ".join(f"{source.path} has model digest {its.hex()}" for source, its in named)
        rule = f"{has}, the receipt asks for {digest}; nothing was run"
        action = f"name the files that it was run with ({files}) once you have read them: --model FILE.py"
    return OutOfModel(f"model {descriptor.name} of digest {digest}", rule, action)


def _until(params: Any) -> int:
    match params:
        case {"until": int(until), **others} if not others and 0 <= until <= TICK_MAX:
            return until
    raise OperationFailed(_NO_PARAMETERS)


def _seed(parameters: bytes) -> int | None:
    try:
        document = unpack(parameters)
    except CodecError:
        raise OperationFailed(_NO_PARAMETERS) from None
    match document:
        case {"seed": int(seed)} if len(document) == 1 and type(seed) is int and 0 <= seed < 1 << 64:
            return seed
        case {} if type(document) is dict and not document:
            return None
    raise OperationFailed(_NO_PARAMETERS)
