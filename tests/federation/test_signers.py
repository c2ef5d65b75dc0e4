"""Who may sign for a domain: rotation, withdrawal, and sites that see the domain for the first time."""

from __future__ import annotations

import json
import sqlite3
from contextlib import ExitStack, closing
from hashlib import sha256

import pytest
from node import Node, asked_of, pulled, seed_of
from receiving import handler_of

from tidewarp.codec.artifacts import TAG_PROGRAM
from tidewarp.codec.bodies import KEYS, KeysBody
from tidewarp.codec.ed25519 import public_key_of
from tidewarp.codec.heads import SignedHead, sign_head
from tidewarp.codec.programs import External, Output, Program
from tidewarp.codec.programs import Node as Step
from tidewarp.codec.receipts import Executor
from tidewarp.codec.records import PUBLISHED
from tidewarp.errors import OperatorError, PeerError
from tidewarp.federation.bundle import Bundle, bundle_of
from tidewarp.federation.messages import (
    Asked,
    GetHeads,
    GetMissing,
    HttpRequest,
    HttpResponse,
    PushArtifact,
    PushRecords,
)
from tidewarp.federation.push import Push
from tidewarp.programs import OperationRegistry
from tidewarp.programs.runs import run
from tidewarp.store import MemoryStore, SqliteStore
from tidewarp.store.admission import Role
from tidewarp.store.audit import audit
from tidewarp.store.contract import Entry
from tidewarp.store.signers import EARLIER_HEADS_MAX

pytestmark = pytest.mark.proof("a head is signed by the root key, or by whom an earlier valid head makes known")

SEEDS = [seed_of(f"signer {n}") for n in range(3)]
HASH = Program.of(1, [Step("pel.bytes.hash.asl1", 1, (External(0),), b"\0\1")], [Output(0)])


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


@pytest.fixture(params=["fake", "memory", "sqlite"])
def made(request, stack, tmp_path):
    """Makes the sites that pull."""

    def make(name):
        if request.param == "sqlite":
            return stack.enter_context(SqliteStore(tmp_path / f"{name}.tw", create=True))
        return stack.enter_context(closing(Node(name) if request.param == "fake" else MemoryStore(seed=seed_of(name))))

    return make


@pytest.fixture
def owner(stack, tmp_path):
    return stack.enter_context(SqliteStore(tmp_path / "owner.tw", create=True, key=seed_of("owner")))


def declare(store, *seeds):
    """Let the keys of these seeds sign, and nobody else but the root key."""
    keys = KeysBody(tuple(map(public_key_of, seeds)))
    store.journal.append([Entry(KEYS, keys.to_bytes(), PUBLISHED)])


def rotate(store, seed):
    declare(store, seed)
    store.sign_with(seed)
    store.put(b"after " + seed)
    return store.signed_head()


def signers_of(store, domain=None):
    """By head that is kept, the keys that a line of it names."""
    known = [public_key_of(seed) for seed in (seed_of("owner"), *SEEDS)]
    return [[n for n, key in enumerate(known) if _has_signed(head, key)] for head in store.signed_heads(domain)]


def _has_signed(head, key):
    try:
        return bool(head.verify([key]))
    except PeerError:
        return False


def holds_all(site, owner):
    assert site.hash_at(owner.domain, owner.journal.size) == owner.journal.head


def conflicts_of(exchange):
    return [one.kind for one in exchange._ledger.conflicts()]


# --- a fresh site


def test_a_fresh_site_follows_through_a_relay(owner, made):
    """After two rotations: each head that the last one leans on is kept and passed on."""
    owner.put(b"first")
    relay, fresh = made("relay"), made("fresh")
    pulled(relay, owner)
    for seed in SEEDS[:2]:
        rotate(owner, seed)
    assert signers_of(owner) == [[0], [1], [2]]
    finish, exchange = pulled(relay, owner)
    assert ([one.outcome for one in finish.domains], exchange.conflicts) == (["pulled"], 0)
    finish, exchange = pulled(fresh, relay)
    assert exchange.conflicts == 0
    holds_all(fresh, owner)
    assert signers_of(fresh, owner.domain) == [[0], [1], [2]]
    (other,) = [one for one in fresh.domains() if one.id == owner.domain]
    assert other.key == public_key_of(seed_of("owner"))
    if not isinstance(fresh, Node):
        assert audit(fresh).findings == ()


