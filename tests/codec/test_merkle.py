from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewarp.codec import merkle
from tidewarp.codec.merkle import (
    EMPTY_ROOT,
    TILE_LEAVES,
    Frontier,
    consistency_proof,
    inclusion_proof,
    inclusion_root,
    joined_consistency,
    verify_consistency,
    verify_inclusion,
)
from tidewarp.errors import CodecError, Corrupt, PeerError

VECTORS = {
    name: bytes.fromhex(text)
    for name, text in json.loads((Path(__file__).parents[1] / "golden" / "store_vectors.json").read_text()).items()
}


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


LEAVES = [sha(b"\0%d" % n) for n in range(5 * TILE_LEAVES)]


# ---- the definitions of RFC 6962, section 2.1, word for word, over LEAVES[first:last] --------------------------------


def split(n: int) -> int:
    """The largest power of two smaller than n."""
    return 1 << (n - 1).bit_length() - 1


@cache
def tree_hash(first: int, last: int) -> bytes:
    if first == last:
        return sha(b"")
    if last - first == 1:
        return LEAVES[first]
    middle = first + split(last - first)
    return sha(b"\1" + tree_hash(first, middle) + tree_hash(middle, last))


def audit_path(index: int, first: int, last: int) -> list[bytes]:
    if last - first == 1:
        return []
    middle = first + split(last - first)
    if index < middle:
        return [*audit_path(index, first, middle), tree_hash(middle, last)]
    return [*audit_path(index, middle, last), tree_hash(first, middle)]


def sub_proof(old: int, first: int, last: int, is_known: bool) -> list[bytes]:
    """``old`` counts from ``first``; ``is_known``: the old tree's root is the verifier's."""
    if old == last - first:
        return [] if is_known else [tree_hash(first, last)]
    k = split(last - first)
    if old <= k:
        return [*sub_proof(old, first, first + k, is_known), tree_hash(first + k, last)]
    return [*sub_proof(old - k, first + k, last, False), tree_hash(first, first + k)]


# ---- a stored log ------------------------------------------------------------------------------------------------


class Log:
    """The first ``size`` leaves and the roots of their full tiles, as a store has them; counts what is read."""

    def __init__(self, size: int) -> None:
        self.size, self.leaves_read = size, 0
        self.tile_roots = Frontier().extend(LEAVES[:size])

    def leaves(self, first: int, last: int) -> Sequence[bytes]:
        assert 0 <= first < last <= self.size
        self.leaves_read += last - first
        return LEAVES[first:last]

    def tiles(self, first: int, last: int) -> Sequence[bytes]:
        assert 0 <= first < last <= len(self.tile_roots)
        return self.tile_roots[first:last]

    def inclusion(self, index: int, size: int) -> list[bytes]:
        return inclusion_proof(index, size, self.leaves, self.tiles)

    def consistency(self, old_size: int, size: int) -> list[bytes]:
        return consistency_proof(old_size, size, self.leaves, self.tiles)


def grown(leaves: Sequence[bytes]) -> Frontier:
    frontier = Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    return frontier


def set_tile_level(monkeypatch: pytest.MonkeyPatch, level: int) -> None:
    monkeypatch.setattr(merkle, "TILE_LEVEL", level)
    monkeypatch.setattr(merkle, "TILE_LEAVES", 1 << level)


# ---- roots -------------------------------------------------------------------------------------------------------

