"""The Merkle tree of RFC 6962 over a journal: its frontier, its root, and the two kinds of proof.

A leaf is the hash of a record, as :func:`tidewarp.codec.records.record_hash` makes it; the RFC's ``00`` before a leaf
is in that already. Leaf i, counted from 0, is record i + 1. An inner node is SHA-256(``01`` | left | right), and the
root of no leaves is SHA-256 of nothing. The RFC splits a list at the greatest power of two below its length; the same
tree grows from the bottom up when the nodes of a level are paired from the left and one that is left over is its own
parent. Everything here is done in that way, so the prover and the verifier climb alike.

A **tile** is 1,024 leaves in a row, from a multiple of 1,024 on. The root of a full one never changes: it is stored
once, and a proof then hashes the leaf's tile, the last tile and the roots of all tiles, and not the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from typing import TypeAlias

from tidewarp.codec.frames import Reader, u64
from tidewarp.errors import CodecError, Corrupt, PeerError

__all__ = [
    "EMPTY_ROOT",
    "TILE_LEAVES",
    "Frontier",
    "Hashes",
    "consistency_proof",
    "inclusion_proof",
    "inclusion_root",
    "joined_consistency",
    "verify_consistency",
    "verify_inclusion",
]

TILE_LEVEL = 10
TILE_LEAVES = 1 << TILE_LEVEL
EMPTY_ROOT = sha256(b"").digest()

_SIZE_BITS = 64  # a size is a U64
_MAKE_AGAIN = "ask for the proof again, or ask another peer"

Hashes: TypeAlias = Callable[[int, int], Sequence[bytes]]
"""``hashes(first, last)``: those with index first ≤ i < last, in order; either all leaves, or all roots of full tiles."""


class Frontier:
    """What a growing tree has to keep: the roots of its perfect subtrees, one per bit that is set in its size.

    An append costs one hash on average. Bytes: ``size U64 | root 32``, the subtrees from the left, the greatest first.
    """

    __slots__ = ("_peaks", "size")

    def __init__(self) -> None:
        self.size = 0  # leaves
        # By level, that is log2 of the leaves below. Only those whose bit is set in the size count; an older one stays
        # until it is written over.
        self._peaks = [b""] * (_SIZE_BITS + 1)

    def append(self, leaf: bytes) -> bytes | None:
        """Add a leaf (32 bytes). Returns the root of the tile that it fills, if it does, for storing.

        Raises:
            CodecError: the leaf has another length.
        """
        if len(leaf) != 32:
            raise _no_hash(leaf)
        size, peaks, level, tile = self.size, self._peaks, 0, None
        self.size = size + 1
        while size & 1:
            leaf = sha256(b"\1" + peaks[level] + leaf).digest()
            size >>= 1
            level += 1
            if level == TILE_LEVEL:
                tile = leaf
        peaks[level] = leaf
        return tile

    def extend(self, leaves: Sequence[bytes]) -> list[bytes]:
        """Add many leaves as :meth:`append` adds one, sooner. Returns the roots of the tiles that they fill, in order.

        Raises:
            CodecError: a leaf has not 32 bytes; none was added.
        """
        _check_hashes(*leaves)
        # Level by level. ``place`` is the index, among all nodes of the level, of the first of those that are new.
        nodes, place, level, tiles = list(leaves), self.size, 0, []
        self.size += len(nodes)
        while nodes:
            if level == TILE_LEVEL:
                tiles = nodes[:]
            if place & 1:
                nodes.insert(0, self._peaks[level])
            if len(nodes) & 1:
                self._peaks[level] = nodes[-1]
            nodes = _pairs(nodes)
            place >>= 1
            level += 1
        return tiles

    def root(self) -> bytes:
        """The root of the tree so far."""
        root = None
        for level in _set_bits(self.size):
            root = self._peaks[level] if root is None else _parent(self._peaks[level], root)
        return EMPTY_ROOT if root is None else root

    def copy(self) -> Frontier:
        """One that grows on its own from here: to see what a root would become, or to undo."""
        twin = Frontier()
        twin.size, twin._peaks = self.size, self._peaks[:]
        return twin

    def to_bytes(self) -> bytes:
        """The bytes.

        Raises:
            CodecError: 2**64 leaves or more.
        """
        return u64(self.size) + b"".join(self._peaks[level] for level in reversed([*_set_bits(self.size)]))

    @classmethod
    def from_bytes(cls, data: bytes) -> Frontier:
        """The frontier whose bytes are ``data``.

        Raises:
            CodecError: not 8 bytes, and 32 for each bit that is set in them.
        """
        reader = Reader(data, "frontier")
        frontier = cls()
        frontier.size = reader.u64()
        for level in reversed([*_set_bits(frontier.size)]):
            frontier._peaks[level] = reader.hash32()
        reader.end()
        return frontier


def inclusion_proof(index: int, size: int, leaves: Hashes, tiles: Hashes) -> list[bytes]:
    """The proof that leaf ``index`` is in the tree of the first ``size`` leaves: PATH of RFC 6962, section 2.1.1.

    These are the siblings on the way from the leaf to the root, at most 64 hashes.

    Raises:
        PeerError: there is no such leaf in a tree of this size.
        Corrupt: ``leaves`` or ``tiles`` gave another number of hashes than was asked for.
    """
    _check_leaf(index, size)
    return _way_up(index, 0, size, leaves, tiles)[1]


def consistency_proof(old_size: int, size: int, leaves: Hashes, tiles: Hashes) -> list[bytes]:
    """The proof that the first ``old_size`` of ``size`` leaves are those of a tree seen before: PROOF, section 2.1.2.

    Empty if nothing was seen before, or nothing has come since.

    Raises:
        PeerError: the old size is above the size, or below 0.
        Corrupt: as :func:`inclusion_proof`.
    """
    _check_sizes(old_size, size)
    if old_size in (0, size):
        return []
    level = _level_of_last_peak(old_size)
    peak, siblings = _way_up(old_size - 1, level, size, leaves, tiles)
    return siblings if old_size == 1 << level else [peak, *siblings]


def joined_consistency(
    old_size: int, size: int, new_size: int, first: Sequence[bytes], second: Sequence[bytes]
) -> list[bytes]:
    """The proof from ``old_size`` to ``new_size`` leaves: of the ``first``, to ``size`` leaves, and the ``second``, on from these.

    So who holds a tree can vouch for each part of it by a later tree that he has never seen. Nothing is verified here: of
    false proofs comes a false one.

    Raises:
        PeerError: the sizes descend, or are not those of the proofs.
    """
    _check_sizes(old_size, size)
    _check_sizes(size, new_size)
    _check_length(first, _consistency_length(old_size, size), f"proof that {old_size} leaves became {size}")
    _check_length(second, _consistency_length(size, new_size), f"proof that {size} leaves became {new_size}")
    if not old_size:
        return []
    # From the root down, as the RFC has it: the last hash of a proof is beside the root's child that the proof goes on in.
    early, late, above = list(first), list(second), list[bytes]()
    while old_size != size != new_size:
        half = _split(new_size)
        if size <= half:
            above.append(late.pop())
            new_size = half
            continue
        early.pop()  # the other half: of the tree of ``size`` leaves, where the two proofs part here
        beside = late.pop()
        if old_size <= half:
            above.append(_end_of(size - half, new_size - half, late))
            return [*early, *reversed(above)]
        above.append(beside)
        old_size, size, new_size = old_size - half, size - half, new_size - half
    return [*(late if old_size == size else early), *reversed(above)]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Return if ``proof`` shows that ``leaf`` has ``index`` in the tree of ``size`` leaves that has this ``root``.

    Size and root are those of one signed head: trees of some sizes have paths of one form, so a path proves no size.

    Raises:
        PeerError: it does not show that.
        CodecError: the leaf, the root or an item of the proof has not 32 bytes.
    """
    _check_hashes(root)
    _check_root(inclusion_root(leaf, index, size, proof), root, f"proof of leaf {index} of {size}")


