"""Requests: runs that any site may execute, whose inputs may be the outputs of other requests.

A request is an artifact, named by a REQUEST record. Whoever has the role ``execute`` may run it once it is *ready*:
program, params and inputs are visible and here, and where an input is an output of another request, that one is
accepted. No site leads. For each computation the sites have an order of their own, by

    SHA-256("TWRDV1" | computation key 32 | domain 32)      ascending

(rendezvous hashing: Thaler and Ravishankar, IEEE/ACM Transactions on Networking 6, 1998). The first goes at once, each
further one waits a grace time longer, so that a site that is down delays a run and stops nothing. Where two run the same,
nothing is lost but time: equal computations have one key and one result.

A request is cancelled by a tombstone on it. One whose computation is divergent waits for a verdict.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

from tidewarp.codec import PUBLISHED
from tidewarp.codec.artifacts import TAG_REQUEST
from tidewarp.codec.bodies import REQUEST, RequestBody
from tidewarp.codec.programs import Program
from tidewarp.codec.receipts import Manifest, RequestOutput, RunRequest
from tidewarp.codec.references import Reference
from tidewarp.errors import CodecError, OutOfModel, ProgramRefused
from tidewarp.programs.execution import computation_of
from tidewarp.programs.operations import OperationRegistry
from tidewarp.programs.runs import read_program
from tidewarp.store.admission import Role
from tidewarp.store.contract import Entry, Store
from tidewarp.store.fold import Agreement, View

__all__ = ["GRACE_S", "ReadyRequest", "RequestBoard", "rendezvous", "submit"]

GRACE_S: Final = 10.0
"""Seconds that each site leaves to the one before it."""

_SETTLED = (Agreement.ACCEPTED, Agreement.RESOLVED)


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
    """What follows from a request so far. ``inputs`` are there once all have names, ``outputs`` once they are settled."""

    request: RunRequest | None = None
    inputs: tuple[Reference, ...] | None = None
    key: bytes | None = None
    outputs: tuple[Reference, ...] | None = None
    is_open: bool = False


_NOTHING = _Known()


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
        self._read_on(view)
        known: dict[Reference, _Known] = {}
        found = []
        for ref in sorted(self._asked):
            if not view.is_visible(ref):
                continue
            self._settle(view, ref, known)
            request, inputs, key, _, is_open = known[ref]
            if request is None or inputs is None or key is None or not is_open:
                continue
            needed = [request.program, *inputs, *([] if request.params is None else [request.params])]
            if not all(map(view.is_visible, needed)) or not all(self._store.has(needed)):
                continue
            turn = _turn(key, self._store.domain, domains)
            if turn * self._grace_s <= waited_s:
                found.append(ReadyRequest(ref, key, request.program, inputs, request.params, turn))
        return found

    def outputs(self, ref: Reference) -> tuple[Reference, ...] | None:
        """What the request ``ref`` came to: none if it failed, None where that is not settled yet."""
        known: dict[Reference, _Known] = {}
        self._settle(self._store.view(scope="all"), ref, known)
        return known[ref].outputs

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
            known[waiting.pop()] = _NOTHING if request is None else self._known(view, request, known)

    def _known(self, view: View, request: RunRequest, known: dict[Reference, _Known]) -> _Known:
        named = [_named(one, known) if isinstance(one, RequestOutput) else one for one in request.inputs]
        inputs = tuple([one for one in named if one is not None])
        program = self._program(request.program)
        if len(inputs) < len(named) or program is None:
            return _Known(request)
        key = self._key(request.program, program, Manifest(inputs, request.params))
        if key is None:
            return _Known(request, inputs)
        state = view.key_state(key)
        if state is not None and state.agreement in _SETTLED:
            return _Known(request, inputs, key, state.lists[0])
        return _Known(request, inputs, key, None, state is None or state.agreement is Agreement.CLAIMED)

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
        if self._store.info(ref).tag != TAG_REQUEST:
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


def _named(source: RequestOutput, known: dict[Reference, _Known]) -> Reference | None:
    """The artifact that ``source`` has come to."""
    outputs = known[source.request].outputs
    return None if outputs is None or source.output >= len(outputs) else outputs[source.output]


def _turn(key: bytes, me: bytes, domains: set[bytes]) -> int:
    """How many of ``domains`` go before ``me``."""
    own = rendezvous(key, me)
    return sum(rendezvous(key, domain) < own for domain in domains)