@pytest.mark.parametrize("until", range(1, 5))
def test_a_pull_that_stops_anywhere_goes_on(owner, made, until):
    """Inside of what one key signed, at its end, behind it."""
    owner.put(b"first")
    for seed in SEEDS[:2]:
        rotate(owner, seed)
    fresh = made("fresh")
    finish, exchange = pulled(fresh, owner, until=until, limit=1)
    assert ([one.outcome for one in finish.domains], exchange.conflicts) == (["bounded"], 0)
    finish, exchange = pulled(fresh, owner, limit=2)
    assert ([one.outcome for one in finish.domains], exchange.conflicts) == (["pulled"], 0)
    holds_all(fresh, owner)
    assert signers_of(fresh, owner.domain)[-1] == [2]


def test_what_is_held_and_unsigned_is_vouched_for_by_less(owner, made):
    """A pull under a head of the root key was cut short; then somebody else shows where that key declared another."""
    owner.put(b"first")
    declare(owner, SEEDS[0])
    early, fresh = made("early"), made("fresh")
    pulled(early, owner)  # keeps the head of the root key at 2
    owner.put(b"more")
    owner.put(b"and more")
    pulled(fresh, owner, until=3)
    assert fresh.signed_head(owner.domain) is None
    owner.sign_with(SEEDS[0])
    owner.put(b"signed by another")
    owner.signed_head()
    pulled(early, owner)
    _, exchange = pulled(fresh, early)
    assert exchange.conflicts == 0
    holds_all(fresh, owner)
    assert signers_of(fresh, owner.domain) == [[0], [1]]


def test_a_head_of_the_root_key_leans_on_none(owner, made):
    """It ends the chain, for the owner and for who follows."""
    owner.put(b"first")
    rotate(owner, SEEDS[0])
    follower = made("follower")
    pulled(follower, owner)
    assert len(signers_of(follower, owner.domain)) == 2
    owner.sign_with(None)
    owner.put(b"last")
    assert signers_of(owner) == [[0]]
    pulled(follower, owner)
    assert signers_of(follower, owner.domain) == [[0]]


def test_a_push_goes_step_by_step(owner, made):
    """A parcel is under the first head that covers it: who takes it knows its signer."""
    owner.put(b"first")
    for seed in SEEDS[:2]:
        rotate(owner, seed)
    taker = made("taker")
    handler = handler_of(taker)

    def ask(question: Asked) -> HttpResponse:
        roles = frozenset({Role.FEDERATE})
        if isinstance(question, PushRecords):
            return handler.handle(HttpRequest("POST", question.target, {}, question.body, roles))
        if isinstance(question, PushArtifact):
            source = b"".join(question.pieces())
            return handler.handle(HttpRequest("PUT", question.target, {}, source, roles))
        body = question.body if isinstance(question, GetMissing) else b""
        return handler.handle(HttpRequest("POST" if body else "GET", question.target, {}, body, roles))

    push = Push(owner, ask, domains=[owner.domain])
    push.run()
    assert (push.incomplete, push.conflicts) == ("", 0)
    holds_all(taker, owner)
    assert signers_of(taker, owner.domain) == [[0], [1], [2]]


# --- lies


def forged(owner, seed, extra=b"forged"):
    """A store of the same domain whose records go on, and whose head the key of ``seed`` has signed; and its chain."""
    double = Node("double")
    double.seed, double.name, double.domain = seed, f"tidewarp/{owner.domain.hex()}", owner.domain
    double.key = public_key_of(seed_of("owner"))
    double.logs, double.keys = {owner.domain: []}, {owner.domain: double.key}
    for header, _, body in owner.records(owner.domain):
        double.append([Entry(header.kind, body, header.flags)])
    double.heads[owner.domain] = tuple(owner.signed_heads())
    double.append([Entry(0x20, bytes(8) + extra, PUBLISHED)])
    return double


