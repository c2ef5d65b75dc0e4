"""Requests: runs that any site may execute, whose inputs may be the outputs of other requests.

A request is an artifact, named by a REQUEST record. Whoever has the role ``execute`` may run it once it is *ready*:
program, params and inputs are visible and here, and where an input is an output of another request, that one is
accepted. No site leads. For each computation the sites have an order of their own, by

    SHA-256("TWRDV1" | computation key 32 | domain 32)      ascending

(rendezvous hashing: Thaler and Ravishankar, IEEE/ACM Transactions on Networking 6, 1998). The first goes at once, each
further one waits a grace time longer, so that a site that is down delays a run and stops nothing. Where two run the same,
nothing is lost but time: equal computations have one key and one result.

A request is cancelled by a tombstone on it. One whose computation is divergent waits for a verdict, and so do those that
hang on it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from tidewarp.codec import PUBLISHED
from tidewarp.codec.artifacts import TAG_REQUEST
from tidewarp.codec.bodies import REQUEST, RequestBody
from tidewarp.codec.computations import Manifest
from tidewarp.codec.programs import Program
from tidewarp.codec.references import Reference
from tidewarp.codec.requests import RequestInput, RequestOutput, RunRequest
from tidewarp.errors import CodecError, OutOfModel, ProgramRefused
from tidewarp.programs.execution import computation_of
from tidewarp.programs.operations import OperationRegistry
from tidewarp.programs.runs import read_program
from tidewarp.store.admission import Role
from tidewarp.store.contract import Entry, Store
from tidewarp.store.fold import Agreement, View
from tidewarp.store.links import PAYLOAD_BYTES_MAX

__all__ = ["GRACE_S", "ReadyRequest", "RequestBoard", "RequestState", "Stage", "rendezvous", "submit"]

GRACE_S: Final = 10.0
"""Seconds that each site leaves to the one before it."""

_SETTLED = (Agreement.ACCEPTED, Agreement.RESOLVED)


class Stage(StrEnum):
    """How far a request has come; the text is its name in reports."""

    WAITING = "waiting"
    """Something that it needs is not visible, not here, or not settled; or its output is hidden."""
    READY = "ready"
    """Everything is here, and no result is settled."""
    DONE = "done"
    """Its outputs are settled."""
    FAILED = "failed"
    """It is settled that the program fails on these inputs."""
    DIVERGENT = "divergent"
    """Receipts contradict each other; it waits for a verdict."""
    BLOCKED = "blocked"
    """An input of it is an output that will not come: of a run that failed, or that has not so many."""
    ELSEWHERE = "elsewhere"
    """Its program has an operation that is not registered here."""
    INVALID = "invalid"
    """It is no request, or what it names as its program is none."""


class RequestState(NamedTuple):
    """Where a request stands. ``waits_for``, ascending: artifacts that are not here, and requests that are not settled.

    ``key`` (32 bytes) is there once all inputs have names, ``outputs`` once they are settled: none where it failed.
    """

    request: Reference
    stage: Stage
    key: bytes | None = None
    outputs: tuple[Reference, ...] | None = None
    waits_for: tuple[Reference, ...] = ()


class ReadyRequest(NamedTuple):
    """A request that can be run here, as the arguments of :func:`tidewarp.programs.runs.run`.

    ``key`` (32 bytes) is that of the computation; ``turn``, from 0, is this site's place in the order for it.
    """

    request: Reference
    key: bytes
    program: Reference
    inputs: tuple[Reference, ...]
    params: Reference | None
    turn: int


class _Known(NamedTuple):
    """A request, where it stands, and its inputs once all of them have names."""

    state: RequestState
    request: RunRequest | None = None
    inputs: tuple[Reference, ...] = ()


def submit(store: Store, request: RunRequest) -> Reference:
    """Ask for a run; durable on return. What is asked for already, by whomever, is not asked for again.

    Raises:
        CodecError: a number in it is out of range. What a write to ``store`` raises.
    """
    data, ref = request.to_bytes(), request.reference()
    with store.transaction():
        if not store.view(scope="all").is_visible(ref):
            store.put(data, tag=TAG_REQUEST)
            store.journal.append([Entry(REQUEST, RequestBody(ref).to_bytes(), PUBLISHED)])
    return ref


def rendezvous(key: bytes, domain: bytes) -> bytes:
    """By what (32 bytes) the sites are ordered for the computation ``key``; both arguments have 32 bytes."""
    return hashlib.sha256(b"TWRDV1" + key + domain).digest()


class RequestBoard:
    """The requests that a store knows: which of them can be run here now.

    Reads what is new in the store at each call, and nothing twice.

    Args:
        store: where requests, programs and results are.
        registry: the operations that there are here; what needs others is left to others.
        grace_s: see :data:`GRACE_S`.
    """

    def __init__(self, store: Store, registry: OperationRegistry, *, grace_s: float = GRACE_S) -> None:
        self._store = store
        self._registry = registry
        self._grace_s = grace_s
        self._read: dict[bytes, int] = {}  # by domain, how many records
        self._asked: set[Reference] = set()
        self._requests: dict[Reference, RunRequest | None] = {}  # None: it is none
        self._programs: dict[Reference, Program | None] = {}
        self._keys: dict[tuple[Reference, Manifest], bytes | None] = {}

    def ready(self, waited_s: float = 0.0) -> list[ReadyRequest]:
        """What this site may run now, in the order of the requests' names; empty if it has not the role ``execute``.

        ``waited_s``: seconds since something changed here last, so that it is clear who should have come first.
        """
        view = self._store.view(scope="all")
        domains = self._executors(view)
        if self._store.domain not in domains:
            return []
        found = []
        for state, request, inputs in self._visible(view):
            if state.stage is not Stage.READY or request is None or state.key is None:
                continue
            turn = _turn(state.key, self._store.domain, domains)
            if turn * self._grace_s <= waited_s:
                found.append(ReadyRequest(state.request, state.key, request.program, inputs, request.params, turn))
        return found

    def states(self) -> list[RequestState]:
        """Where the requests stand that are visible, in the order of their names."""
        return [one.state for one in self._visible(self._store.view(scope="all"))]

    def state(self, ref: Reference) -> RequestState:
        """Where the request ``ref`` stands, which may be one that is still to come."""
        known: dict[Reference, _Known] = {}
        self._settle(self._store.view(scope="all"), ref, known)
        return known[ref].state

    def _visible(self, view: View) -> Iterator[_Known]:
        self._read_on(view)
        known: dict[Reference, _Known] = {}
        for ref in sorted(filter(view.is_visible, self._asked)):
            self._settle(view, ref, known)
            yield known[ref]

    def _executors(self, view: View) -> set[bytes]:
        """The domains that may run anything; the own one too, before its first record."""
        domains = {head.domain for head in view.heads()} | {self._store.domain}
        standings = ((domain, view.admission.standing(domain)) for domain in domains)
        return {domain for domain, standing in standings if standing is not None and Role.EXECUTE in standing.roles}

    def _read_on(self, view: View) -> None:
        for domain in self._store.domains():
            standing = view.admission.standing(domain.id)
            after = self._read.get(domain.id, 0)
            if standing is None or after == domain.size:
                continue
            for header, _, body in self._store.records(domain.id, after):
                self._read[domain.id] = header.seq
                counts = header.flags & PUBLISHED and Role.PRODUCE in standing.roles_at(header.seq)
                if header.kind == REQUEST and body is not None and counts:
                    self._asked.add(RequestBody.from_bytes(body).ref)

    def _settle(self, view: View, ref: Reference, known: dict[Reference, _Known]) -> None:
        """Put ``ref`` into ``known``, behind all that it hangs on. A name is a hash, so there is no cycle."""
        waiting = [ref]
        while waiting:
            if waiting[-1] in known:
                waiting.pop()
                continue
            request = self._request(waiting[-1])
            sources = () if request is None else request.inputs
            before = {one.request for one in sources if isinstance(one, RequestOutput)}.difference(known)
            if before:
                waiting += sorted(before)
                continue
            name = waiting.pop()
            known[name] = self._unread(name) if request is None else self._known(view, name, request, known)

    def _unread(self, ref: Reference) -> _Known:
        """What there is to say of a request that cannot be read."""
        if ref in self._requests:
            return _Known(RequestState(ref, Stage.INVALID))
        return _Known(RequestState(ref, Stage.WAITING, waits_for=(ref,)))

    def _known(self, view: View, ref: Reference, request: RunRequest, known: Mapping[Reference, _Known]) -> _Known:
        program = self._program(request.program)
        if program is None and request.program in self._programs:
            return _Known(RequestState(ref, Stage.INVALID), request)
        if any(_never_comes(one, known) for one in request.inputs):
            return _Known(RequestState(ref, Stage.BLOCKED), request)
        sources = {one.request for one in request.inputs if isinstance(one, RequestOutput)}
        lacking = {one for one in sources if known[one].state.outputs is None}
        if lacking or program is None:
            lacking |= set() if program is not None else {request.program}
            return _Known(RequestState(ref, Stage.WAITING, waits_for=tuple(sorted(lacking))), request)
        inputs = tuple([_named(one, known) for one in request.inputs])
        return _Known(self._computed(view, ref, request, program, inputs), request, inputs)

    def _computed(
        self, view: View, ref: Reference, request: RunRequest, program: Program, inputs: tuple[Reference, ...]
    ) -> RequestState:
        """Where a request stands whose inputs have names."""
        key = self._key(request.program, program, Manifest(inputs, request.params))
        if key is None:
            return RequestState(ref, Stage.ELSEWHERE)
        found = view.key_state(key)
        if found is not None and found.agreement in _SETTLED:
            outputs = found.lists[0]
            return RequestState(ref, Stage.FAILED if program.roots and not outputs else Stage.DONE, key, outputs)
        if found is not None and found.agreement is Agreement.DIVERGENT:
            return RequestState(ref, Stage.DIVERGENT, key)
        hidden = {one for outputs in (() if found is None else found.lists) for one in outputs if view.is_hidden(one)}
        if hidden:  # nobody makes again what somebody has hidden
            return RequestState(ref, Stage.WAITING, key, waits_for=tuple(sorted(hidden)))
        needed = sorted({request.program, *inputs, *([] if request.params is None else [request.params])})
        is_here = self._store.has(needed)
        lacking = [one for one, here in zip(needed, is_here, strict=True) if not here or not view.is_visible(one)]
        return RequestState(ref, Stage.WAITING if lacking else Stage.READY, key, waits_for=tuple(lacking))

    def _key(self, ref: Reference, program: Program, manifest: Manifest) -> bytes | None:
        """None where the program has an operation that others may have."""
        if (ref, manifest) not in self._keys:
            try:
                self._keys[ref, manifest] = computation_of(program, manifest, self._registry).key
            except OutOfModel:
                self._keys[ref, manifest] = None
        return self._keys[ref, manifest]

    def _request(self, ref: Reference) -> RunRequest | None:
        """None where its bytes are not here yet, or are no request."""
        if ref not in self._requests:
            if not all(self._store.has([ref])):
                return None
            self._requests[ref] = self._read_request(ref)
        return self._requests[ref]

    def _read_request(self, ref: Reference) -> RunRequest | None:
        info = self._store.info(ref)
        if info.tag != TAG_REQUEST or info.size > PAYLOAD_BYTES_MAX:
            return None
        try:
            return RunRequest.from_bytes(self._store.get(ref))
        except CodecError:  # who asked wrongly gets nothing; the record stays for him to see
            return None

    def _program(self, ref: Reference) -> Program | None:
        if ref not in self._programs:
            if not all(self._store.has([ref])):
                return None
            try:
                self._programs[ref] = read_program(self._store, ref)
            except ProgramRefused:
                self._programs[ref] = None
        return self._programs[ref]


def _named(source: RequestInput, known: Mapping[Reference, _Known]) -> Reference:
    """The artifact that ``source`` is, or has come to."""
    if isinstance(source, Reference):
        return source
    outputs = known[source.request].state.outputs
    assert outputs is not None  # or the request would wait for it
    return outputs[source.output]


def _never_comes(source: RequestInput, known: Mapping[Reference, _Known]) -> bool:
    """Is ``source`` an output that no waiting brings?"""
    if isinstance(source, Reference):
        return False
    state = known[source.request].state
    if state.outputs is not None:
        return source.output >= len(state.outputs)
    return state.stage in (Stage.BLOCKED, Stage.INVALID)


def _turn(key: bytes, me: bytes, domains: set[bytes]) -> int:
    """How many of ``domains`` go before ``me``."""
    own = rendezvous(key, me)
    return sum(rendezvous(key, domain) < own for domain in domains)
