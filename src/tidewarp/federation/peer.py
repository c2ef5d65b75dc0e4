"""What a node answers to its peers: one function from a request to a response, over what the store holds.

    GET  /v1/contract
    GET  /v1/heads?after=DOMAIN                           If-None-Match: 304
    GET  /v1/records?domain=&after=&limit=                a batch
    GET  /v1/hash?domain=&seq=
    GET, HEAD /v1/artifacts/REF                           ArtifactBytes, Range allowed
    POST /v1/artifacts/missing                            n U32 ER* → those not held
    GET  /v1/proof/inclusion?domain=&seq=&size=
    GET  /v1/proof/consistency?domain=&from=&to=
    GET  /healthz

Only what is published leaves: the body of any other record is withheld, its artifact refused, unless who asks has the role
``audit``. A name in a request is parsed
and compared, never used as a path. A parameter that is missing, unknown, repeated or not in its one form is 400.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

from tidewarp.codec import bodies
from tidewarp.codec.artifacts import Artifact, artifact_head
from tidewarp.codec.batches import (
    BATCH_BYTES_MAX,
    BATCH_ITEMS_MAX,
    BODY,
    ERASED,
    INLINE_BYTES_MAX,
    WITHHELD,
    BatchItem,
    encode_batch,
)
from tidewarp.codec.frames import Reader
from tidewarp.codec.records import BODY_BYTES_MAX, HEADER_BYTES, PUBLISHED, TIMED_KINDS
from tidewarp.codec.references import SHA256, Reference, encode_references, read_references
from tidewarp.errors import CodecError, Corrupt, Erased, NotFound, OperatorError, Withheld
from tidewarp.federation.contract import ArtifactInfo, DomainState, Holdings, StoredRecord
from tidewarp.federation.documents import (
    DOMAINS_PER_PAGE,
    HashDocument,
    HeadDocument,
    ProtocolDocument,
    RefusalDocument,
    encode_json,
    proof_document,
)
from tidewarp.federation.messages import (
    BATCH_TYPE,
    HEADS_BYTES_MAX,
    JSON_TYPE,
    NEXT_PAGE,
    HttpRequest,
    HttpResponse,
)
from tidewarp.federation.verify import named_by
from tidewarp.store.admission import Role

__all__ = ["BODY_BYTES", "REFERENCES_MAX", "PeerHandler"]

REFERENCES_MAX = 10_000
"""References of one question after what is missing."""

BODY_BYTES = 4 + REFERENCES_MAX * (4 + 2 + 64)
"""Bytes of a request's body, at most."""

_RECORDS_DEFAULT = 5_000
_PIECE_BYTES = 8 << 20  # of a large artifact that is read and sent at once: one block of the store
_OCTETS_TYPE = "application/octet-stream"
_TARGET_MAX = 4_096
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_DOMAIN = re.compile(r"[0-9a-f]{64}")
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
_NAMING = frozenset({bodies.ARTIFACT, bodies.RECEIPT, bodies.POLICY, bodies.REQUEST, bodies.EVIDENCE})
_KINDS = (
    *sorted(TIMED_KINDS),
    *(value for name, value in sorted(vars(bodies).items()) if name.isupper() and isinstance(value, int)),
)
_ITEM_BYTES = HEADER_BYTES + 2  # of a batch, beside body and artifact

Parameters: TypeAlias = Mapping[str, str]


