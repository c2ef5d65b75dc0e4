"""Admission: whose records count, for what, and how edges that share a slot are shown. Pure.

What is visible is a function of the records and of one of these values. The federation layer makes it from the
policy document that the members share; a store without a policy record is :data:`OPEN`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple

from tidewarp.codec.bodies import (
    DOMAIN,
    ArtifactBody,
    Body,
    EdgeBody,
    LiftBody,
    PointerBody,
    ReceiptBody,
    ResolveBody,
    TombstoneBody,
    VerdictBody,
)
from tidewarp.codec.snapshots import NO_POLICY
from tidewarp.errors import OperatorError

__all__ = ["EVERYTHING", "OPEN", "Admission", "Decision", "Role", "Scope", "Standing", "role_for"]


class Decision(StrEnum):
    """What a policy says of a domain."""

    ACCEPTED = "accepted"
    LIMITED = "limited"
    """Only the kinds and tags in its scope count."""
    DEFERRED = "deferred"
    """Stored and relayed; nothing of it counts."""
    REJECTED = "rejected"


class Role(StrEnum):
    """What records of a domain may bring about, beside acting on its own adds."""

    PRODUCE = "produce"
    """Artifacts, edges and pointers."""
    EXECUTE = "execute"
    """Receipts."""
    PUBLISH = "publish"
    FEDERATE = "federate"
    AUDIT = "audit"
    """Verdicts."""
    CURATE = "curate"
    """Tombstones, and lifts of tombstones, that act on adds of other domains."""
    RESOLVE = "resolve"


def role_for(body: Body) -> Role | None:
    """The role without which a record with this body brings nothing about; None: it takes none."""
    match body:
        case ArtifactBody() | EdgeBody() | PointerBody():
            return Role.PRODUCE
        case ReceiptBody():
            return Role.EXECUTE
        case TombstoneBody(scope=scope) | LiftBody(scope=scope):
            return None if scope == DOMAIN else Role.CURATE
        case VerdictBody():
            return Role.AUDIT
        case ResolveBody():
            return Role.RESOLVE
    return None


class Scope(NamedTuple):
    """What counts of a limited domain. None: all kinds, or all tags; None among the tags: untagged artifacts.

    ``kinds`` are kinds of records. ``tags`` are asked of artifact records alone.
    """

    kinds: frozenset[int] | None = None
    tags: frozenset[int | None] | None = None


EVERYTHING = Scope()


class Standing(NamedTuple):
    """How a domain stands under a policy. The scope is read where the decision is ``limited``.

    ``until``: roles that were withdrawn, each with the last record (sequence number) of the domain that still has it.
    """

    decision: Decision
    roles: frozenset[Role]
    scope: Scope = EVERYTHING
    until: tuple[tuple[Role, int], ...] = ()

    @property
    def counts(self) -> bool:
        """Whether anything of the domain counts."""
        return self.decision in (Decision.ACCEPTED, Decision.LIMITED)

    def roles_at(self, seq: int) -> frozenset[Role]:
        """The roles that the record with this sequence number has."""
        if not self.until:
            return self.roles
        return self.roles.union([role for role, last in self.until if seq <= last])

    def lacks(self, seq: int, body: Body) -> Role | None:
        """The role that the record with this number and body takes and does not have; None: it has what it takes."""
        needed = role_for(body)
        return None if needed is None or needed in self.roles_at(seq) else needed

    def admits(self, body: Body) -> bool:
        """Whether a record of the domain with this body counts, as far as decision and scope go."""
        if self.decision is not Decision.LIMITED:
            return self.counts
        kinds, tags = self.scope
        if kinds is not None and body.kind not in kinds:
            return False
        return tags is None or not isinstance(body, ArtifactBody) or body.tag in tags


@dataclass(frozen=True)
class Admission:
    """A policy in force. Two stores agree on a state only under equal values.

    Args:
        domains: standing by domain (32 bytes).
        others: the standing of domains that are not named, or None where these do not count.
        latest: the types of edges of which a slot shows the greatest in merge order; other types show all.
        resolver: the one domain (32 bytes) whose RESOLVE records pick the branch of a forked journal, or None. What former
            resolvers picked stands, up to the record at which the role was withdrawn, unless the resolver picks another.
        policy_hash: SHA-256 of the policy document; 32 zero bytes before the first.

    Raises:
        OperatorError: a domain or a hash without 32 bytes.
    """

    domains: Mapping[bytes, Standing] = field(default_factory=dict)
    others: Standing | None = None
    latest: frozenset[int] = frozenset()
    resolver: bytes | None = None
    policy_hash: bytes = NO_POLICY

    def __post_init__(self) -> None:
        for name in (*self.domains, self.policy_hash, *([] if self.resolver is None else [self.resolver])):
            if len(name) != 32:
                raise OperatorError(
                    f"{len(name)} bytes {name[:16].hex()}", "a domain and a policy hash have 32", "give the whole hash"
                )
        object.__setattr__(self, "domains", MappingProxyType(dict(self.domains)))  # nobody changes it behind our back

    @cached_property
    def former_resolvers(self) -> Mapping[bytes, int]:
        """The domains that had the role, ascending, each with the last record (sequence number) that still has it."""
        bounds = ((domain, dict(standing.until).get(Role.RESOLVE, 0)) for domain, standing in self.domains.items())
        return MappingProxyType(dict(sorted((domain, last) for domain, last in bounds if last)))

    def standing(self, domain: bytes) -> Standing | None:
        """How the domain stands; None where nothing of it counts."""
        standing = self.domains.get(domain, self.others)
        return standing if standing is not None and standing.counts else None

    def objection(self, domain: bytes, seq: int, body: Body | None) -> str | None:
        """Why the record ``seq`` of ``domain`` has no effect, in a few words; None: the admission does not stand against it.

        ``body`` is what it says; of one that is not here, or says nothing to a store (None), the domain alone is judged.
        """
        standing = self.standing(domain)
        if standing is None:
            return "nothing of its domain counts"
        if body is None:
            return None
        if not standing.admits(body):
            return "outside of the scope of its domain"
        lacking = standing.lacks(seq, body)
        return None if lacking is None else f"without the role {lacking}"


OPEN = Admission(others=Standing(Decision.ACCEPTED, frozenset({Role.PRODUCE, Role.EXECUTE, Role.PUBLISH})))
"""In force before the first policy record: every domain that somebody pulled counts."""
