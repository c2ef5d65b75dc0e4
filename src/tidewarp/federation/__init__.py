"""Exchange of journals between sites until equal vectors of heads give equal state.

    replay      the state that a collection of records comes to, at a snapshot; evidence that a domain has forked
    pull        one pull from one peer, as a state machine: search (where journals part), verify (what a peer sent), messages
    proof       the proof of a fork, which anybody can check
    peer        what a node answers to its peers: documents (its JSON), rates
    exchange    performs a pull over a store: contract (what it needs of one), ledger (what is remembered of peers)
    policy      whose records count; peers: what is a site's own affair
    conflicts   what cannot all be true, and who may choose
    exports     receipts in the words of others; bundle: in one file
    shell       HTTP: threads, sockets, keys and files

Pure but for the shell: records come in as values, and what to do about them goes out.
"""

from __future__ import annotations

from tidewarp.federation.replay import FederationReplay, ForkEvidence, SnapshotRange, fork_evidence

__all__ = ["FederationReplay", "ForkEvidence", "SnapshotRange", "fork_evidence"]
