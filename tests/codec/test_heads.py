from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewarp.codec import domain_of, genesis
from tidewarp.codec.ed25519 import public_key_of, sign
from tidewarp.codec.heads import NOTE_BYTES_MAX, SIGNATURES_MAX, NoteSignature, SignedHead, key_id, sign_head
from tidewarp.codec.merkle import EMPTY_ROOT
from tidewarp.errors import CodecError, PeerError

VECTORS = {
    name: bytes.fromhex(text)
    for name, text in json.loads((Path(__file__).parents[1] / "golden" / "store_vectors.json").read_text()).items()
}
SEED, PUBLIC_KEY, DOMAIN = bytes(range(32)), VECTORS["public_key"], VECTORS["domain_id"]
NOTE = VECTORS["signed_head"]
HEAD = SignedHead.from_bytes(NOTE)
LINE = "— site-a FL0ZCm9jOEe6JaWmKehxpasNy2UR25Fd67qSIU+GTNUzkKc5j9dWiQrYQYCQCVBQ4qR2wfG3yAlRUugOUmkIpqdxswU=\n"
OTHER_SEED = bytes(32)
HASHES = st.binary(min_size=32, max_size=32)
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Z", "Cc"], exclude_characters="+"), min_size=1)
HEADS = st.builds(
    lambda domain, size, root, head, name: sign_head(domain, size, root, head, name, SEED),
    HASHES,
    st.integers(1, 2**64 - 1),
    HASHES,
    HASHES,
    NAMES,
)


def verified(note: str, *public_keys: bytes) -> tuple[bytes, ...]:
    return SignedHead.parse(note).verify(public_keys or (PUBLIC_KEY,))


def replaced(old: str, new: str) -> str:
    note = NOTE.decode()
    assert note.count(old) == 1
    return note.replace(old, new)


def cosignature(name: str, signature: bytes = bytes(72)) -> str:
    """A line as a witness adds it: another type of signature, with a time in front."""
    return f"— {name} {base64.b64encode(b'wit1' + signature).decode()}\n"


# ---- the form ------------------------------------------------------------------------------------------------------


def test_the_head_of_the_worked_history() -> None:
    """Key 00..1f, name site-a, six records: the note, and the signature line of the specification."""
    head = sign_head(DOMAIN, 6, VECTORS["merkle_root"], VECTORS["record6_hash"], "site-a", SEED)
    assert head.to_bytes() == NOTE
    assert head.note().splitlines(keepends=True)[-1] == LINE
    assert head == HEAD
    assert (head.domain, head.size, head.root, head.head) == (
        DOMAIN,
        6,
        VECTORS["merkle_root"],
        VECTORS["record6_hash"],
    )
    assert head.verify([PUBLIC_KEY]) == (PUBLIC_KEY,)


def test_the_lines_of_the_text() -> None:
    assert HEAD.text() == (
        f"tidewarp/{DOMAIN.hex()}\n6\n{base64.b64encode(VECTORS['merkle_root']).decode()}\n"
        f"head {VECTORS['record6_hash'].hex()}\n"
    )
    assert HEAD.note() == HEAD.text() + "\n" + LINE


def test_the_key_id_is_that_of_signed_notes() -> None:
    """The first 4 bytes of SHA-256(name, newline, 01, public key): also of a name that is not ASCII."""
    for name in ("site-a", "Gießerei"):
        assert key_id(name, PUBLIC_KEY) == hashlib.sha256(name.encode() + b"\n\x01" + PUBLIC_KEY).digest()[:4]


@given(HEADS)
def test_a_head_is_its_note_and_back(head: SignedHead) -> None:
    data = head.to_bytes()
    assert SignedHead.from_bytes(data) == head
    assert SignedHead.parse(head.note()) == head
    assert head.verify([public_key_of(OTHER_SEED), PUBLIC_KEY]) == (PUBLIC_KEY,)