class PeerHandler:
    """Answers over ``holdings``. Safe from several threads as far as these are; nothing that it is sent changes them."""

    def __init__(self, holdings: Holdings) -> None:
        self._holdings = holdings
        self._routes: dict[str, tuple[str, tuple[str, ...], Callable[[HttpRequest, Parameters], HttpResponse]]] = {
            "/v1/contract": ("GET", (), self._contract),
            "/v1/heads": ("GET", ("after?",), self._heads),
            "/v1/records": ("GET", ("domain", "after?", "limit?"), self._records),
            "/v1/hash": ("GET", ("domain", "seq"), self._hash),
            "/v1/artifacts/missing": ("POST", (), self._missing),
            "/v1/proof/inclusion": ("GET", ("domain", "seq", "size"), self._inclusion),
            "/v1/proof/consistency": ("GET", ("domain", "from", "to"), self._consistency),
            "/healthz": ("GET", (), self._health),
        }

    def handle(self, request: HttpRequest) -> HttpResponse:
        """The answer. What is wrong with a request is said in it as JSON: value, rule, next action."""
        try:
            return self._routed(request)
        except _Refused as refused:
            return refused.response
        except (Corrupt, OperatorError) as error:
            return _refusal(500, error.value, error.rule, "ask another peer; the operator of this one: fsck").response

    def _routed(self, request: HttpRequest) -> HttpResponse:
        if len(request.target) > _TARGET_MAX or not request.target.isascii():
            raise _refusal(400, "target", f"it has at most {_TARGET_MAX} characters of ASCII", "ask for less")
        path, _, query = request.target.partition("?")
        if path.startswith("/v1/artifacts/") and path != "/v1/artifacts/missing":
            _check_method(request, ("GET", "HEAD"))
            _parameters(query, ())
            return self._artifact(request, path.removeprefix("/v1/artifacts/"))
        if path not in self._routes:
            raise _refusal(404, repr(path[:80]), "there is no such address", "see /v1/contract")
        method, names, answer = self._routes[path]
        _check_method(request, (method,))
        return answer(request, _parameters(query, names))

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
        return _json(encode_json(ProtocolDocument((1,), self._holdings.domain.hex(), limits, tuple(sorted(_KINDS)))))

    def _heads(self, request: HttpRequest, given: Parameters) -> HttpResponse:
        after = _domain(given["after"], "after") if "after" in given else b""
        rows: list[bytes] = []
        size, last, more = 2, b"", False
        for state in sorted(self._holdings.domains(), key=lambda one: one.id):
            row = self._head(state) if state.id > after else None
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
        if request.headers.get("if-none-match") == etag:
            return HttpResponse(304, headers)
        return _json(page, headers)

    def _head(self, state: DomainState) -> bytes | None:
        own = state.id == self._holdings.domain
        head = self._holdings.signed_head(None if own else state.id)
        if head is None or not head.size:
            return None
        return encode_json(
            HeadDocument(
                state.id.hex(), head.size, head.head.hex(), head.note(), state.status, state.key.hex(), origin=own
            )
        )

    def _records(self, request: HttpRequest, given: Parameters) -> HttpResponse:
        domain, size = self._known(given)
        after = _number(given.get("after", "0"), "after")
        limit = _number(given.get("limit", str(_RECORDS_DEFAULT)), "limit")
        if not 1 <= limit <= BATCH_ITEMS_MAX:
            raise _refusal(400, f"limit {limit}", f"it is 1 to {BATCH_ITEMS_MAX}", "ask for fewer records")
        _check_held(after, size, "after")
        items: list[BatchItem] = []
        batch_bytes = 8  # magic and count
        for record in self._holdings.records(domain, after, min(limit, size - after)):
            item = self._item(record, is_auditor=Role.AUDIT in request.roles)
            batch_bytes += _ITEM_BYTES + len(item.body or b"")
            batch_bytes += 4 + len(item.artifact) if item.artifact is not None else 0
            if batch_bytes > BATCH_BYTES_MAX:
                break
            items.append(item)
        return HttpResponse(200, {"content-type": BATCH_TYPE}, encode_batch(items))

    def _item(self, record: StoredRecord, *, is_auditor: bool) -> BatchItem:
        header = record.header
        if record.state != BODY or not (is_auditor or header.flags & PUBLISHED):
            return BatchItem(header, ERASED if record.state == ERASED else WITHHELD, None)
        artifact = self._inline(header.kind, record.body or b"") if header.kind in _NAMING else None
        return BatchItem(header, BODY, record.body, artifact)

    def _inline(self, kind: int, body: bytes) -> bytes | None:
        """The bytes that travel with a record: of a small artifact that is here."""
        try:
            said = bodies.decode_body(kind, body)
        except CodecError:
            return None  # it is relayed as it is; whoever takes it in judges it
        reference = named_by(said)
        if reference is None or reference.hash_id != SHA256:
            return None
        try:
            about = said if isinstance(said, bodies.ArtifactBody) else self._holdings.info(reference)
            if len(artifact_head(about.size, about.tag)) + about.size > INLINE_BYTES_MAX:
                return None
            return Artifact(self._holdings.get(reference), about.tag).to_bytes()
        except (NotFound, Withheld, Erased, Corrupt):
            return None  # the record goes alone; who asks for the artifact by its name is told why

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
        return HttpResponse(status, headers, self._pieces(reference, head, first, last), last - first)

    def _pieces(self, reference: Reference, head: bytes, first: int, last: int) -> Iterator[bytes]:
        if first < len(head):
            yield head[first:last]
        at, end = max(first - len(head), 0), last - len(head)
        while at < end:
            length = min(_PIECE_BYTES - at % _PIECE_BYTES, end - at)
            yield self._holdings.get(reference, offset=at, length=length)
            at += length

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
        missing = [
            one
            for one, held in zip(asked, self._holdings.has(asked), strict=True)
            if not held or not self._is_offered(one)
        ]
        return HttpResponse(200, {"content-type": _OCTETS_TYPE}, encode_references(missing))

    def _is_offered(self, reference: Reference) -> bool:
        try:
            return self._holdings.info(reference).published
        except (NotFound, Withheld, Erased):
            return False

    def _health(self, request: HttpRequest, given: Parameters) -> HttpResponse:
        return HttpResponse(200, {"content-type": "text/plain; charset=utf-8"}, b"ok\n")


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
        first, last = int(found[1]), min(int(found[2]) + 1, size) if found[2] else size
    else:
        first, last = max(size - int(found[2]), 0), size
    if not first < last:
        raise _refusal(
            416,
            f"range {text[:80]!r}",
            f"the artifact has {size} bytes",
            "ask for what is there",
            {"content-range": f"bytes */{size}"},
        )
    return first, last
