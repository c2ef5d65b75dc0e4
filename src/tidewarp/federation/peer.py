"""What a node answers to its peers: one function from a request to a response, over what the store holds.

    GET  /v1/contract                                     wherever GET is answered, HEAD is: its head alone
    GET  /v1/heads?after=DOMAIN                           If-None-Match: 304
    GET  /v1/records?domain=&after=&limit=                a batch
    GET  /v1/hash?domain=&seq=
    GET  /v1/artifacts/REF                                ArtifactBytes, Range allowed
    PUT /v1/artifacts/REF                                 ArtifactBytes that a record here waits for
    POST /v1/artifacts/missing                            n U32 ER* → those not held
    GET  /v1/artifacts/missing                            those that a record here waits for
    POST /v1/records                                      a parcel → what was taken of it
    GET  /v1/proof/inclusion?domain=&seq=&size=
    GET  /v1/proof/consistency?domain=&from=&to=
    GET  /v1/evidence?after=CONFLICT                      forks, and the artifacts that prove them
    GET  /v1/changes?since=TOKEN&wait_ms=                 the domains that grew
    GET  /healthz, /readyz, /metrics                      of this machine, or an auditor

Only what is published leaves: the body of any other record is withheld, its artifact refused, unless who asks has the role
``audit``. Who pushes has the role ``federate``. A name in a request is parsed and compared, never used as a path. A parameter
that is missing, unknown, repeated or not in its one form is 400.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO, Protocol, TypeAlias

from tidewarp.codec.artifacts import artifact_head
from tidewarp.codec.batches import BATCH_BYTES_MAX, BATCH_ITEMS_MAX, INLINE_BYTES_MAX, encode_batch
from tidewarp.codec.bodies import BODY_KINDS
from tidewarp.codec.frames import Reader
from tidewarp.codec.records import BODY_BYTES_MAX, TIMED_KINDS
from tidewarp.codec.references import Reference, encode_references, read_references
from tidewarp.errors import CodecError, Corrupt, Erased, NotFound, OperatorError, Withheld
from tidewarp.federation.answers import artifact_pieces, batch_items
from tidewarp.federation.bridged import bridge_beyond
from tidewarp.federation.changes import Changes
from tidewarp.federation.contract import ArtifactInfo, DomainState, Holdings
from tidewarp.federation.documents import (
    DOMAINS_PER_PAGE,
    EVIDENCE_PER_PAGE,
    ChangesDocument,
    EvidenceDocument,
    HashDocument,
    ProtocolDocument,
    RefusalDocument,
    TakenDocument,
    encode_json,
    head_document,
    proof_document,
)
from tidewarp.federation.encoding import ZSTD, is_available
from tidewarp.federation.exposition import Counts, exposition
from tidewarp.federation.faults import fault_of
from tidewarp.federation.ledger import Conflict
from tidewarp.federation.messages import (
    ACCEPT,
    BATCH_TYPE,
    BRIDGES,
    HEADS_BYTES_MAX,
    JSON_TYPE,
    NEXT_PAGE,
    Bridge,
    HttpRequest,
    HttpResponse,
)
from tidewarp.federation.parcel import PARCEL_BYTES_MAX
from tidewarp.federation.receive import NotTaken
from tidewarp.store.admission import Role
from tidewarp.store.signers import is_of_root

__all__ = ["BODY_BYTES", "REFERENCES_MAX", "WAIT_MS_MAX", "PeerHandler", "ServingSite"]

REFERENCES_MAX = 10_000
"""References of one question after what is missing."""

BODY_BYTES = 4 + REFERENCES_MAX * (4 + 2 + 64)
"""Bytes of a request's body, at most, where nothing is pushed."""

WAIT_MS_MAX = 30_000
"""How long a request after changes may wait for one."""

_RECORDS_DEFAULT = 5_000
_OCTETS_TYPE = "application/octet-stream"
_TEXT = {"content-type": "text/plain; charset=utf-8"}
_TARGET_MAX = 4_096
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_DOMAIN = re.compile(r"[0-9a-f]{64}")
_RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)")
_OFFSET_DIGITS = 20  # of a number that is behind the end of every artifact
_KINDS = tuple(sorted(TIMED_KINDS | BODY_KINDS))

_ARTIFACTS = "/v1/artifacts/"