def test_an_empty_journal_has_one_head() -> None:
    """The root of no leaves, and what the first record will name as its predecessor."""
    head = sign_head(DOMAIN, 0, EMPTY_ROOT, genesis(DOMAIN), "site-a", SEED)
    assert SignedHead.from_bytes(head.to_bytes()) == head
    assert "\n0\n" in head.note()
    for root, last in ((bytes(32), genesis(DOMAIN)), (EMPTY_ROOT, bytes(32))):
        with pytest.raises(CodecError):
            sign_head(DOMAIN, 0, root, last, "site-a", SEED)


@pytest.mark.parametrize(
    "change",
    [
        {"domain": bytes(31)},
        {"domain": bytes(33)},
        {"size": -1},
        {"size": 2**64},
        {"root": bytes(31)},
        {"root": b""},
        {"head": bytes(33)},
        {"extensions": ("two\nlines",)},
        {"extensions": ("",)},
        {"extensions": ("bell\a",)},
        {"extensions": ("\ud800",)},
        {"signatures": ()},
        {"signatures": (NoteSignature("a b", b"1234", b"5"),)},
        {"signatures": (NoteSignature("a+b", b"1234", b"5"),)},
        {"signatures": (NoteSignature("a\n— b", b"1234", b"5"),)},
        {"signatures": (NoteSignature("", b"1234", b"5"),)},
        {"signatures": (NoteSignature("a", b"1234", b""),)},
        {"signatures": (NoteSignature("a", b"123", b"5"),)},
        {"signatures": (NoteSignature("a", b"1234", b"5"),) * (SIGNATURES_MAX + 1)},
        {"signatures": (NoteSignature("a", b"1234", bytes(NOTE_BYTES_MAX)),)},
    ],
)
def test_what_has_no_note_is_not_written(change: dict[str, object]) -> None:
    with pytest.raises(CodecError):
        HEAD._replace(**change).to_bytes()  # type: ignore[arg-type]


def test_what_has_no_text_is_not_verified() -> None:
    for extension in ("\ud800", "two\nlines"):
        with pytest.raises(CodecError):
            HEAD._replace(extensions=(extension,)).verify([PUBLIC_KEY])


@pytest.mark.parametrize(
    "name", ["", "a b", "a\u00a0b", "a\u2003b", "a\u3000", "a+b", "a\tb", "a\nb", "\ud800", "é" * 513]
)
def test_names_that_a_key_cannot_have(name: str) -> None:
    with pytest.raises(CodecError):
        sign_head(DOMAIN, 6, HEAD.root, HEAD.head, name, SEED)


# ---- one form only -------------------------------------------------------------------------------------------------

ROOT = base64.b64encode(HEAD.root).decode()
SIGNATURE = LINE.split()[2]


