"""What a node answers: each address, each bound, each status."""

from __future__ import annotations

import base64
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from node import Node, pulled

from tidewarp.codec.artifacts import Artifact
from tidewarp.codec.batches import decode_batch
from tidewarp.codec.heads import SignedHead
from tidewarp.codec.merkle import verify_consistency, verify_inclusion
from tidewarp.codec.references import Reference, encode_references
from tidewarp.errors import CodecError, Corrupt, Erased, OperatorError, StoreLocked, Withheld
from tidewarp.federation.documents import HeadDocument, ProofDocument, decode_heads, decode_json
from tidewarp.federation.faults import fault_of
from tidewarp.federation.messages import HttpRequest
from tidewarp.federation.peer import PeerHandler
from tidewarp.store import open_store
from tidewarp.store.admission import Role


@pytest.fixture
def ask(a):
    def call(target, method="GET", body=b"", **headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return PeerHandler(a).handle(HttpRequest(method, target, named, body))

    return call


def said(answer):
    """The JSON of a refusal, which has all three parts."""
    document = json.loads(answer.whole)
    assert set(document) == {"error", "rule", "next"}
    assert all(document.values())
    return document


def test_the_contract_names_versions_limits_and_kinds(a, ask):
    """Enough to know whether one can talk."""
    document = json.loads(ask("/v1/contract").whole)
    assert document["versions"] == [1]
    assert document["domain"] == a.domain.hex()
    assert document["limits"]["batch_bytes"] == 16 << 20
    assert document["kinds"] == sorted(set(document["kinds"]))
    named = "02 03 04 10 11 12 20 21 22 23 2f 30 31 40 41 42 43 44 50"  # by the table of docs/reference/store.md
    assert bytes(document["kinds"]) == bytes.fromhex(named)


@pytest.mark.parametrize("target", ["/v1/contract", "/v1/heads", "/v1/nothing"])
def test_a_head_is_that_of_the_whole_answer(a, ask, target):
    """Status, headers and length as of GET, and no body."""
    a.put(b"x")
    whole, head = ask(target), ask(target, "HEAD")
    assert (head.status, head.headers, head.size, head.body) == (whole.status, whole.headers, len(whole.whole), b"")


def test_heads_are_signed_and_have_an_etag(a, ask):
    """One line per domain with records, ascending; the same page again is 304."""
    assert ask("/v1/heads").whole == b"[]"
    a.put(b"x")
    other = Node("other")
    other.put(b"y")
    pulled(a, other)
    answer = ask("/v1/heads")
    page = decode_heads(answer.whole)
    assert [one.domain for one in page] == sorted([a.domain.hex(), other.domain.hex()])
    for one in page:
        SignedHead.parse(one.note).verify([bytes.fromhex(one.key)])
        assert one.origin == (one.domain == a.domain.hex())
    assert answer.headers["etag"] == f'"{hashlib.sha256(answer.whole).hexdigest()}"'
    again = ask("/v1/heads", if_none_match=answer.headers["etag"])
    assert (again.status, again.whole) == (304, b"")
    behind = ask(f"/v1/heads?after={page[0].domain}")
    assert decode_heads(behind.whole) == page[1:]
    other.close()


def test_records_come_in_batches(a, ask):
    """Behind `after`, at most `limit`, small artifacts with them, larger ones not."""
    small, large = a.put(b"small"), a.put(bytes(70_000))
    a.put(b"inner", publish=False)
    first, second, third = decode_batch(ask(f"/v1/records?domain={a.domain.hex()}").whole)
    assert Artifact.from_bytes(first.artifact).reference() == small
    assert (second.state, second.artifact) == (0, None)
    assert (third.state, third.body, third.artifact) == (1, None, None)
    assert large in a.artifacts
    [alone] = decode_batch(ask(f"/v1/records?domain={a.domain.hex()}&after=1&limit=1").whole)
    assert alone == second
    assert decode_batch(ask(f"/v1/records?domain={a.domain.hex()}&after=3").whole) == []


def test_a_batch_ends_before_16_mib(a, ask):
    """As many records as there is room for."""
    for n in range(300):
        a.put(bytes([n % 256]) * 65_000)
    body = ask(f"/v1/records?domain={a.domain.hex()}&limit=10000").whole
    assert 15 << 20 < len(body) <= 16 << 20
    assert len(decode_batch(body)) < 300


def test_hashes_and_proofs(a, ask):
    """As the tree has them."""
    for n in range(5):
        a.put(b"%d" % n)
    domain = a.domain.hex()
    head = a.signed_head()
    hash_ = json.loads(ask(f"/v1/hash?domain={domain}&seq=2").whole)["hash"]
    path = decode_json(ask(f"/v1/proof/inclusion?domain={domain}&seq=2&size=5").whole, ProofDocument).path()
    verify_inclusion(bytes.fromhex(hash_), 1, 5, path, head.root)
    bridge = decode_json(ask(f"/v1/proof/consistency?domain={domain}&from=3&to=5").whole, ProofDocument).path()
    before = Node("before")
    before.logs[a.domain] = a.logs[a.domain][:3]
    verify_consistency(3, 5, bridge, before.frontier(a.domain).root(), head.root)
    before.close()


@pytest.mark.parametrize("tag", [None, 7])
def test_artifacts_whole_and_in_ranges(a, ask, tag):
    """ArtifactBytes; a range is a piece of these, HEAD has their length and no body."""
    reference = a.put(bytes(range(256)) * 300, tag=tag)
    whole = a.artifacts[reference].to_bytes()
    target = f"/v1/artifacts/{reference.hex()}"
    answer = ask(target)
    assert (answer.status, answer.size, answer.whole) == (200, len(whole), whole)
    head = ask(target, "HEAD")
    assert (head.status, head.size, head.body) == (200, len(whole), b"")
    for text, piece in (
        ("bytes=0-0", whole[:1]),
        ("bytes=5-20", whole[5:21]),
        ("bytes=100-", whole[100:]),
        ("bytes=-7", whole[-7:]),
        ("bytes=-999999", whole),
        (f"bytes=10-{1 << 40}", whole[10:]),
        ("bytes=10-" + "9" * 5_000, whole[10:]),
        ("bytes=-" + "9" * 5_000, whole),
        ("bytes=" + "0" * 50 + "5-6", whole[5:7]),
    ):
        answer = ask(target, range=text)
        assert (answer.status, answer.whole, answer.size) == (206, piece, len(piece))
        assert answer.headers["content-range"].endswith(f"/{len(whole)}")


def test_ranges_that_are_none(a, ask):
    """Behind the end 416, of another form 400."""
    target = f"/v1/artifacts/{a.put(b'hello').hex()}"
    assert ask(target, range="bytes=14-").status == 416
    assert ask(target, range="bytes=3-2").status == 416
    assert ask(target, range="bytes=-0").status == 416
    assert ask(target, range="bytes=" + "9" * 30 + "-").status == 416
    for text in ("bytes=-", "bytes=1-2,4-5", "lines=1-2", "bytes=a-b"):
        assert ask(target, range=text).status == 400


def test_artifacts_that_are_not_given(a, ask):
    """403 not published, 404 unknown or not here, 410 erased, 500 damaged."""
    inner = a.put(b"inner", publish=False)
    outer = a.put(b"outer")
    assert ask(f"/v1/artifacts/{inner.hex()}").status == 403
    assert ask(f"/v1/artifacts/{Artifact(b'nobody').reference().hex()}").status == 404
    gone = a.artifacts.pop(outer)
    assert ask(f"/v1/artifacts/{outer.hex()}").status == 404
    a.artifacts[outer] = gone

    def raising(error):
        def info(reference):
            raise error

        return info

    for error, status in (
        (Erased("x", "it was erased", "do without"), 410),
        (Withheld("x", "it has not come", "wait"), 404),
        (Corrupt("x", "damaged", "mend it"), 500),
    ):
        a.info = raising(error)
        answer = ask(f"/v1/artifacts/{outer.hex()}")
        assert answer.status == status
        said(answer)


def test_a_store_that_has_erased_an_artifact_says_so():
    """410, and not that it may come yet; what is hidden and collected is 404, since it may be shown again."""
    with open_store(":memory:") as store:
        erased, collected = store.put(b"erased"), store.put(b"collected")
        store.erase(erased)
        store.tombstone(collected)
        store.gc(1.0)
        handler = PeerHandler(store)
        for reference, status in ((erased, 410), (collected, 404)):
            answer = handler.handle(HttpRequest("GET", f"/v1/artifacts/{reference.hex()}"))
            assert answer.status == status
            said(answer)


@pytest.mark.parametrize(
    ("error", "value", "rule"),
    [
        (Corrupt("/srv/Hall 3/store.db: record 5", "it is missing", "restore"), "record 5", "it is missing"),
        (Corrupt("A.tw: table span, record 2", "two rows", "restore"), "table span, record 2", "two rows"),
        (OperatorError("/srv/A/store.db", "gone", "look"), "the store of this site", "gone"),
        (OperatorError("A.tw: closing it", "gone", "look"), "the store of this site", "gone"),
        (
            StoreLocked("/srv/A: page 1", "held by /srv/B", "end it"),
            "page 1",
            "it cannot be read or written",
        ),
        (Corrupt("A.tw: page 1", r"held by C:\srv\B", "end it"), "page 1", "it cannot be read or written"),
        (Corrupt(f"artifact {'0' * 68}", "a block is bad", "put again"), f"artifact {'0' * 68}", "a block is bad"),
    ],
)
def test_a_fault_of_the_store_is_told_without_its_path(a, ask, error, value, rule):
    """Which record or artifact it is about goes out; where the store lies stays, in the line for its operator."""

    def info(reference):
        raise error

    outer = a.put(b"outer")
    a.info = info
    answer = ask(f"/v1/artifacts/{outer.hex()}")
    assert (answer.status, said(answer)["error"], said(answer)["rule"]) == (500, value, rule)
    assert answer.fault == str(error)


def test_the_line_for_the_operator_is_one_line(a):
    """Of printable characters, and not long, whatever a file is called."""
    fault = fault_of(Corrupt("/srv/a\nb\x1b[2J: record 5", "x" * 1_000, "restore"))
    assert fault.line.startswith("/srv/a?b?[2J: record 5: xxx")
    assert (fault.value, len(fault.line)) == ("record 5", 500)
    assert fault.line.isprintable()


def test_what_is_missing(a, ask):
    """Of the references asked for, those that are not to be had here; what is not published counts as missing."""
    here, inner = a.put(b"here"), a.put(b"inner", publish=False)
    elsewhere = Artifact(b"elsewhere").reference()
    answer = ask("/v1/artifacts/missing", "POST", encode_references([here, elsewhere, inner]))
    assert (answer.status, answer.whole) == (200, encode_references([elsewhere, inner]))


def test_too_many_references(ask):
    """10,000 and no more; a count that lies is refused before anything is made of it."""
    reference = Artifact(b"x").reference()
    assert ask("/v1/artifacts/missing", "POST", encode_references([reference] * 10_000)).status == 200
    assert ask("/v1/artifacts/missing", "POST", encode_references([reference] * 10_001)).status == 413
    assert ask("/v1/artifacts/missing", "POST", b"\xff\xff\xff\xff").status == 413
    assert ask("/v1/artifacts/missing", "POST", bytes(701_000)).status == 413
    for bad in (b"", b"\0\0\0\1", b"\0\0\0\0\0", b"\0\0\0\1\0\0\0\x22\0\0" + bytes(32)):
        assert ask("/v1/artifacts/missing", "POST", bad).status == 400


@pytest.mark.parametrize("target", ["/healthz", "/readyz", "/metrics"])
def test_what_is_said_to_insiders_alone(a, target):
    """Who is on this machine, or has the role audit, is told; nobody else, whatever other role he has."""
    handler = PeerHandler(a)
    others = frozenset(Role) - {Role.AUDIT}
    assert handler.handle(HttpRequest("GET", target, is_local=True)).status == 200
    assert handler.handle(HttpRequest("GET", target, roles=frozenset({Role.AUDIT}))).status == 200
    refused = handler.handle(HttpRequest("GET", target, roles=others))
    assert refused.status == 403
    said(refused)


GOOD = "f85c1b613fdead143ee067460a998cc27b380699846afc4f38ce79022e304f9e"


@pytest.mark.parametrize(
    "target",
    [
        "/v1/records",
        "/v1/records?",
        "/v1/records?domain=",
        "/v1/records?domain=abc",
        f"/v1/records?domain={GOOD.upper()}",
        f"/v1/records?domain={GOOD}&domain={GOOD}",
        f"/v1/records?domain={GOOD}&other=1",
        f"/v1/hash?domain={GOOD}",
        f"/v1/heads?after={GOOD}0",
        "/v1/heads?after=%00",
        "/v1/contract?x=1",
        "/v1/contract?x",
        "/v1/artifacts/",
        "/v1/artifacts/..%2f..%2fetc%2fpasswd",
        "/v1/artifacts/../../etc/passwd",
        "/v1/artifacts/../policy.toml",
        "/v1/artifacts/\0",
        "/v1/artifacts/0000" + "00" * 32,
        "/v1/artifacts/0001" + "00" * 31,
        "/v1/artifacts/0001" + "00" * 33,
        "/v1/artifacts/0001" + "AB" * 32,
        "/v1/artifacts/ 0001" + "00" * 32,
        "/v1/artifacts/" + "00" * 65_536,
        "/v1/artifacts/0001" + "00" * 32 + "?x=1",
        "/v1/\u212a",
    ],
)
def test_requests_that_are_malformed(ask, target):
    """400 with value, rule and next action; nothing is looked up, no path is made of it."""
    answer = ask(target)
    assert answer.status == 400
    said(answer)


@pytest.mark.parametrize("text", ["-1", "+1", "01", "1.0", " 1", "1 ", "0x1", "1" * 30, "", "\u0661"])
def test_numbers_have_one_form(a, ask, text):
    """Decimal digits and nothing else."""
    a.put(b"x")
    assert ask(f"/v1/records?domain={a.domain.hex()}&after={text}").status == 400


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/v1/records?domain={a}&after=3", 416),
        ("/v1/records?domain={a}&after=9223372036854775807", 416),
        ("/v1/records?domain={a}&limit=0", 400),
        ("/v1/records?domain={a}&limit=10001", 400),
        ("/v1/records?domain={b}", 404),
        ("/v1/hash?domain={a}&seq=3", 416),
        ("/v1/hash?domain={a}&seq=0", 416),
        ("/v1/hash?domain={b}&seq=1", 404),
        ("/v1/proof/inclusion?domain={a}&seq=3&size=2", 416),
        ("/v1/proof/inclusion?domain={a}&seq=2&size=1", 416),
        ("/v1/proof/inclusion?domain={a}&seq=1&size=3", 416),
        ("/v1/proof/consistency?domain={a}&from=2&to=1", 416),
        ("/v1/proof/consistency?domain={a}&from=0&to=1", 416),
        ("/v1/proof/consistency?domain={a}&from=1&to=3", 416),
        ("/v1/proof/inclusion?domain={b}&seq=1&size=1", 404),
        ("/v1/nothing", 404),
        ("/", 404),
        ("", 404),
        ("*", 404),
        ("http://elsewhere/v1/heads", 404),
    ],
)
def test_what_is_not_held(a, ask, target, status):
    """404 for an unknown domain or address, 416 beyond the head."""
    a.put(b"1")
    a.put(b"2")
    answer = ask(target.format(a=a.domain.hex(), b=GOOD))
    assert answer.status == status
    said(answer)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "GET " * 10_000])