Parameters: TypeAlias = Mapping[str, str]
Answer: TypeAlias = Callable[[HttpRequest, Parameters], HttpResponse]


class ServingSite(Protocol):
    """What a site that serves adds to its holdings."""

    def check(self) -> None:
        """Return if the store is where it was. Raises OperatorError."""

    def forks(self) -> Sequence[Conflict]:
        """The forks that this site has proofs of, by id."""

    def bridges(self) -> Mapping[bytes, Bridge]:
        """By domain, why a head that it has signed covers what is held, where that ends before the head does."""

    def lacking(self) -> Sequence[Reference]:
        """Artifacts that a record here names and whose bytes have not come, at most 10,000."""

    def gauges(self) -> Counts:
        """What is worth to be watched of the store."""

    def bytes_awaited(self, reference: Reference) -> int:
        """Of the ArtifactBytes of one of those that are lacking, at most. Raises NotTaken."""

    def take_records(self, key: bytes, data: bytes, *, is_packed: bool) -> TakenDocument:
        """Take a parcel from who holds ``key``, in zstd if ``is_packed``. Raises NotTaken."""

    def take_artifact(self, key: bytes, reference: Reference, source: BinaryIO) -> None:
        """Take ArtifactBytes from who holds ``key``. Raises NotTaken."""