@pytest.mark.parametrize(
    "note",
    [
        # sizes and numbers
        replaced("\n6\n", "\n06\n"),
        replaced("\n6\n", "\n+6\n"),
        replaced("\n6\n", "\n-6\n"),
        replaced("\n6\n", "\n6 \n"),
        replaced("\n6\n", "\n6.0\n"),
        replaced("\n6\n", "\n6_0\n"),
        replaced("\n6\n", "\n0x6\n"),
        replaced("\n6\n", "\n٦\n"),  # a digit, to int()
        replaced("\n6\n", "\n6٦\n"),
        replaced("\n6\n", "\n\n"),
        replaced("\n6\n", f"\n{2**64}\n"),
        replaced("\n6\n", f"\n{'9' * 5_000}\n"),
        # hex
        replaced(DOMAIN.hex(), DOMAIN.hex().upper()),
        replaced(DOMAIN.hex(), DOMAIN.hex()[:-2]),
        replaced(DOMAIN.hex(), DOMAIN.hex() + "00"),
        replaced(HEAD.head.hex(), HEAD.head.hex().upper()),
        replaced(HEAD.head.hex(), HEAD.head.hex()[:-1]),
        # base64: unpadded, leftover bits, URL-safe, spaces, another length
        replaced(ROOT, ROOT.rstrip("=")),
        replaced(ROOT, ROOT + "="),
        replaced(ROOT, ROOT[:-2] + chr(ord(ROOT[-2]) + 1) + "="),
        replaced(ROOT, ROOT[:8] + " " + ROOT[8:]),
        replaced(ROOT, base64.b64encode(bytes(31)).decode()),
        replaced(ROOT, base64.b64encode(bytes(33)).decode()),
        replaced(SIGNATURE, SIGNATURE.replace("+", "-")),
        replaced(SIGNATURE, SIGNATURE.rstrip("=")),
        replaced(SIGNATURE, SIGNATURE[:-2] + chr(ord(SIGNATURE[-2]) + 1) + "="),
        replaced(SIGNATURE, "é" + SIGNATURE[1:]),
        replaced(SIGNATURE, base64.b64encode(b"1234").decode()),
        replaced(SIGNATURE, ""),
        replaced(SIGNATURE, SIGNATURE + " x"),
        # lines
        replaced("tidewarp/", "other/"),
        replaced("\nhead ", "\nHead "),
        replaced("\nhead ", "\nhead  "),
        replaced(f"head {HEAD.head.hex()}\n", ""),
        replaced("\n\n— ", "\n— "),
        replaced("\n\n— ", "\n\n\n— "),
        replaced("— site-a", "- site-a"),
        replaced("— site-a", "—  site-a"),
        replaced("— site-a", "— site-a+b"),
        replaced("— site-a", "— site\u00a0a"),
        replaced("— site-a", " — site-a"),
        NOTE.decode()[:-1],
        NOTE.decode() + "\n",
        NOTE.decode() + "x\n",
        NOTE.decode().replace("\n", "\r\n"),
        HEAD.text(),
        HEAD.text() + "\n",
        LINE,
        "",
        "\n\n",
        # characters
        replaced("site-a", "site\x00a"),
        replaced("site-a", "site\ud800a"),
        # bounds
        NOTE.decode() + LINE * SIGNATURES_MAX,
        NOTE.decode() + cosignature("w", bytes(NOTE_BYTES_MAX)),
    ],
)
def test_what_is_not_the_one_form_is_refused(note: str) -> None:
    with pytest.raises(CodecError):
        SignedHead.parse(note)
    with pytest.raises(CodecError):
        SignedHead.from_bytes(note.encode(errors="surrogatepass"))


def test_a_line_ends_only_at_a_newline() -> None:
    """U+2028 and U+0085 end a line for str.splitlines(); here they are characters of an extension."""
    head = HEAD._replace(extensions=("one\u2028two\u0085three",))
    assert SignedHead.from_bytes(head.to_bytes()) == head


@given(
    st.one_of(st.text(), st.binary().map(lambda data: data.decode("latin-1"))), st.integers(0, len(NOTE)), st.booleans()
)
def test_any_bytes_are_one_head_or_refused(text: str, at: int, keep: bool) -> None:
    """Bytes put into a true note, or in place of its rest."""
    data = NOTE[:at] + text.encode(errors="replace") + (NOTE[at:] if keep else b"")
    try:
        head = SignedHead.from_bytes(data)
    except CodecError:
        return
    assert head.to_bytes() == data


# ---- who signed ----------------------------------------------------------------------------------------------------


def test_every_flipped_bit_is_refused() -> None:
    """Bytes that are no note are the codec's; a note that says another thing is a peer's that its key did not sign."""
    malformed = unsigned = 0
    for bit in range(8 * len(NOTE)):
        flipped = bytearray(NOTE)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            head = SignedHead.from_bytes(bytes(flipped))
        except CodecError:
            malformed += 1
            continue
        assert head != HEAD
        with pytest.raises(PeerError) as refused:
            head.verify([PUBLIC_KEY])
        assert type(refused.value) is PeerError
        unsigned += 1
    assert malformed
    assert unsigned


@given(HEADS, HASHES)
def test_a_signature_is_of_one_text(head: SignedHead, other: bytes) -> None:
    for change in ({"domain": other}, {"size": head.size ^ 1 or 2}, {"root": other}, {"head": other}):
        changed = head._replace(**change)  # type: ignore[arg-type]
        if changed != head:
            with pytest.raises(PeerError):
                changed.verify([PUBLIC_KEY])
    with pytest.raises(PeerError):
        head._replace(extensions=("more",)).verify([PUBLIC_KEY])