def test_other_methods(ask, method):
    """405 that says which would do."""
    answer = ask("/v1/heads", method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    said(answer)
    assert ask("/v1/artifacts/missing", "PUT").status == 405
    assert ask("/v1/artifacts/00", "POST").status == 405


@given(st.text(max_size=200), st.sampled_from(["GET", "HEAD", "POST"]), st.binary(max_size=100))
def test_any_request_gets_an_answer(text, method, body):
    """No request raises, and none that is malformed is 200."""
    node = Node("a")
    for prefix in ("", "/v1/artifacts/", "/v1/records?domain=", "/v1/heads?after="):
        answer = PeerHandler(node).handle(HttpRequest(method, prefix + text, {"range": text}, body))
        assert 200 <= answer.status < 500
        assert len(answer.whole) < 2_000
    node.close()


@given(st.binary(max_size=300))
def test_other_bytes_are_no_page_of_heads(data):
    """A page is read or refused with CodecError."""
    try:
        decode_heads(data)
    except CodecError:
        return


@pytest.mark.parametrize(
    "twist",
    [
        lambda row: {**row, "size": -1},
        lambda row: {**row, "size": 1 << 64},
        lambda row: {**row, "size": "1"},
        lambda row: {**row, "domain": row["domain"] + "\n"},
        lambda row: {**row, "domain": "../" + row["domain"][3:]},
        lambda row: {**row, "head": None},
        lambda row: {**row, "surplus": 1},
        lambda row: {key: row[key] for key in row if key != "note"},
        lambda row: [row],
    ],
)
def test_heads_that_break_their_form(a, ask, twist):
    """Another type, another length, a field too many or too few: refused whole."""
    a.put(b"x")
    [row] = json.loads(ask("/v1/heads").whole)
    with pytest.raises(CodecError):
        decode_heads(json.dumps([twist(row)]).encode())
    assert decode_heads(json.dumps([row]).encode())[0] == HeadDocument(**{**row, "notes": ()})


def test_pages_that_break_their_form(a, ask):
    """Out of order, twice the same, too many, nested without end, numbers without end."""
    a.put(b"x")
    [row] = json.loads(ask("/v1/heads").whole)
    for bad in (
        json.dumps([row, row]).encode(),
        json.dumps([{**row, "domain": "ff" * 32}, {**row, "domain": "00" * 32}]).encode(),
        json.dumps([{**row, "domain": f"{n:064x}"} for n in range(1_001)]).encode(),
        b"[" * 100_000,
        b'[{"domain":' + b"[" * 100_000,
        b"[" + b"9" * 100_000 + b"]",
        b"",
        b"null",
        b"\xff",
        json.dumps([row]).encode() + b"x",
    ):
        with pytest.raises(CodecError):
            decode_heads(bad)


def test_proofs_that_break_their_form():
    """Too many hashes, of another length, in another alphabet."""
    good = base64.b64encode(bytes(32)).decode()
    assert decode_json(json.dumps({"hashes": [good]}).encode(), ProofDocument).path() == (bytes(32),)
    for hashes in ([good] * 66, [good[:-4]], [good.replace("A", "-", 1)], [good + "\n"], "x"):
        with pytest.raises(CodecError):
            decode_json(json.dumps({"hashes": hashes}).encode(), ProofDocument)


def test_a_reference_in_a_request_is_the_one_that_is_answered(a, ask):
    """An unknown hash id is a name that nobody here has."""
    assert ask("/v1/artifacts/" + Reference(2, bytes(32)).hex()).status == 404
