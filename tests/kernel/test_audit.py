"""The audit chain finds what was done to it; the verifier finds where two runs part."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tidewarp.codec import Digest
from tidewarp.errors import CheckpointRefused
from tidewarp.kernel.audit import AuditEntry, CheckpointAuditChain, ReplayVerifier
from tidewarp.kernel.node_checkpoints import Checkpoint


def made(number, **changes):
    given = {"neuron_state": np.arange(3.0) + number, "lfsr_state": number} | changes
    checkpoint = Checkpoint(number, number * 10, 0, **given)
    checkpoint.compute_checksum()
    return checkpoint


def chain_of(count):
    chain = CheckpointAuditChain()
    checkpoints = [made(number) for number in range(count)]
    return chain, checkpoints, [chain.append(checkpoint) for checkpoint in checkpoints]


def test_a_chain_verifies_and_its_hashes_are_full():
    """append returns the entry's SHA-256; length, chain and head agree."""
    chain, checkpoints, hashes = chain_of(4)
    assert chain.verify()
    assert chain.verify(checkpoints=checkpoints, head=chain.head())
    assert chain.length == len(chain.chain) == 4
    assert chain.head() == (4, hashes[-1])
    assert [len(h) for h in hashes] == [64] * 4
    assert chain.chain[2] == AuditEntry(2, checkpoints[2].checksum, hashes[2])
    assert CheckpointAuditChain().verify()


def test_an_entry_is_the_written_form():
    """Digest TWAUDIT1 over index, id, checksum and the hash before: others can check a chain without this code."""
    chain, checkpoints, hashes = chain_of(2)
    last = "0" * 64
    for index, checkpoint in enumerate(checkpoints):
        digest = Digest("TWAUDIT1")
        for part in (
            index.to_bytes(8, "big"),
            bytes([index] * (index > 0)),
            checkpoint.checksum.encode(),
            last.encode(),
        ):
            digest.add(part)
        last = digest.hexdigest()
    assert hashes[-1] == last == chain.head()[1]


def test_an_unhashed_or_altered_checkpoint_is_not_appended():
    """What has no checksum, or another one than its contents, proves nothing."""
    chain = CheckpointAuditChain()
    altered = made(1)
    altered.identity_deep = 9.0
    for checkpoint in (Checkpoint(0, 0, 0), altered):
        with pytest.raises(CheckpointRefused):
            chain.append(checkpoint)
    assert chain.length == 0


def test_truncation_is_found():
    """A chain without its last entries follows from its beginning, and still is not what was appended."""
    chain, _, _ = chain_of(5)
    del chain.chain[3:]
    assert not chain.verify()


@pytest.mark.parametrize(
    "alter",
    [
        lambda c: c.reverse(),
        lambda c: c.insert(0, c.pop()),
        lambda c: c.__setitem__(1, c[1]._replace(checkpoint_id=7)),
        lambda c: c.__setitem__(1, c[1]._replace(checksum="0" * 64)),
        lambda c: c.__setitem__(1, c[1]._replace(hash="0" * 64)),
        lambda c: c.append(c[-1]),
        lambda c: c.clear(),
    ],
)
def test_rewritten_entries_are_found(alter):
    """Reordering, rewritten ids, checksums and hashes, repeated and lost entries."""
    chain, _, _ = chain_of(4)
    alter(chain.chain)
    assert not chain.verify()


def test_a_chain_rewritten_from_the_start_is_found():
    """Its links follow from one another, but it does not end where the object, or an outside head, says."""
    chain, checkpoints, _ = chain_of(3)
    head = chain.head()
    forged, _, _ = chain_of(3)
    other = CheckpointAuditChain()
    for checkpoint in checkpoints[:2]:
        other.append(checkpoint)
    other.append(made(2, lfsr_state=99))
    chain.chain[:] = other.chain
    assert not chain.verify()
    assert other.verify()
    assert not other.verify(head=head)
    assert forged.verify(head=head)


def test_altered_contents_are_found():
    """Checkpoints are hashed anew: a kept checksum beside other contents does not help."""
    chain, checkpoints, _ = chain_of(3)
    changed = replace(checkpoints[1], lfsr_state=5)
    assert changed.checksum == checkpoints[1].checksum
    assert not chain.verify(checkpoints=[checkpoints[0], changed, checkpoints[2]])
    changed.compute_checksum()
    assert not chain.verify(checkpoints=[checkpoints[0], changed, checkpoints[2]])
    assert not chain.verify(checkpoints=checkpoints[:2])
    assert not chain.verify(checkpoints=checkpoints[::-1])


# --- replay ---------------------------------------------------------------------------------------


def recorded(run_a, run_b):
    verifier = ReplayVerifier()
    for checkpoint in run_a:
        verifier.record_run_a(checkpoint)
    for checkpoint in run_b:
        verifier.record_run_b(checkpoint)
    return verifier


def test_equal_runs_are_deterministic():
    """Equal contents at equal places."""
    verifier = recorded([made(0), made(1)], [made(0), made(1)])
    assert verifier.is_deterministic
    assert verifier.first_divergence_index is None
    assert verifier.first_divergence() is None
    assert verifier.compared_count == 2


def test_runs_of_unequal_length_are_not_deterministic():
    """They part where the shorter one ends."""
    verifier = recorded([made(0), made(1)], [made(0)])
    assert not verifier.is_deterministic
    assert verifier.first_divergence_index == 1
    assert verifier.first_divergence() == (1, 1, 0, 10, ("missing",))
    assert verifier.compared_count == 1


def test_nothing_recorded_proves_nothing():
    """An empty comparison is not a passed one."""
    assert not ReplayVerifier().is_deterministic
    assert ReplayVerifier().first_divergence_index is None


def test_checksums_are_computed_anew():
    """A wrong checksum of equal contents is no difference; a right-looking one of other contents hides none."""
    lying = made(1, identity_deep=2.0)
    lying.checksum = made(1).checksum
    assert not recorded([made(1)], [lying]).is_deterministic
    unhashed = Checkpoint(1, 10, 0, np.arange(3.0) + 1, lfsr_state=1)
    assert recorded([made(1)], [unhashed]).is_deterministic


def test_a_difference_is_named_by_id_node_time_and_fields():
    """The first one, with all its fields."""
    verifier = recorded([made(0), made(1), made(2)], [made(0), made(1, lfsr_state=9, lamport_time=4), made(3)])
    assert verifier.first_divergence() == (1, 1, 0, 10, ("lfsr_state", "lamport_time"))
    assert verifier.first_divergence_index == 1


def test_a_recorded_checkpoint_cannot_be_changed_afterwards():
    """The verifier keeps its own."""
    checkpoint = made(1)
    verifier = recorded([checkpoint], [made(1)])
    checkpoint.lfsr_state = 77
    assert verifier.is_deterministic