class PeerHandler:
    """Answers over ``holdings``. Safe from several threads as far as these are; what is pushed goes to ``site``, and to nobody else.

    ``counts``: what the server has counted so far.
    """

    def __init__(
        self, holdings: Holdings, site: ServingSite | None = None, counts: Callable[[], Counts] = dict
    ) -> None:
        self._holdings = holdings
        self._site = site
        self._counts = counts
        self._changes = Changes()
        self._looked: tuple[object, dict[bytes, int]] = ((), {})
        self._routes: dict[str, dict[str, tuple[tuple[str, ...], Answer]]] = {
            "/v1/contract": {"GET": ((), self._contract)},
            "/v1/heads": {"GET": (("after?",), self._heads)},
            "/v1/records": {"GET": (("domain", "after?", "limit?"), self._records), "POST": ((), self._take_records)},
            "/v1/hash": {"GET": (("domain", "seq"), self._hash)},
            "/v1/artifacts/missing": {"POST": ((), self._missing), "GET": ((), self._lacking)},
            "/v1/proof/inclusion": {"GET": (("domain", "seq", "size"), self._inclusion)},
            "/v1/proof/consistency": {"GET": (("domain", "from", "to"), self._consistency)},
            "/v1/evidence": {"GET": (("after?",), self._evidence)},
            "/v1/changes": {"GET": (("since?", "wait_ms?"), self._grown)},
            "/healthz": {"GET": ((), self._health)},
            "/readyz": {"GET": ((), self._ready)},
            "/metrics": {"GET": ((), self._metrics)},
        }

    def body_max(self, request: HttpRequest) -> int | HttpResponse:
        """How many bytes of a body are read for a request, before any is; or why none is."""
        path = request.target.partition("?")[0]
        try:
            if request.method == "POST" and path == "/v1/records":
                self._pushed_to(request)
                return PARCEL_BYTES_MAX
            if request.method == "PUT" and path.startswith(_ARTIFACTS):
                return self._pushed_to(request).bytes_awaited(_reference(path.removeprefix(_ARTIFACTS)))
        except _Refused as refused:
            return refused.response
        except NotTaken as refused:
            return _refusal(refused.status, refused.value, refused.rule, refused.action).response
        return BODY_BYTES

    def handle(self, request: HttpRequest) -> HttpResponse:
        """The answer. What is wrong with a request is said in it as JSON: value, rule, next action."""
        answer = self._answer(request)
        if request.method != "HEAD" or not isinstance(answer.body, bytes):
            return answer
        return answer._replace(body=b"", size=len(answer.body) if answer.size is None else answer.size)

    def _answer(self, request: HttpRequest) -> HttpResponse:
        try:
            return self._routed(request)
        except _Refused as refused:
            return refused.response
        except NotTaken as refused:
            return _refusal(refused.status, refused.value, refused.rule, refused.action).response
        except (Corrupt, OperatorError) as error:
            fault = fault_of(error)
            answer = _refusal(500, fault.value, fault.rule, "ask another peer; the operator of this one: fsck").response
            return answer._replace(fault=fault.line)

    def _routed(self, request: HttpRequest) -> HttpResponse:
        if len(request.target) > _TARGET_MAX or not request.target.isascii():
            raise _refusal(400, "target", f"it has at most {_TARGET_MAX} characters of ASCII", "ask for less")
        path, _, query = request.target.partition("?")
        if path.startswith("/v1/"):
            self._check_in_place()
        if path.startswith(_ARTIFACTS) and path != "/v1/artifacts/missing":
            _check_method(request, ("GET", "HEAD", "PUT"))
            _parameters(query, ())
            answer = self._take_artifact if request.method == "PUT" else self._artifact
            return answer(request, path.removeprefix(_ARTIFACTS))
        if path not in self._routes:
            raise _refusal(404, repr(path[:80]), "there is no such address", "see /v1/contract")
        replies = self._routes[path]
        if "GET" in replies:
            replies = {**replies, "HEAD": replies["GET"]}
        _check_method(request, (*replies,))
        names, reply = replies[request.method]
        return reply(request, _parameters(query, names))

    def _check_in_place(self) -> None:
        try:
            if self._site is not None:
                self._site.check()
        except OperatorError as error:
            raise _refusal(503, error.value, error.rule, "ask another peer; " + error.action) from None

    # --- domains and records

    def _contract(self, request: HttpRequest, given: Parameters) -> HttpResponse:
        limits = {
            "domains_per_page": DOMAINS_PER_PAGE,
            "records": BATCH_ITEMS_MAX,
            "batch_bytes": BATCH_BYTES_MAX,
            "body_bytes": BODY_BYTES_MAX,
            "inline_bytes": INLINE_BYTES_MAX,
            "references": REFERENCES_MAX,
        }
        return _json(encode_json(ProtocolDocument((1,), self._holdings.domain.hex(), limits, _KINDS)))

    def _heads(self, request: HttpRequest, given: Parameters) -> HttpResponse:
        after = _domain(given["after"], "after") if "after" in given else b""
        rows: list[bytes] = []
        forks = {one.domain: "frozen" if one.state == "open" else "resolved" for one in self._forks()}
        bridges = self._bridges() if request.headers.get(ACCEPT) == BRIDGES else {}  # before what they are about
        size, last, more = 2, b"", False
        for state in sorted(self._holdings.domains(), key=lambda one: one.id):
            if state.id <= after:
                continue
            row = self._head(state, forks.get(state.id, state.status), bridges)
            if row is None:
                continue
            size += len(row) + 1
            more = len(rows) == DOMAINS_PER_PAGE or size > HEADS_BYTES_MAX
            if more:
                break
            rows.append(row)
            last = state.id
        page = b"[" + b",".join(rows) + b"]"
        etag = f'"{hashlib.sha256(page).hexdigest()}"'
        headers = {"etag": etag, **({NEXT_PAGE: last.hex()} if more else {})}
        if is_available():
            headers["accept-encoding"] = ZSTD  # of what is pushed: RFC 7694
        if request.headers.get("if-none-match") == etag:
            return HttpResponse(304, headers)
        return _json(page, headers)

    def _forks(self) -> Sequence[Conflict]:
        return () if self._site is None else self._site.forks()

    def _bridges(self) -> Mapping[bytes, Bridge]:
        return {} if self._site is None else self._site.bridges()

    def _head(self, state: DomainState, status: str, bridges: Mapping[bytes, Bridge]) -> bytes | None:
        own = state.id == self._holdings.domain
        heads = self._holdings.signed_heads(None if own else state.id)
        bridge = bridge_beyond(self._holdings, state, heads, bridges)
        head = None if bridge is None else self._holdings.hash_at(state.id, bridge.size)
        if bridge is not None and head is not None:
            earlier = () if is_of_root(bridge.head, state.key) else heads
            document = head_document([*earlier, bridge.head], status, state.key)
            return encode_json(document.bridged(bridge.size, head, bridge.hashes))
        if not heads or not heads[-1].size:
            return None
        return encode_json(head_document(heads, status, state.key, origin=own))

    def _records(self, request: HttpRequest, given: Parameters) -> HttpResponse:
        domain, size = self._known(given)
        after = _number(given.get("after", "0"), "after")
        limit = _number(given.get("limit", str(_RECORDS_DEFAULT)), "limit")
        if not 1 <= limit <= BATCH_ITEMS_MAX:
            raise _refusal(400, f"limit {limit}", f"it is 1 to {BATCH_ITEMS_MAX}", "ask for fewer records")
        _check_held(after, size, "after")
        is_auditor = Role.AUDIT in request.roles
        items = batch_items(self._holdings, domain, after, min(limit, size - after), is_auditor=is_auditor)
        return HttpResponse(200, {"content-type": BATCH_TYPE}, encode_batch(items), records=len(items))

    def _hash(self, request: HttpRequest, given: Parameters) -> HttpResponse:
        domain, size = self._known(given)
        found = self._holdings.hash_at(domain, _place(given, "seq", size))
        return _json(encode_json(HashDocument((found or b"").hex())))

    def _inclusion(self, request: HttpRequest, given: Parameters) -> HttpResponse:
        domain, held = self._known(given)
        size = _place(given, "size", held)
        return _json(
            encode_json(proof_document(self._holdings.inclusion_proof(domain, _place(given, "seq", size), size)))
        )

    def _consistency(self, request: HttpRequest, given: Parameters) -> HttpResponse:
        domain, held = self._known(given)
        to = _place(given, "to", held)
        return _json(
            encode_json(proof_document(self._holdings.consistency_proof(domain, _place(given, "from", to), to)))
        )

    def _known(self, given: Parameters) -> tuple[bytes, int]:
        """A domain that is held, and how many of its records are."""
        domain = _domain(given["domain"], "domain")
        for state in self._holdings.domains():
            if state.id == domain and state.size:
                return domain, state.size
        raise _refusal(404, f"domain {domain.hex()}", "no record of it is here", "see /v1/heads")

    def _evidence(self, request: HttpRequest, given: Parameters) -> HttpResponse:
        after = _domain(given["after"], "after") if "after" in given else b""
        found = [
            EvidenceDocument(one.id.hex(), one.domain.hex(), one.evidence.hex())
            for one in self._forks()
            if one.evidence is not None and one.id > after
        ]
        more = {NEXT_PAGE: found[EVIDENCE_PER_PAGE - 1].conflict} if len(found) > EVIDENCE_PER_PAGE else {}
        return _json(encode_json(found[:EVIDENCE_PER_PAGE]), more)

    def _grown(self, request: HttpRequest, given: Parameters) -> HttpResponse:
        wait_ms = _number(given.get("wait_ms", "0"), "wait_ms")
        if wait_ms > WAIT_MS_MAX:
            raise _refusal(400, f"wait_ms={wait_ms}", f"nobody waits longer than {WAIT_MS_MAX} ms", "ask again then")
        since = _domain(given["since"], "since").hex() if "since" in given else ""
        sizes = self._signed_sizes()
        token = self._changes.note(sizes)
        grown = self._changes.since(since, sizes) if since else []
        if grown is None:
            raise _refusal(410, f"since={since}", "what was so then is not known any more", "look at /v1/heads")
        answer = _json(encode_json(ChangesDocument(tuple([one.hex() for one in grown]), token)))
        return answer._replace(wait_s=0.0 if grown or not since else wait_ms / 1_000)

    def _signed_sizes(self) -> dict[bytes, int]:
        """By domain, how far its head goes, or a bridge; looked up anew only where something has come since."""
        bridged = {domain: one.size for domain, one in self._bridges().items() if domain != self._holdings.domain}
        states = sorted(self._holdings.domains(), key=lambda one: one.id)
        seen = bridged, [(one.id, one.size, one.note) for one in states]
        if self._looked[0] != seen:
            own = self._holdings.domain
            heads = ((one.id, self._holdings.signed_head(None if one.id == own else one.id)) for one in states)
            sizes = {domain: max(head.size if head else 0, bridged.get(domain, 0)) for domain, head in heads}
            self._looked = seen, {domain: size for domain, size in sizes.items() if size}
        return self._looked[1]

    # --- what is pushed

    def _pushed_to(self, request: HttpRequest) -> ServingSite:
        """Who takes what is pushed, from one who may push."""
        if Role.FEDERATE not in request.roles:
            rule = "only who has the role federate pushes, and over TLS, which shows who it is"
            raise _refusal(
                403, f"{request.method} {request.target[:80]}", rule, "let the operator here give it: peer trust"
            )
        if self._site is None:
            raise _refusal(403, f"{request.method} {request.target[:80]}", "nothing is taken here", "let it be pulled")
        return self._site

    def _take_records(self, request: HttpRequest, given: Parameters) -> HttpResponse:
        site, encoding = self._pushed_to(request), request.headers.get("content-encoding", "")
        if encoding not in ("", ZSTD):
            raise _refusal(415, f"encoding {encoding[:40]}", "it is zstd, or none", "send one of these")
        return _json(encode_json(site.take_records(request.key, request.body, is_packed=encoding == ZSTD)))

    def _take_artifact(self, request: HttpRequest, text: str) -> HttpResponse:
        site, reference = self._pushed_to(request), _reference(text)
        if request.source is None:
            raise _refusal(400, text, "an artifact is at least nine bytes", "send ArtifactBytes, whole")
        site.take_artifact(request.key, reference, request.source)
        return HttpResponse(201)

    def _lacking(self, request: HttpRequest, given: Parameters) -> HttpResponse:
        lacking = self._pushed_to(request).lacking()[:REFERENCES_MAX]
        return HttpResponse(200, {"content-type": _OCTETS_TYPE}, encode_references(lacking))

    # --- artifacts

    def _artifact(self, request: HttpRequest, text: str) -> HttpResponse:
        reference = _reference(text)
        info = self._offered(reference, is_auditor=Role.AUDIT in request.roles)
        head = artifact_head(info.size, info.tag)
        size = len(head) + info.size
        first, last, status = 0, size, 200
        headers = {"content-type": _OCTETS_TYPE, "accept-ranges": "bytes", "etag": f'"{reference.hex()}"'}
        if "range" in request.headers:
            first, last = _range(request.headers["range"], size)
            status = 206
            headers["content-range"] = f"bytes {first}-{last - 1}/{size}"
        if request.method == "HEAD":
            return HttpResponse(status, headers, b"", last - first)
        pieces = artifact_pieces(self._holdings, reference, head, first, last)
        return HttpResponse(status, headers, pieces, last - first)

    def _offered(self, reference: Reference, *, is_auditor: bool) -> ArtifactInfo:
        name = reference.hex()
        try:
            info = self._holdings.info(reference)
        except (NotFound, Withheld) as error:
            raise _refusal(404, name, error.rule, "ask another peer") from None
        except Erased as error:
            raise _refusal(410, name, error.rule, "do not ask again") from None
        if not (is_auditor or info.published):
            raise _refusal(403, name, "no published record names it", "ask its owner to publish it")
        if not self._holdings.has([reference])[0]:
            if info.state == "erased":
                raise _refusal(410, name, "its bytes were dropped for good", "do not ask again")
            raise _refusal(404, name, "its bytes are not here", "ask another peer")
        return info

    def _missing(self, request: HttpRequest, given: Parameters) -> HttpResponse:
        data = request.body
        number = int.from_bytes(data[:4], "big")
        if len(data) > BODY_BYTES or (len(data) >= 4 and number > REFERENCES_MAX):
            raise _refusal(413, f"{number} references", f"at most {REFERENCES_MAX} are asked for", "ask in parts")
        reader = Reader(data, "references")
        try:
            asked = read_references(reader)
            reader.end()
        except CodecError as error:
            raise _refusal(400, error.value, error.rule, error.action) from None
        is_auditor = Role.AUDIT in request.roles
        missing = [
            one
            for one, held in zip(asked, self._holdings.has(asked), strict=True)
            if not held or not (is_auditor or self._is_offered(one))
        ]
        return HttpResponse(200, {"content-type": _OCTETS_TYPE}, encode_references(missing))

    def _is_offered(self, reference: Reference) -> bool:
        try:
            return self._holdings.info(reference).published
        except (NotFound, Withheld, Erased):
            return False

    # --- for who runs the server

    def _health(self, request: HttpRequest, given: Parameters) -> HttpResponse:
        _check_insider(request)
        return HttpResponse(200, _TEXT, b"ok\n")

    def _ready(self, request: HttpRequest, given: Parameters) -> HttpResponse:
        _check_insider(request)
        self._check_in_place()
        return HttpResponse(200, _TEXT, b"ok\n")

    def _metrics(self, request: HttpRequest, given: Parameters) -> HttpResponse:
        _check_insider(request)
        gauges = {} if self._site is None else self._site.gauges()
        return HttpResponse(200, {"content-type": "text/plain; version=0.0.4"}, exposition(self._counts(), gauges))