def inclusion_root(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> bytes:
    """The root that ``proof`` leads to: the tree of ``size`` leaves that has it, has ``leaf`` at ``index``.

    Raises:
        PeerError: no proof of this length leads anywhere.
        CodecError: the leaf or an item of the proof has not 32 bytes.
    """
    _check_leaf(index, size)
    _check_hashes(leaf, *proof)
    turns = _turns(index, size)
    _check_length(proof, len(turns), f"proof of leaf {index} of {size}")
    node = leaf
    for is_right, sibling in zip(turns, proof, strict=True):
        node = _parent(sibling, node) if is_right else _parent(node, sibling)
    return node


def verify_consistency(old_size: int, size: int, proof: Sequence[bytes], old_root: bytes, root: bytes) -> None:
    """Return if ``proof`` shows that the tree of ``old_root`` is what the tree of ``root`` was at ``old_size``.

    Raises:
        PeerError: it does not show that.
        CodecError: a root or an item of the proof has not 32 bytes.
    """
    _check_sizes(old_size, size)
    _check_hashes(old_root, root, *proof)
    what = f"proof that {old_size} leaves became {size}"
    if old_size in (0, size):
        _check_length(proof, 0, what)
        if not old_size:
            _check_root(old_root, EMPTY_ROOT, what)
        if old_size == size:
            _check_root(old_root, root, what)
        return
    # The smallest perfect subtree of the old tree is a node of both trees; above it, what stands to its left is in
    # both, and what stands to its right has come since.
    level = _level_of_last_peak(old_size)
    is_perfect = old_size == 1 << level  # then the old tree is that subtree, and its root need not be sent
    turns = _turns((old_size - 1) >> level, -(-size >> level))
    _check_length(proof, len(turns) + (not is_perfect), what)
    old = new = old_root if is_perfect else proof[0]
    for is_right, sibling in zip(turns, proof if is_perfect else proof[1:], strict=True):
        if is_right:
            old, new = _parent(sibling, old), _parent(sibling, new)
        else:
            new = _parent(new, sibling)
    _check_root(old, old_root, what)
    _check_root(new, root, what)


def _way_up(index: int, level: int, size: int, leaves: Hashes, tiles: Hashes) -> tuple[bytes, list[bytes]]:
    """The node at ``level`` above leaf ``index``, and its siblings from there to the root."""
    full, tile = size // TILE_LEAVES, index // TILE_LEAVES
    roots = _asked(tiles, 0, full, "tiles")
    if size % TILE_LEAVES:
        roots.append(_climb(_asked(leaves, full * TILE_LEAVES, size, "leaves"), 0, 0)[2])
    if level >= TILE_LEVEL:
        return _climb(roots, tile, level - TILE_LEVEL)[:2]
    first = tile * TILE_LEAVES
    node, below, _ = _climb(_asked(leaves, first, min(size, first + TILE_LEAVES), "leaves"), index - first, level)
    return node, below + _climb(roots, tile, 0)[1]


def _climb(nodes: list[bytes], index: int, level: int) -> tuple[bytes, list[bytes], bytes]:
    """Of the tree over ``nodes``: the node ``level`` levels above node ``index``, its siblings on the way, the root."""
    for _ in range(level):
        nodes = _level_above(nodes)
        index >>= 1
    start, siblings = nodes[index], []
    while len(nodes) > 1:
        if index ^ 1 < len(nodes):
            siblings.append(nodes[index ^ 1])
        nodes = _level_above(nodes)
        index >>= 1
    return start, siblings, nodes[0]


def _turns(index: int, width: int) -> list[bool]:
    """For each sibling that node ``index`` of a level of ``width`` nodes meets on its way up: is it the right one?"""
    turns = []
    while width > 1:
        if index ^ 1 < width:
            turns.append(bool(index & 1))
        index >>= 1
        width = (width + 1) >> 1
    return turns


def _split(size: int) -> int:
    """Where the RFC splits a list of so many leaves, two or more: the greatest power of two below."""
    return 1 << (size - 1).bit_length() - 1


def _end_of(size: int, new_size: int, proof: list[bytes]) -> bytes:
    """The root of a subtree of ``new_size`` leaves that is not the first, by the ``proof``, used up, that ``size`` are its beginning."""
    beside = proof.pop()
    if size == new_size:
        return beside
    half = _split(new_size)
    if size <= half:
        return _parent(_end_of(size, half, proof), beside)
    return _parent(beside, _end_of(size - half, new_size - half, proof))


def _consistency_length(old_size: int, size: int) -> int:
    if old_size in (0, size):
        return 0
    level = _level_of_last_peak(old_size)
    return len(_turns((old_size - 1) >> level, -(-size >> level))) + (old_size != 1 << level)


def _level_above(nodes: list[bytes]) -> list[bytes]:
    return _pairs(nodes) + nodes[-1:] if len(nodes) & 1 else _pairs(nodes)


def _pairs(nodes: list[bytes]) -> list[bytes]:
    # Written out, as in append: this runs for each record.
    each = iter(nodes)  # one that is left over has no pair, so not strict
    return [sha256(b"\1" + left + right).digest() for left, right in zip(each, each, strict=False)]


def _parent(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right).digest()


def _set_bits(size: int) -> Iterator[int]:
    return (level for level in range(size.bit_length()) if size >> level & 1)


def _level_of_last_peak(size: int) -> int:
    return (size & -size).bit_length() - 1


def _asked(hashes: Hashes, first: int, last: int, what: str) -> list[bytes]:
    if first == last:
        return []
    found = list(hashes(first, last))
    if len(found) != last - first:
        raise Corrupt(
            f"{what} {first} to {last - 1}",
            f"{last - first} hashes are stored there, {len(found)} were found",
            "check the store: tidewarp store fsck",
        )
    return found


def _check_leaf(index: int, size: int) -> None:
    if not 0 <= index < size or size >> _SIZE_BITS:
        raise PeerError(
            f"leaf {index} of {size}", "a tree of n leaves has leaves 0 to n - 1, and n is a U64", "ask for one"
        )


def _check_sizes(old_size: int, size: int) -> None:
    if not 0 <= old_size <= size or size >> _SIZE_BITS:
        raise PeerError(
            f"sizes {old_size} and {size}", "a tree only grows, and its size is a U64", "give the older first"
        )


def _check_length(proof: Sequence[bytes], length: int, what: str) -> None:
    if len(proof) != length:
        raise PeerError(what, f"it has {length} hashes, not {len(proof)}", _MAKE_AGAIN)


def _check_root(found: bytes, expected: bytes, what: str) -> None:
    if found != expected:
        raise PeerError(what, f"it leads to the root {found.hex()} and not to {expected.hex()}", _MAKE_AGAIN)


def _check_hashes(*hashes: bytes) -> None:
    if set(map(len, hashes)) - {32}:
        raise next(_no_hash(data) for data in hashes if len(data) != 32)


def _no_hash(data: bytes) -> CodecError:
    return CodecError(f"hash of {len(data)} bytes", "a hash of the tree has 32 bytes", "give SHA-256 hashes")
