"""Exchange of journals between sites until equal vectors of heads give equal state.

    draft       names of the published draft
    replay      the state that a collection of records comes to, at a snapshot; evidence that a domain has forked
    pull        one pull from one peer, as a state machine: search (where journals part), verify (what a peer sent), messages
    proof       the proof of a fork, which anybody can check
    push        one push to one peer: parcel (its form); receive: takes it as a pull would
    refused     what a peer says where it does not do what it was asked for; faults: what a site says of its own damage
    peer        what a node answers to its peers: documents (its JSON), answers (its records), changes, encoding, exposition, rates
    exchange    performs a pull over a store: contract (what it needs of one), ledger (what is remembered of peers)
    policy      whose records count; peers: what is a site's own affair
    conflicts   what cannot all be true, and who may choose
    exports     receipts in the words of others; bundle: in one file
    shell       HTTP: threads, sockets, keys and files

Pure but for the shell: records come in as values, and what to do about them goes out.
"""

from __future__ import annotations

from tidewarp.federation.draft import ApplyArtifact, ApplyTGKEdge, ApplyTombstone, ArtifactKey, SnapshotID
from tidewarp.federation.replay import FederationReplay, ForkEvidence, SnapshotRange, fork_evidence

__all__ = [
    "ApplyArtifact",
    "ApplyTGKEdge",
    "ApplyTombstone",
    "ArtifactKey",
    "FederationReplay",
    "ForkEvidence",
    "SnapshotID",
    "SnapshotRange",
    "fork_evidence",
]