class _Refused(Exception):
    """Ends a request with ``response``."""

    def __init__(self, response: HttpResponse) -> None:
        super().__init__(response.status)
        self.response = response


def _refusal(status: int, value: str, rule: str, action: str, headers: Mapping[str, str] | None = None) -> _Refused:
    answer = _json(encode_json(RefusalDocument(value[:200], rule, action)), headers)
    return _Refused(answer._replace(status=status))


def _json(data: bytes, headers: Mapping[str, str] | None = None) -> HttpResponse:
    return HttpResponse(200, {"content-type": JSON_TYPE, **(headers or {})}, data)


def _check_insider(request: HttpRequest) -> None:
    if not (request.is_local or Role.AUDIT in request.roles):
        rule = "only this machine, and who has the role audit, is told that"
        raise _refusal(403, request.target[:80], rule, "ask from there")


def _check_method(request: HttpRequest, methods: tuple[str, ...]) -> None:
    if request.method not in methods:
        allowed = ", ".join(methods)
        raise _refusal(
            405, request.method[:20], f"this address answers {allowed}", "use one of these", {"allow": allowed}
        )


def _parameters(query: str, names: tuple[str, ...]) -> Parameters:
    """The query by name. ``names`` are those allowed; one with a question mark may be left out."""
    given: dict[str, str] = {}
    for part in query.split("&") if query else ():
        name, equals, value = part.partition("=")
        if not equals or name in given or name not in {one.rstrip("?") for one in names}:
            raise _refusal(
                400, repr(part[:80]), f"parameters are {', '.join(names) or 'not taken'}, each once", "drop it"
            )
        given[name] = value
    for name in names:
        if not name.endswith("?") and name not in given:
            raise _refusal(400, f"{name} is missing", f"parameters are {', '.join(names)}", "give it")
    return given


