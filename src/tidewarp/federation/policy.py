"""The policy: whose records count, and for what. One document, equal on all members, in force by a POLICY record.

    {version, domains: {hex: {name, decision, roles, scope, until}}, edge_types, resolver, witnesses_min}

People write it as TOML, in which everything may be left out that has its default::

    version = 1
    resolver = "hall"                  # the name of a domain below, with the role "resolve"; default: nobody

    [edge_types]
    65536 = "latest"                   # default: "all"

    [domains.<64 hexadecimal digits>]
    name = "hall"
    decision = "accepted"              # or "limited", "deferred", "rejected"
    roles = ["produce", "resolve"]
    until = { audit = 120 }            # a role withdrawn: its records 1 to 120 still have it, what they say stands
    scope = { kinds = [2, 3], tags = [7, "untagged"] }    # of a limited domain; default: all kinds, all tags

What two texts say in different order or spacing is one document, with one hash. Everybody who holds it draws the line
of a withdrawn role at the same record, so it stands in the document and is not found anew on each site.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

from tidewarp.codec.artifacts import TAG_POLICY, Artifact
from tidewarp.codec.bodies import POLICY, PolicyBody
from tidewarp.codec.canonical import pack, unpack
from tidewarp.codec.references import Reference
from tidewarp.errors import CodecError, OperatorError, PolicyDenied
from tidewarp.federation.members import NEWCOMER_ROLES, READER, Member, changed_lines, check_member, quoted, read_member
from tidewarp.store.admission import EVERYTHING, Admission, Decision, Role, Standing
from tidewarp.store.contract import Journal

__all__ = ["NEWCOMER_ROLES", "Member", "Policy", "last_named", "to_be_pulled"]

_VERSION = 1
_DOMAINS_MAX = 65_536
_EDGE_TYPE_MAX = 0xFFFF_FFFF
_LATEST, _ALL = "latest", "all"
_PRINTED = "see how tidewarp peer policy prints it"
_COPY = "copy it from: tidewarp store digest DIR"


@dataclass(frozen=True)
class Policy:
    """A policy document.

    Args:
        members: by domain (32 bytes).
        latest: the types of edges of which a slot shows one edge.
        resolver: the one domain that picks the branch of a forked journal, or None.

    Raises:
        OperatorError: two domains of one name; a resolver without its role, or the role with somebody else; a bound for
            a role that the domain has; a scope of a domain that is not limited.
    """

    members: Mapping[bytes, Member] = field(default_factory=dict)
    latest: frozenset[int] = frozenset()
    resolver: bytes | None = None

    def __post_init__(self) -> None:
        members = dict(sorted(self.members.items()))
        if len(members) > _DOMAINS_MAX:
            raise OperatorError(f"{len(members)} domains", f"a policy has at most {_DOMAINS_MAX}", "leave some out")
        named: dict[str, bytes] = {}
        for domain, member in members.items():
            check_member(domain, member)
            if named.setdefault(member.name, domain) != domain:
                both = f"{named[member.name].hex()[:12]} and {domain.hex()[:12]}"
                raise OperatorError(f"name {member.name}", f"{both} have it, a name is one domain's", "rename one")
        for latest in self.latest:
            READER.number(latest, _EDGE_TYPE_MAX, "an edge type")
        self._check_resolver(members)
        object.__setattr__(self, "members", MappingProxyType(members))  # nobody changes it behind our back

    def _check_resolver(self, members: Mapping[bytes, Member]) -> None:
        having = [domain for domain, member in members.items() if Role.RESOLVE in member.standing.roles]
        if having == ([] if self.resolver is None else [self.resolver]):
            return
        said = "nobody" if self.resolver is None else _shown(self.resolver, members)
        names = ", ".join(_shown(domain, members) for domain in having) or "nobody"
        raise OperatorError(
            f"resolver {said}", f"the resolver and nobody else has the role resolve, here {names}", "name one domain"
        )

    # --- what it means

    @cached_property
    def hash(self) -> bytes:
        """SHA-256 of the document, 32 bytes: what members compare, and what a snapshot names."""
        return hashlib.sha256(self.to_bytes()).digest()

    def admission(self) -> Admission:
        """Whose records count under it. What is not named does not."""
        standings = {domain: member.standing for domain, member in self.members.items()}
        return Admission(standings, None, self.latest, self.resolver, self.hash)

    def taken(self) -> frozenset[bytes]:
        """The domains whose records are pulled and stored: all that are named, but for those rejected."""
        return frozenset(
            domain for domain, member in self.members.items() if member.standing.decision is not Decision.REJECTED
        )

    def may(self, domain: bytes, role: Role) -> bool:
        """Has the domain the role, for what it writes from now on?"""
        member = self.members.get(domain)
        return member is not None and member.standing.counts and role in member.standing.roles

    def trusting(self, domain: bytes, name: str, roles: Collection[Role], size: int) -> Policy:
        """The same policy, but with ``domain`` accepted under ``name``, with these roles and no others.

        ``size`` is how many records of it are here: they keep the roles that it had and has no more.

        Raises:
            OperatorError: as of any policy; the name is another domain's.
        """
        before = self.members.get(domain)
        until = {} if before is None else dict(before.standing.until)
        if before is not None:
            until |= dict.fromkeys(before.standing.roles, size)
        gone = {role: last for role, last in until.items() if role not in roles}
        standing = Standing(Decision.ACCEPTED, frozenset(roles), EVERYTHING, tuple(sorted(gone.items())))
        resolver = domain if Role.RESOLVE in roles else None if self.resolver == domain else self.resolver
        return replace(self, members={**self.members, domain: Member(name, standing)}, resolver=resolver)

    def changes(self, before: Policy | None) -> list[str]:
        """What it says that ``before`` did not, a line each, in the order of the domains; None: no policy."""
        was = Policy() if before is None else before
        lines = [] if before is not None else ["closed: domains that are not named count no more"]
        for domain in sorted({*was.members, *self.members}):
            lines += changed_lines(domain, was.members.get(domain), self.members.get(domain))
        for number in sorted(self.latest ^ was.latest):
            lines.append(f"edges of type {number} show {'the latest' if number in self.latest else 'all'} of a slot")
        if self.resolver != was.resolver:
            now = "nobody" if self.resolver is None else _shown(self.resolver, self.members)
            lines.append(f"resolver: {now}")
        return lines

    def check_withdrawals(self, before: Policy | None, sizes: Mapping[bytes, int]) -> None:
        """Raise OperatorError where a domain that ``before`` named lost a role and the text does not say from where on.

        ``sizes``: how many records of each domain are here, for what the error proposes. The bound has to stand in the
        text, which goes to other sites: found on each anew, it would differ.
        """
        for domain, member in self.members.items():
            was = before.members.get(domain) if before is not None else None
            if was is None:
                continue
            known = {*member.standing.roles, *dict(member.standing.until)}
            for role in sorted({*was.standing.roles, *dict(was.standing.until)} - known):
                last = dict(was.standing.until).get(role, sizes.get(domain, 0))
                raise OperatorError(
                    f"role {role} of {member.name}",
                    "it is withdrawn, and the text does not say which records keep it",
                    f"add until = {{ {role} = {last} }}: the records 1 to {last}; 0: none",
                )

    # --- its forms

    def to_bytes(self) -> bytes:
        """The canonical document."""
        return pack(
            {
                "version": _VERSION,
                "domains": {domain.hex(): member.document() for domain, member in self.members.items()},
                "edge_types": {str(number): _LATEST for number in self.latest},
                "resolver": None if self.resolver is None else self.resolver.hex(),
                "witnesses_min": 0,
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Policy:
        """The policy whose canonical document is ``data``.

        Raises:
            CodecError: not the one form of a policy.
        """
        try:
            policy = _policy_of(unpack(data))
        except OperatorError as error:
            raise CodecError(error.value, error.rule, error.action) from None
        if policy.to_bytes() != data:
            raise CodecError(f"policy of {len(data)} bytes", "a policy has one form", "send it as it was made")
        return policy

    def artifact(self) -> Artifact:
        """What a POLICY record names."""
        return Artifact(self.to_bytes(), TAG_POLICY)

    def to_toml(self) -> str:
        """The text that people edit; :meth:`from_toml` makes the same policy of it."""
        lines = [f"version = {_VERSION}"]
        if self.resolver is not None:
            lines.append(f"resolver = {quoted(self.members[self.resolver].name)}")
        if self.latest:
            lines += ["", "[edge_types]", *(f'{number} = "{_LATEST}"' for number in sorted(self.latest))]
        for domain, member in self.members.items():
            lines += ["", f"[domains.{domain.hex()}]", *member.lines()]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_toml(cls, text: str) -> Policy:
        """The policy that ``text`` says.

        Raises:
            OperatorError: no TOML, a key or a word that is not known (the nearest one is named), or a value that breaks its rule.
        """
        return _policy_of(_named_resolver(READER.toml(text, "policy")))


def last_named(journal: Journal, after: int = 0, before: Reference | None = None) -> Reference | None:
    """The policy document that the last POLICY record names, where ``before`` is that of the first ``after`` records."""
    last = before
    for record in journal.read(after, kinds={POLICY}):
        last = PolicyBody.from_bytes(record.body).ref
    return last


def to_be_pulled(policy: Policy | None, own: bytes, domains: Collection[bytes] | None) -> Collection[bytes] | None:
    """The domains that a pull may take: ``domains``, or all that the policy names and the own one. None: whatever is shown.

    Raises:
        PolicyDenied: the policy does not name one of ``domains``, or rejects it.
    """
    if policy is None:
        return domains
    taken = policy.taken() | {own}
    for domain in sorted(set(domains or ()) - taken):
        rule = "the policy in force here does not take it"
        raise PolicyDenied(f"domain {domain.hex()}", rule, "name it: tidewarp peer trust DIR NAME --key HEX")
    return taken if domains is None else domains


# --- reading


def _policy_of(document: object) -> Policy:
    """The policy of a document, of which what is left out has its default."""
    table = READER.table(document, "a policy", ("version", "domains", "edge_types", "resolver", "witnesses_min"))
    if table.get("version") != _VERSION or type(table["version"]) is not int:
        raise OperatorError(f"version {table.get('version')!r:.40}", f"this release knows version {_VERSION}", _PRINTED)
    if table.get("witnesses_min", 0) != 0:
        rule = "heads signed by witnesses are not checked by this release"
        raise OperatorError(f"witnesses_min {table['witnesses_min']!r:.40}", rule, "leave it out")
    members: dict[bytes, Member] = {}
    for text, member in READER.table(table.get("domains", {}), "domains").items():
        domain = READER.hash32(text, "domain", _COPY)
        members[domain] = read_member(member, f"domain {text[:12]}")
    latest = set()
    for text, shown in READER.table(table.get("edge_types", {}), "edge_types").items():
        if not text.isascii() or not text.isdigit() or str(int(text[:20])) != text:
            raise OperatorError(f"edge type {text!r:.40}", "it is a whole number", _PRINTED)
        if READER.word(shown, (_ALL, _LATEST), f"what edges of type {text} show") == _LATEST:
            latest.add(int(text))
    resolver = table.get("resolver")
    return Policy(members, frozenset(latest), None if resolver is None else READER.hash32(resolver, "domain", _COPY))


def _named_resolver(document: dict[str, Any]) -> dict[str, Any]:
    """The document of a text, in which the resolver is called by its name."""
    resolver, domains = document.get("resolver"), document.get("domains", {})
    if resolver is None or not isinstance(domains, dict):
        return document
    named = [(one.get("name"), domain) for domain, one in domains.items() if isinstance(one, dict)]
    names = {name: domain for name, domain in named if isinstance(name, str)}
    name = READER.word(resolver, names, "resolver")
    return {**document, "resolver": names[name]}


def _shown(domain: bytes, members: Mapping[bytes, Member]) -> str:
    return members[domain].name if domain in members else domain.hex()[:12]