def test_another_key_did_not_sign() -> None:
    for keys in ([], [public_key_of(OTHER_SEED)]):
        with pytest.raises(PeerError, match="none of the"):
            HEAD.verify(keys)


def test_a_withdrawn_key_signs_no_more() -> None:
    """Two keys may sign. When one is withdrawn its heads are refused, and those of the other hold."""
    other = public_key_of(OTHER_SEED)
    by_other = sign_head(DOMAIN, 6, HEAD.root, HEAD.head, "site-a", OTHER_SEED)
    assert by_other.verify([PUBLIC_KEY, other]) == (other,)
    with pytest.raises(PeerError, match="none of the 1 keys"):
        by_other.verify([PUBLIC_KEY])
    assert HEAD.verify([PUBLIC_KEY]) == (PUBLIC_KEY,)


def test_a_wrong_key_id_is_another_key() -> None:
    """A good signature under the id of another key, or under another name, is not looked at."""
    (line,) = HEAD.signatures
    for changed in (line._replace(key_id=b"none"), line._replace(name="site-b")):
        with pytest.raises(PeerError, match="none of the"):
            HEAD._replace(signatures=(changed,)).verify([PUBLIC_KEY])


def test_a_line_under_the_id_of_a_known_key_must_be_its_signature() -> None:
    """Also beside a good one: somebody tampered with this note."""
    (line,) = HEAD.signatures
    forged = line._replace(signature=sign(OTHER_SEED, HEAD.text().encode()))
    short = line._replace(signature=line.signature[:-1])
    for bad in (forged, short):
        for signatures in ((bad,), (line, bad), (bad, line)):
            with pytest.raises(PeerError, match="did not sign"):
                HEAD._replace(signatures=signatures).verify([PUBLIC_KEY])


def test_witnesses_are_kept_and_not_counted() -> None:
    """Lines of unknown keys, before and behind, of any length and any name, change nothing and are passed on."""
    note = f"{HEAD.text()}\n{cosignature('witness.example/w1')}{LINE}{cosignature('w2', bytes(5_000))}"
    head = SignedHead.parse(note)
    assert [one.name for one in head.signatures] == ["witness.example/w1", "site-a", "w2"]
    assert head.note() == note
    assert head.verify([PUBLIC_KEY]) == (PUBLIC_KEY,)
    with pytest.raises(PeerError):
        head._replace(signatures=head.signatures[::2]).verify([PUBLIC_KEY])
    assert SIGNATURES_MAX == 16  # as many as every reader of signed notes has to take
    full = f"{HEAD.text()}\n{cosignature('w') * (SIGNATURES_MAX - 1)}{LINE}"
    assert verified(full) == (PUBLIC_KEY,)


def test_two_keys_that_signed_are_named_once_each() -> None:
    by_other = sign_head(DOMAIN, 6, HEAD.root, HEAD.head, "site-b", OTHER_SEED)
    both = HEAD._replace(signatures=(*by_other.signatures, *HEAD.signatures, *by_other.signatures))
    assert both.verify([PUBLIC_KEY, public_key_of(OTHER_SEED)]) == (public_key_of(OTHER_SEED), PUBLIC_KEY)


def test_lines_of_a_later_version_are_signed_and_kept() -> None:
    text = HEAD.text() + "later thing\n"
    signature = base64.b64encode(key_id("site-a", PUBLIC_KEY) + sign(SEED, text.encode())).decode()
    head = SignedHead.parse(f"{text}\n— site-a {signature}\n")
    assert head.extensions == ("later thing",)
    assert head.verify([PUBLIC_KEY]) == (PUBLIC_KEY,)
    with pytest.raises(PeerError):
        head._replace(extensions=()).verify([PUBLIC_KEY])


def test_the_root_key_is_the_one_whose_domain_it_is() -> None:
    """What a caller compares before it gives a root key to verify()."""
    assert domain_of(HEAD.verify([PUBLIC_KEY])[0]) == HEAD.domain