# Leaf data, roots and proofs that the implementations of RFC 6962 publish as their tests.
KNOWN_DATA = [bytes.fromhex(x) for x in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")] + [
    bytes(range(0x60, 0x70))
]
KNOWN_LEAVES = [sha(b"\0" + data) for data in KNOWN_DATA]
KNOWN_ROOTS = (
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
KNOWN_INCLUSION = [  # of leaf 0 of 8, and of leaf 2 of 3
    (
        0,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
]
KNOWN_CONSISTENCY = [
    (1, 1, []),
    (
        1,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        6,
        8,
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
]


def test_known_roots() -> None:
    assert EMPTY_ROOT.hex() == KNOWN_ROOTS[0]
    for size, root in enumerate(KNOWN_ROOTS):
        assert grown(KNOWN_LEAVES[:size]).root().hex() == root


def test_known_proofs() -> None:
    def leaves(first: int, last: int) -> Sequence[bytes]:
        return KNOWN_LEAVES[first:last]

    def tiles(first: int, last: int) -> Sequence[bytes]:
        raise AssertionError("no tile is full")

    for index, size, proof in KNOWN_INCLUSION:
        assert [one.hex() for one in inclusion_proof(index, size, leaves, tiles)] == proof
    for old_size, size, proof in KNOWN_CONSISTENCY:
        assert [one.hex() for one in consistency_proof(old_size, size, leaves, tiles)] == proof


def test_the_root_of_the_worked_history() -> None:
    """The leaves of a journal's tree are its record hashes."""
    leaves = [VECTORS[f"record{seq}_hash"] for seq in range(1, 7)]
    assert grown(leaves).root() == VECTORS["merkle_root"]


def test_each_root_is_that_of_the_definition() -> None:
    frontier = Frontier()
    for size in range(2 * TILE_LEAVES + 3):
        assert (frontier.size, frontier.root()) == (size, tree_hash(0, size))
        frontier.append(LEAVES[size])


# ---- the frontier ------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, len(LEAVES)), max_size=6))
def test_many_leaves_at_once_are_as_one_by_one(cuts: list[int]) -> None:
    """However a list is cut, extend() gives the frontier of append(), and both the roots of the full tiles."""
    whole, parts = Frontier(), Frontier()
    tiles = [tile for leaf in LEAVES if (tile := whole.append(leaf)) is not None]
    assert tiles == [tree_hash(n * TILE_LEAVES, (n + 1) * TILE_LEAVES) for n in range(len(LEAVES) // TILE_LEAVES)]
    extended: list[bytes] = []
    for first, last in pairwise(sorted([0, *cuts, len(LEAVES)])):
        extended += parts.extend(LEAVES[first:last])
    assert extended == tiles
    assert parts.to_bytes() == whole.to_bytes()
    assert parts.root() == whole.root()


@given(st.integers(0, 300), st.integers(0, 300))
def test_a_frontier_goes_on_from_its_bytes(size: int, more: int) -> None:
    """Bytes: U64 size, then a root for each bit of it, the greatest subtree first."""
    frontier = grown(LEAVES[:size])
    data = frontier.to_bytes()
    assert len(data) == 8 + 32 * size.bit_count()
    again = Frontier.from_bytes(data)
    assert (again.size, again.root(), again.to_bytes()) == (size, frontier.root(), data)
    again.extend(LEAVES[size : size + more])
    assert again.root() == tree_hash(0, size + more)


def test_the_bytes_of_six_leaves() -> None:
    assert grown(LEAVES[:6]).to_bytes() == bytes(7) + b"\6" + tree_hash(0, 4) + tree_hash(4, 6)
    assert Frontier().to_bytes() == bytes(8)


@given(
    st.one_of(
        st.binary(max_size=200),
        st.builds(
            lambda size, extra: size.to_bytes(8, "big") + bytes(32 * size.bit_count() + extra),
            st.integers(1, 2**64 - 1),
            st.sampled_from([0, 0, 0, -1, 1, 32]),
        ),
    )
)
def test_any_bytes_are_one_frontier_or_refused(data: bytes) -> None:
    try:
        frontier = Frontier.from_bytes(data)
    except CodecError:
        size = int.from_bytes(data[:8], "big")
        assert len(data) < 8 or len(data) != 8 + 32 * size.bit_count()
    else:
        assert frontier.to_bytes() == data


def test_the_tree_ends_where_its_size_does() -> None:
    """2**64 - 1 leaves are written, one more are not."""
    frontier = Frontier.from_bytes(b"\xff" * 8 + bytes(32 * 64))
    frontier.append(LEAVES[0])
    with pytest.raises(CodecError):
        frontier.to_bytes()


def test_a_copy_grows_on_its_own() -> None:
    frontier = grown(LEAVES[:5])
    twin = frontier.copy()
    twin.extend(LEAVES[5:9])
    assert (frontier.size, frontier.root()) == (5, tree_hash(0, 5))
    assert (twin.size, twin.root()) == (9, tree_hash(0, 9))
    frontier.append(LEAVES[5])
    assert (frontier.root(), twin.root()) == (tree_hash(0, 6), tree_hash(0, 9))


@pytest.mark.parametrize("leaf", [b"", bytes(31), bytes(33)])
def test_a_leaf_of_another_length_is_refused_whole(leaf: bytes) -> None:
    frontier = grown(LEAVES[:3])
    before = frontier.to_bytes()
    with pytest.raises(CodecError):
        frontier.append(leaf)
    with pytest.raises(CodecError):
        frontier.extend([LEAVES[3], leaf])
    assert frontier.to_bytes() == before


# ---- proofs ------------------------------------------------------------------------------------------------------

SIZES = range(71)


@pytest.mark.parametrize("tile_level", [1, 2, 3, 10])
def test_every_proof_of_small_trees(tile_level: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """For all sizes up to 70, with tiles of 2, 4, 8 and 1,024: the proofs are those of the definition, and hold."""
    set_tile_level(monkeypatch, tile_level)
    log = Log(SIZES[-1])
    for size in SIZES:
        for index in range(size):
            proof = log.inclusion(index, size)
            assert proof == audit_path(index, 0, size)
            verify_inclusion(LEAVES[index], index, size, proof, tree_hash(0, size))
        assert log.consistency(0, size) == []
        verify_consistency(0, size, [], EMPTY_ROOT, tree_hash(0, size))
        for old_size in range(1, size + 1):
            proof = log.consistency(old_size, size)
            assert proof == sub_proof(old_size, 0, size, True)
            verify_consistency(old_size, size, proof, tree_hash(0, old_size), tree_hash(0, size))


NEAR_TILES = st.one_of(
    st.integers(1, len(LEAVES)),
    st.builds(
        lambda tile, off: min(max(tile * TILE_LEAVES + off, 1), len(LEAVES)), st.integers(0, 5), st.integers(-2, 2)
    ),
)
WHOLE = Log(len(LEAVES))


@given(NEAR_TILES, NEAR_TILES)
def test_proofs_over_tiles(one: int, other: int) -> None:
    """The same with tiles as they are, and no proof reads more than two tiles of leaves."""
    old_size, size = sorted((one, other))
    WHOLE.leaves_read = 0
    proof = WHOLE.inclusion(old_size - 1, size)
    assert WHOLE.leaves_read <= 2 * TILE_LEAVES
    assert proof == audit_path(old_size - 1, 0, size)
    verify_inclusion(LEAVES[old_size - 1], old_size - 1, size, proof, tree_hash(0, size))
    WHOLE.leaves_read = 0
    proof = WHOLE.consistency(old_size, size)
    assert WHOLE.leaves_read <= 2 * TILE_LEAVES
    assert proof == sub_proof(old_size, 0, size, True)
    verify_consistency(old_size, size, proof, tree_hash(0, old_size), tree_hash(0, size))


@pytest.mark.parametrize("new_size", [*range(1, 34), 70])
def test_two_proofs_of_consistency_are_one(new_size: int) -> None:
    """For all sizes on the way: the joined proof is that of the definition."""
    for size in range(1, new_size + 1):
        second = sub_proof(size, 0, new_size, True)
        for old_size in range(1, size + 1):
            joined = joined_consistency(old_size, size, new_size, sub_proof(old_size, 0, size, True), second)
            assert joined == sub_proof(old_size, 0, new_size, True)
        assert joined_consistency(0, size, new_size, [], second) == []


@given(NEAR_TILES, NEAR_TILES, NEAR_TILES)
def test_proofs_are_joined_over_tiles(one: int, other: int, third: int) -> None:
    old_size, size, new_size = sorted((one, other, third))
    first, second = WHOLE.consistency(old_size, size), WHOLE.consistency(size, new_size)
    assert joined_consistency(old_size, size, new_size, first, second) == WHOLE.consistency(old_size, new_size)


@given(st.data(), st.integers(2, 70))
def test_what_is_joined_of_a_false_proof_is_false_or_says_nothing_false(data: st.DataObject, new_size: int) -> None:
    """Whatever a forged proof says: it is refused, or what comes of it does not hold, or is the true one."""
    size = data.draw(st.integers(1, new_size - 1))
    old_size = data.draw(st.integers(1, size))
    proofs = [SMALL.consistency(old_size, size), SMALL.consistency(size, new_size)]
    which = data.draw(st.integers(0, 1))
    proofs[which] = forged(data, proofs[which])
    try:
        joined = joined_consistency(old_size, size, new_size, *proofs)
        verify_consistency(
            old_size, size=new_size, proof=joined, old_root=tree_hash(0, old_size), root=tree_hash(0, new_size)
        )
    except PeerError:
        pass
    else:
        assert joined == SMALL.consistency(old_size, new_size)


@pytest.mark.parametrize(
    ("sizes", "lengths"), [((3, 2, 5), (0, 0)), ((2, 5, 4), (2, 0)), ((3, 5, 9), (0, 4)), ((3, 5, 9), (65, 4))]
)
def test_proofs_that_do_not_go_together(sizes: tuple[int, int, int], lengths: tuple[int, int]) -> None:
    with pytest.raises(PeerError):
        joined_consistency(*sizes, LEAVES[: lengths[0]], LEAVES[: lengths[1]])


@given(st.integers(1, 70), st.integers(0, 69))
def test_a_proof_of_inclusion_leads_to_the_root(size: int, index: int) -> None:
    proof = SMALL.inclusion(index % size, size)
    assert inclusion_root(LEAVES[index % size], index % size, size, proof) == tree_hash(0, size)


def forged(data: st.DataObject, proof: list[bytes]) -> list[bytes]:
    """A proof that differs: a bit, the order, one more, one less."""
    changed = list(proof)
    ways = ["more"]
    if proof:
        ways += ["bit", "less", "repeated"]
    if len(set(proof)) > 1:
        ways.append("order")
    way = data.draw(st.sampled_from(ways))
    at = data.draw(st.integers(0, max(len(proof) - 1, 0)))
    if way == "more":
        changed.insert(at, data.draw(st.sampled_from([bytes(32), EMPTY_ROOT, *proof])))
    elif way == "bit":
        changed[at] = flipped(changed[at], data.draw(st.integers(0, 255)))
    elif way == "less":
        del changed[at]
    elif way == "repeated":
        changed += proof
    else:
        changed = changed[1:] + changed[:1]
    return changed


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


SMALL = Log(SIZES[-1])


@given(st.data(), st.integers(1, 70))
def test_a_forged_proof_of_inclusion_is_refused(data: st.DataObject, size: int) -> None:
    index = data.draw(st.integers(0, size - 1))
    proof, root, bit = SMALL.inclusion(index, size), tree_hash(0, size), data.draw(st.integers(0, 255))
    forgeries = [
        (LEAVES[index], index, forged(data, proof), root),
        (flipped(LEAVES[index], bit), index, proof, root),
        (LEAVES[index], index, proof, flipped(root, bit)),
        (LEAVES[70], index, proof, root),
    ]
    if size > 1:  # the right leaf at another place, and another leaf with this proof
        other = data.draw(st.integers(0, size - 1).filter(lambda place: place != index))
        forgeries += [(LEAVES[index], other, proof, root), (LEAVES[other], index, proof, root)]
        # An inner node is not taken for a leaf: its tree is less high, but the sizes are signed.
        forgeries.append((root, index, [], root))
    for leaf, place, hashes, claimed in forgeries:
        with pytest.raises(PeerError) as refused:
            verify_inclusion(leaf, place, size, hashes, claimed)
        assert type(refused.value) is PeerError


@given(st.data(), st.integers(1, 70))
def test_a_forged_proof_of_consistency_is_refused(data: st.DataObject, size: int) -> None:
    old_size = data.draw(st.integers(0, size))
    proof, old_root, root = SMALL.consistency(old_size, size), tree_hash(0, old_size), tree_hash(0, size)
    bit = data.draw(st.integers(0, 255))
    forgeries = [
        (forged(data, proof), old_root, root),
        (proof, flipped(old_root, bit), root),
    ]
    if old_size:  # nothing is claimed of what follows an empty tree
        forgeries.append((proof, old_root, flipped(root, bit)))
    for hashes, before, after in forgeries:
        with pytest.raises(PeerError) as refused:
            verify_consistency(old_size, size, hashes, before, after)
        assert type(refused.value) is PeerError


@given(st.integers(1, 69), st.integers(0, 255))
def test_a_rewritten_past_has_no_proof(old_size: int, bit: int) -> None:
    """Of a log that changed one of its old leaves, no proof leads from the old root to the new one."""
    rewritten = [flipped(LEAVES[0], bit), *LEAVES[1:70]]

    def leaves(first: int, last: int) -> Sequence[bytes]:
        return rewritten[first:last]

    proof = consistency_proof(old_size, 70, leaves, leaves)
    with pytest.raises(PeerError):
        verify_consistency(old_size, 70, proof, tree_hash(0, old_size), grown(rewritten).root())


@pytest.mark.parametrize(("index", "size"), [(0, 0), (3, 3), (-1, 3), (0, -1), (0, 2**64), (2**80, 2**80 + 1)])
def test_leaves_that_are_not_there(index: int, size: int) -> None:
    with pytest.raises(PeerError):
        SMALL.inclusion(index, size)
    with pytest.raises(PeerError):
        verify_inclusion(LEAVES[0], index, size, [], LEAVES[0])


@pytest.mark.parametrize(("old_size", "size"), [(4, 3), (-1, 3), (-2, -1), (1, 2**64), (2**64, 2**64)])
def test_sizes_that_no_log_had(old_size: int, size: int) -> None:
    with pytest.raises(PeerError):
        SMALL.consistency(old_size, size)
    with pytest.raises(PeerError):
        verify_consistency(old_size, size, [], EMPTY_ROOT, EMPTY_ROOT)


def test_an_empty_tree_has_one_root() -> None:
    verify_consistency(0, 0, [], EMPTY_ROOT, EMPTY_ROOT)
    for old_root, root in ((LEAVES[0], EMPTY_ROOT), (EMPTY_ROOT, LEAVES[0]), (LEAVES[0], LEAVES[0])):
        with pytest.raises(PeerError):
            verify_consistency(0, 0, [], old_root, root)


def test_hashes_of_another_length_are_no_hashes() -> None:
    proof, old_root, root = SMALL.inclusion(2, 5), tree_hash(0, 3), tree_hash(0, 5)
    for leaf, hashes, claimed in (
        (LEAVES[2][:-1], proof, root),
        (LEAVES[2], proof, root + b"\0"),
        (LEAVES[2], [*proof[:-1], proof[-1][:-1]], root),
    ):
        with pytest.raises(CodecError):
            verify_inclusion(leaf, 2, 5, hashes, claimed)
    with pytest.raises(CodecError):
        verify_consistency(3, 5, SMALL.consistency(3, 5), old_root[:-1], root)


def test_a_log_with_a_gap_gives_no_proof() -> None:
    """What is asked of a store is counted, so that a lost row is not taken for a smaller tree."""

    def one_less(first: int, last: int) -> Sequence[bytes]:
        return LEAVES[first : last - 1]

    with pytest.raises(Corrupt):
        inclusion_proof(1, 5, one_less, WHOLE.tiles)
    with pytest.raises(Corrupt):
        consistency_proof(TILE_LEAVES, 2 * TILE_LEAVES, WHOLE.leaves, one_less)