def test_a_wrong_key_is_refused(owner, made):
    """Whoever is named nowhere, by who follows and by who is new."""
    owner.put(b"first")
    rotate(owner, SEEDS[0])
    follower, fresh = made("follower"), made("fresh")
    pulled(follower, owner)
    for site, sizes in ((follower, owner.journal.size), (fresh, owner.signed_heads()[0].size)):
        double = forged(owner, SEEDS[2])
        finish, exchange = pulled(site, double)
        assert [one.outcome for one in finish.domains] == ["refused"]
        assert conflicts_of(exchange) == ["bad_signature"]
        (state,) = [one for one in site.domains() if one.id == owner.domain]
        assert state.size >= sizes
        double.close()


def test_a_withdrawn_key_signs_nothing_later(owner, made):
    """Who knows the record that leaves it out, takes no head of it; also not if it shows how it was declared once."""
    owner.put(b"first")
    rotate(owner, SEEDS[0])
    chain = owner.signed_heads()
    rotate(owner, SEEDS[1])
    follower = made("follower")
    pulled(follower, owner)
    double = forged(owner, SEEDS[0])
    double.heads[owner.domain] = tuple(chain)
    finish, exchange = pulled(follower, double)
    assert [one.outcome for one in finish.domains] == ["refused"]
    assert conflicts_of(exchange) == ["bad_signature"]
    holds_all(follower, owner)
    double.close()


def test_a_relay_that_lags_is_no_liar(owner, made):
    """What it holds was signed by a key that was withdrawn later."""
    owner.put(b"first")
    rotate(owner, SEEDS[0])
    relay, follower = made("relay"), made("follower")
    pulled(relay, owner)
    rotate(owner, SEEDS[1])
    owner.sign_with(None)
    owner.put(b"last")
    pulled(follower, owner)
    assert signers_of(follower, owner.domain) == [[0]]
    finish, exchange = pulled(follower, relay)
    assert exchange.conflicts == 0
    assert {one.outcome for one in finish.domains if one.domain == owner.domain} == {"unchanged"}


def lie_with(owner, change):
    """Answers of ``owner``, whose row of heads is changed."""

    def send(question):
        answer = asked_of(owner, question)
        if not isinstance(question, GetHeads) or answer.status != 200:
            return answer
        (row,) = json.loads(answer.whole)
        change(row)
        return HttpResponse(200, body=json.dumps([row]).encode())

    return send


def flipped(note):
    at = note.index("\n\n") + 90
    return note[:at] + ("A" if note[at] != "A" else "B") + note[at + 1 :]


def resigned(note, seed):
    head = SignedHead.parse(note)
    return sign_head(*head[:4], f"tidewarp/{head.domain.hex()}", seed).note()


LIES = {
    "none of them": lambda row: row.update(notes=[]),
    "the first left out": lambda row: row["notes"].pop(0),
    "the last left out": lambda row: row["notes"].pop(),
    "the other way round": lambda row: row["notes"].reverse(),
    "one twice": lambda row: row["notes"].append(row["notes"][-1]),
    "itself": lambda row: row["notes"].append(row["note"]),
    "too many": lambda row: row.update(notes=row["notes"] * EARLIER_HEADS_MAX),
    "a bit": lambda row: row["notes"].__setitem__(0, flipped(row["notes"][0])),
    "another key": lambda row: row["notes"].__setitem__(1, resigned(row["notes"][1], SEEDS[2])),
    "no note": lambda row: row["notes"].__setitem__(0, "note"),
}


@pytest.mark.parametrize("lie", LIES)
def test_heads_that_lie_are_refused(owner, lie, stack):
    """In whatever way the chain does not lead from the root key to who signed."""
    owner.put(b"first")
    for seed in SEEDS[:2]:
        rotate(owner, seed)
    fresh = stack.enter_context(closing(Node("fresh")))
    finish, exchange = pulled(fresh, owner, send=lie_with(owner, LIES[lie]))
    assert [one.outcome for one in finish.domains] == ["refused"]
    assert conflicts_of(exchange) == ["bad_signature"]
    assert fresh.signed_head(owner.domain) is None or signers_of(fresh, owner.domain)[-1] != [2]