def _number(text: str, name: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise _refusal(400, f"{name}={text[:40]!r}", "a whole number below 10^19, in decimal digits", "send that")
    return int(text)


def _place(given: Parameters, name: str, held: int) -> int:
    """A sequence number or a size, 1 to ``held``."""
    number = _number(given[name], name)
    if not number:
        raise _refusal(416, f"{name}=0", "records are counted from 1", "ask for one that is held")
    _check_held(number, held, name)
    return number


def _check_held(number: int, held: int, name: str) -> None:
    if number > held:
        raise _refusal(416, f"{name}={number}", f"{held} are held", "ask for /v1/heads")


def _domain(text: str, name: str) -> bytes:
    if not _DOMAIN.fullmatch(text):
        raise _refusal(400, f"{name}={text[:80]!r}", "a domain is 64 lower-case hexadecimal digits", "send that")
    return bytes.fromhex(text)


def _reference(text: str) -> Reference:
    try:
        return Reference.parse(text)
    except CodecError as error:
        raise _refusal(400, error.value, error.rule, error.action) from None


def _range(text: str, size: int) -> tuple[int, int]:
    """First byte, and the one behind the last, of an artifact of ``size`` bytes: one range of RFC 9110, section 14."""
    found = _RANGE.fullmatch(text)
    if not found or not (found[1] or found[2]):
        raise _refusal(400, f"range {text[:80]!r}", "one range, as bytes=0-1023", "send that")
    if found[1]:
        first, last = _offset(found[1]), min(_offset(found[2]) + 1, size) if found[2] else size
    else:
        first, last = max(size - _offset(found[2]), 0), size
    if not first < last:
        raise _refusal(
            416,
            f"range {text[:80]!r}",
            f"the artifact has {size} bytes",
            "ask for what is there",
            {"content-range": f"bytes */{size}"},
        )
    return first, last


def _offset(digits: str) -> int:
    """The number; of one that has more digits than any size, some number that is larger than every size."""
    return int(digits.lstrip("0")[:_OFFSET_DIGITS] or "0")