def test_a_head_that_covers_no_keys_is_refused(owner, stack):
    """It is signed by the root key, and true, and names nobody."""
    owner.put(b"first")
    useless = owner.signed_head().note()
    rotate(owner, SEEDS[0])
    fresh = stack.enter_context(closing(Node("fresh")))
    lie = lie_with(owner, lambda row: row["notes"].insert(0, useless))
    finish, exchange = pulled(fresh, owner, send=lie)
    assert [one.outcome for one in finish.domains] == ["refused"]
    assert conflicts_of(exchange) == ["bad_signature"]
    assert len(fresh.logs[owner.domain]) == 1


def test_a_chain_that_only_grows_is_refused(stack):
    """By who has followed it from the beginning, and would have to pass it on."""
    owner, follower = (stack.enter_context(closing(Node(name))) for name in ("owner", "follower"))
    kinds = []
    for n in range(EARLIER_HEADS_MAX + 2):
        declare(owner, seed_of(f"many {n}"))
        finish, exchange = pulled(follower, owner)
        kinds += conflicts_of(exchange)
        owner.seed = seed_of(f"many {n}")
    assert [one.outcome for one in finish.domains] == ["refused"]
    assert kinds == ["bad_signature"]
    assert len(follower.signed_heads(owner.domain)) == EARLIER_HEADS_MAX + 1


# --- the owner


def test_only_who_is_declared_signs(owner):
    """A list that no head covers yet, or that was replaced, is none."""
    with pytest.raises(OperatorError, match="does not name it"):
        owner.sign_with(SEEDS[0])
    rotate(owner, SEEDS[0])
    declare(owner, SEEDS[1])
    assert signers_of(owner)[-1] == [1]  # its last head: it covers the record that withdraws it
    owner.put(b"x")
    assert signers_of(owner) == [[0]]


def test_an_unpublished_list_names_nobody(owner):
    """Nobody else can read it."""
    owner.journal.append([Entry(KEYS, KeysBody((public_key_of(SEEDS[0]),)).to_bytes())])
    with pytest.raises(OperatorError, match="does not name it"):
        owner.sign_with(SEEDS[0])


def test_the_root_key_can_be_kept_elsewhere(tmp_path):
    """The store goes on under its domain with the key that was declared, and needs the root key when that is withdrawn."""
    place = tmp_path / "S"
    place.mkdir()
    root = place / "keys" / "root.key"
    with SqliteStore(place, create=True) as store:
        domain = store.domain
        rotate(store, SEEDS[0])
    assert (place / "keys" / "signing.key").stat().st_mode & 0o777 == 0o600
    away = root.rename(tmp_path / "root.key")
    with SqliteStore(place) as store:
        assert store.domain == domain
        store.put(b"signed without it")
        assert store.signed_head().size == store.journal.size
        assert store.signer == public_key_of(SEEDS[0])
        with pytest.raises(OperatorError, match="it is missing"):
            store.sign_with(None)
        assert audit(store).findings == ()
        assert store.fsck().clean
    (place / "keys" / "signing.key").unlink()
    with pytest.raises(OperatorError, match="continued with its own key"):
        SqliteStore(place)
    away.rename(root)
    with SqliteStore(place) as store:
        assert store.signer == store.domains()[0].key


def test_after_64_lists_the_root_key_signs(owner):
    """Nobody keeps more heads than that for one domain, so the owner begins anew."""
    seeds = [seed_of(f"many {n}") for n in range(EARLIER_HEADS_MAX + 2)]
    sizes = []
    for seed in seeds:
        rotate(owner, seed)
        sizes.append(len(owner.signed_heads()))
    assert max(sizes) == EARLIER_HEADS_MAX + 1
    assert sizes[-1] < 5
    assert audit(owner).findings == ()


@pytest.mark.parametrize(
    "change", ["DELETE FROM earlier_note WHERE size = {0}", "UPDATE earlier_note SET note = '{1}'"]
)
def test_fsck_and_verify_see_a_chain_that_is_broken(tmp_path, change):
    """A head that is missing between, or is another."""
    place = tmp_path / "S.tw"
    with SqliteStore(place, create=True) as store:
        for seed in SEEDS[:2]:
            rotate(store, seed)
        assert store.fsck().clean
        heads = store.signed_heads()
    db = sqlite3.connect(place, isolation_level=None)
    db.execute(change.format(heads[1].size, flipped(heads[0].note())))
    db.close()
    with SqliteStore(place, read_only=True) as store:
        assert {one.kind for one in store.fsck().problems} == {"head"}
        assert audit(store).findings != ()


# --- a bundle


def rotated_bundle(owner):
    for seed in SEEDS[:2]:
        rotate(owner, seed)
    inputs = [owner.put(b"hello")]
    program = owner.put(HASH.to_bytes(), tag=TAG_PROGRAM)
    executor = Executor(public_key_of(SEEDS[0]), "site")
    done = run(owner, program, inputs, registry=OperationRegistry.kernel(), executor=executor, seed=SEEDS[0])
    return bundle_of(owner, done.receipt)


def test_a_bundle_is_verified_after_a_rotation(owner):
    """It holds the heads that lead from the root key to who signed, and the records that name the keys."""
    bundle = rotated_bundle(owner)
    (record,) = Bundle.from_bytes(bundle.to_bytes()).records
    assert [KeysBody.from_bytes(one.body).keys for one in record.voucher.links] == [
        (public_key_of(seed),) for seed in SEEDS[:2]
    ]
    assert record.key == public_key_of(seed_of("owner"))


def test_a_bundle_whose_links_do_not_lead_there_is_refused(owner):
    """One less, another order, a body of another record."""
    bundle = rotated_bundle(owner)
    (record,) = bundle.records
    voucher = record.voucher
    first, second = voucher.links
    for links in ((), (first,), (second,), (second, first), (first, second._replace(body=first.body))):
        other = record._replace(voucher=voucher._replace(links=links))
        with pytest.raises(PeerError):
            Bundle.from_bytes(bundle._replace(records=(other,)).to_bytes())


@pytest.mark.parametrize("how", ["body", "header", "kind", "unpublished"])
def test_a_link_that_names_who_was_not_declared_is_refused(owner, how):
    """A stranger has signed the head, and puts his key where that of the domain stands."""
    bundle = rotated_bundle(owner)
    (record,) = bundle.records
    first, second = record.voucher.links
    body = KeysBody((public_key_of(SEEDS[2]),)).to_bytes()
    header = second.header._replace(body_hash=sha256(body).digest())
    header = {
        "body": second.header,
        "header": header,
        "kind": header._replace(kind=0x42),
        "unpublished": header._replace(flags=0),
    }[how]
    head = SignedHead.parse(resigned(record.voucher.head.note(), SEEDS[2]))
    voucher = record.voucher._replace(head=head, links=(first, second._replace(header=header, body=body)))
    with pytest.raises(PeerError) as refused:
        Bundle.from_bytes(bundle._replace(records=(record._replace(voucher=voucher),)).to_bytes())
    assert "may sign it" not in str(refused.value)  # it is the link that is refused, before the head


def test_a_link_to_another_record_is_refused(owner):
    """It is in the tree, it names a key, and it was not published."""
    body = KeysBody((public_key_of(SEEDS[2]),)).to_bytes()
    owner.journal.append([Entry(KEYS, body)])
    bundle = rotated_bundle(owner)
    (record,) = bundle.records
    first, second = record.voucher.links
    header = next(owner.records(owner.domain)).header
    path = tuple(owner.inclusion_proof(owner.domain, 1, second.head.size))
    head = SignedHead.parse(resigned(record.voucher.head.note(), SEEDS[2]))
    voucher = record.voucher._replace(head=head, links=(first, second._replace(header=header, body=body, path=path)))
    with pytest.raises(PeerError, match="published record of keys"):
        Bundle.from_bytes(bundle._replace(records=(record._replace(voucher=voucher),)).to_bytes())


def test_every_flipped_bit_of_a_link_is_refused(owner):
    """Of its note, its header, its body and its path."""
    bundle = rotated_bundle(owner)
    whole = bundle.to_bytes()
    (record,) = bundle.records
    links = b"".join(one.to_bytes() for one in record.voucher.links)
    begin = whole.index(links) - 4
    for bit in range(8 * begin, 8 * len(whole), 7):  # in a stride that meets every byte and every bit's place
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(PeerError):
            Bundle.from_bytes(bytes(data))
