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
    until = { audit = 120 }            # a role withdrawn: its records 1 to 120 still have it
    scope = { kinds = [2, 3], tags = [7, "untagged"] }    # of a limited domain; default: all kinds, all tags

What two texts say in different order or spacing is one document, with one hash. Everybody who holds it draws the line
of a withdrawn role at the same record, so it stands in the document and is not found anew on each site.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from tidewarp.codec.artifacts import TAG_POLICY, Artifact
from tidewarp.codec.bodies import POLICY, PolicyBody
from tidewarp.codec.canonical import pack, unpack
from tidewarp.codec.references import Reference
from tidewarp.errors import CodecError, OperatorError, PolicyDenied
from tidewarp.store.admission import EVERYTHING, Admission, Decision, Role, Scope, Standing
from tidewarp.store.contract import Journal

__all__ = ["NEWCOMER_ROLES", "Member", "Policy", "last_named", "to_be_pulled"]

NEWCOMER_ROLES = frozenset({Role.PRODUCE, Role.EXECUTE, Role.PUBLISH})
"""What a domain may do in a store that has no policy."""

_VERSION = 1
_DOMAINS_MAX = 65_536
_NAME_MAX = 64
_U8, _U32, _SEQ = 0xFF, 0xFFFF_FFFF, (1 << 63) - 1
_HEX = re.compile("[0-9a-f]{64}")
_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]*")
_LATEST, _ALL = "latest", "all"
_UNTAGGED = "untagged"
_ACTION = "see how tidewarp peer policy prints it"

Word = TypeVar("Word", bound=StrEnum)


class Member(NamedTuple):
    """A domain of a policy: what people call it, and how it stands."""

    name: str
    standing: Standing


@dataclass(frozen=True)
class Policy:
    """A policy document.

    Args:
        members: by domain (32 bytes).
        latest: the types of edges of which a slot shows one edge.
        resolver: the one domain that picks the branch of a forked journal, or None.

    Raises:
        OperatorError: two domains of one name; a resolver without its role, or the role with somebody else; a bound for
            a role that the domain has, or for that of the resolver; a scope of a domain that is not limited.
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
            _check_member(domain, member)
            if named.setdefault(member.name, domain) != domain:
                both = f"{named[member.name].hex()[:12]} and {domain.hex()[:12]}"
                raise OperatorError(f"name {member.name}", f"{both} have it, a name is one domain's", "rename one")
        for latest in self.latest:
            _check_number(latest, _U32, "an edge type")
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

    @property
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
        gone = {role: last for role, last in until.items() if role not in roles and role is not Role.RESOLVE}
        standing = Standing(Decision.ACCEPTED, frozenset(roles), EVERYTHING, tuple(sorted(gone.items())))
        resolver = domain if Role.RESOLVE in roles else None if self.resolver == domain else self.resolver
        return replace(self, members={**self.members, domain: Member(name, standing)}, resolver=resolver)

    def changes(self, before: Policy | None) -> list[str]:
        """What it says that ``before`` did not, a line each, in the order of the domains; None: no policy."""
        was = Policy() if before is None else before
        lines = [] if before is not None else ["closed: domains that are not named count no more"]
        for domain in sorted({*was.members, *self.members}):
            lines += _changed(domain, was.members.get(domain), self.members.get(domain))
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
            known = {*member.standing.roles, *dict(member.standing.until), Role.RESOLVE}
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
                "domains": {domain.hex(): _member_document(member) for domain, member in self.members.items()},
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
            lines.append(f"resolver = {_quoted(self.members[self.resolver].name)}")
        if self.latest:
            lines += ["", "[edge_types]", *(f'{number} = "{_LATEST}"' for number in sorted(self.latest))]
        for domain, member in self.members.items():
            lines += ["", f"[domains.{domain.hex()}]", *_member_lines(member)]
        return "\n".join(lines) + "\n"

    @classmethod
    def from_toml(cls, text: str) -> Policy:
        """The policy that ``text`` says.

        Raises:
            OperatorError: no TOML, a key or a word that is not known (the nearest one is named), or a value that breaks its rule.
        """
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise OperatorError("policy", f"no TOML: {error}", _ACTION) from None
        return _policy_of(_named_resolver(document))


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


# --- rules


def _check_member(domain: bytes, member: Member) -> None:
    name, standing = member
    if len(domain) != 32:
        raise OperatorError(f"{len(domain)} bytes", "a domain has 32", "give all of it")
    if len(name) > _NAME_MAX or not _NAME.fullmatch(name) or _HEX.fullmatch(name):
        rule = f"a name has at most {_NAME_MAX} letters, digits and ._-, and is no domain"
        raise OperatorError(f"name {name!r:.80}", rule, "choose another")
    if standing.scope != EVERYTHING and standing.decision is not Decision.LIMITED:
        raise OperatorError(f"scope of {name}", "only a limited domain has one", 'say decision = "limited"')
    for kind in standing.scope.kinds or ():
        _check_number(kind, _U8, "a kind of records")
    for tag in standing.scope.tags or ():
        if tag is not None:
            _check_number(tag, _U32, "a tag")
    for role, last in standing.until:
        _check_number(last, _SEQ, f"the bound of role {role} of {name}")
        if role in standing.roles:
            raise OperatorError(f"role {role} of {name}", "it is given and withdrawn", "leave one of the two out")
        if role is Role.RESOLVE:
            rule = "the resolver of now decides about all forks"
            raise OperatorError(f"until of {name}", rule, "leave resolve out; let the new resolver resolve again")


def _check_number(number: object, most: int, what: str) -> int:
    if type(number) is not int or not 0 <= number <= most:
        raise OperatorError(f"{what}: {number!r:.40}", f"it is a whole number from 0 to {most}", _ACTION)
    return number


# --- reading


def _policy_of(document: object) -> Policy:
    """The policy of a document, of which what is left out has its default."""
    table = _table(document, "a policy", ("version", "domains", "edge_types", "resolver", "witnesses_min"))
    if table.get("version") != _VERSION or type(table["version"]) is not int:
        raise OperatorError(f"version {table.get('version')!r:.40}", f"this release knows version {_VERSION}", _ACTION)
    if table.get("witnesses_min", 0) != 0:
        rule = "heads signed by witnesses are not checked by this release"
        raise OperatorError(f"witnesses_min {table['witnesses_min']!r:.40}", rule, "leave it out")
    members: dict[bytes, Member] = {}
    for text, member in _table(table.get("domains", {}), "domains").items():
        domain = _domain(text)
        members[domain] = _member_of(member, f"domain {text[:12]}")
    latest = set()
    for text, shown in _table(table.get("edge_types", {}), "edge_types").items():
        if not text.isascii() or not text.isdigit() or str(int(text[:20])) != text:
            raise OperatorError(f"edge type {text!r:.40}", "it is a whole number", _ACTION)
        if _word(shown, (_ALL, _LATEST), f"what edges of type {text} show") == _LATEST:
            latest.add(int(text))
    resolver = table.get("resolver")
    return Policy(members, frozenset(latest), None if resolver is None else _domain(resolver))


def _member_of(document: object, where: str) -> Member:
    table = _table(document, where, ("name", "decision", "roles", "scope", "until"))
    name = table.get("name")
    if type(name) is not str:
        raise OperatorError(f"{where}: name {name!r:.40}", "a domain has a name", 'say name = "…"')
    decision = _enum(table.get("decision", Decision.ACCEPTED), Decision, f"decision of {name!r:.80}")
    roles = frozenset(_enum(one, Role, f"role of {name!r:.80}") for one in _list(table.get("roles", []), "roles"))
    until = {
        _enum(role, Role, f"role of {name!r:.80}"): _check_number(last, _SEQ, f"the bound of role {role!r:.40}")
        for role, last in _table(table.get("until", {}), f"until of {name!r:.80}").items()
    }
    scope = _scope_of(table.get("scope", {}), f"scope of {name!r:.80}")
    return Member(name, Standing(decision, roles, scope, tuple(sorted(until.items()))))


def _scope_of(document: object, where: str) -> Scope:
    table = _table(document, where, ("kinds", "tags"))
    kinds, tags = table.get("kinds"), table.get("tags")
    return Scope(
        None if kinds is None else frozenset(_check_number(one, _U8, "a kind") for one in _list(kinds, "kinds")),
        None
        if tags is None
        else frozenset(
            None if one is None or one == _UNTAGGED else _check_number(one, _U32, "a tag")
            for one in _list(tags, "tags")
        ),
    )


def _named_resolver(document: dict[str, Any]) -> dict[str, Any]:
    """The document of a text, in which the resolver is called by its name."""
    resolver, domains = document.get("resolver"), document.get("domains", {})
    if resolver is None or not isinstance(domains, dict):
        return document
    names = {one.get("name"): domain for domain, one in domains.items() if isinstance(one, dict)}
    name = _word(resolver, [one for one in names if isinstance(one, str)], "resolver")
    return {**document, "resolver": names[name]}


def _table(value: object, what: str, known: Iterable[str] | None = None) -> dict[str, Any]:
    if type(value) is not dict:
        raise OperatorError(f"{what}: {value!r:.40}", "it is a table", _ACTION)
    for key in value if known is not None else ():
        _word(key, known or (), f"key of {what}")
    return value


def _list(value: object, what: str) -> list[Any]:
    if type(value) is not list or len(value) > _U8 + 1:
        raise OperatorError(f"{what}: {value!r:.40}", f"it is a list of at most {_U8 + 1}", _ACTION)
    return value


def _domain(text: object) -> bytes:
    if type(text) is not str or not _HEX.fullmatch(text):
        rule = "a domain has 64 lower-case hexadecimal digits"
        raise OperatorError(f"domain {text!r:.80}", rule, "copy it from: tidewarp store digest DIR")
    return bytes.fromhex(text)


def _enum(value: object, words: type[Word], what: str) -> Word:
    return words(_word(value, [str(word) for word in words], what))


def _word(value: object, known: Iterable[str], what: str) -> str:
    """``value``, if it is one of ``known``; the error names the nearest of these."""
    words = list(known)
    if isinstance(value, str) and value in words:
        return value
    near = get_close_matches(str(value)[:_NAME_MAX], words, n=1, cutoff=0)
    action = f"did you mean {near[0]}?" if near else "leave it out"
    raise OperatorError(f"{what}: {value!r:.80}", f"known are {', '.join(words[:16]) or 'none'}", action)


# --- writing


def _member_document(member: Member) -> dict[str, Any]:
    standing = member.standing
    kinds, tags = standing.scope
    return {
        "name": member.name,
        "decision": str(standing.decision),
        "roles": sorted(map(str, standing.roles)),
        "scope": {"kinds": None if kinds is None else sorted(kinds), "tags": None if tags is None else _in_order(tags)},
        "until": {str(role): last for role, last in standing.until},
    }


def _member_lines(member: Member) -> list[str]:
    standing = member.standing
    lines = [
        f"name = {_quoted(member.name)}",
        f"decision = {_quoted(standing.decision)}",
        f"roles = [{', '.join(map(_quoted, sorted(standing.roles)))}]",
    ]
    if standing.until:
        lines.append(f"until = {{ {', '.join(f'{role} = {last}' for role, last in standing.until)} }}")
    kinds, tags = standing.scope
    parts = [] if kinds is None else [f"kinds = [{', '.join(map(str, sorted(kinds)))}]"]
    if tags is not None:
        words = (_quoted(_UNTAGGED) if tag is None else str(tag) for tag in _in_order(tags))
        parts.append(f"tags = [{', '.join(words)}]")
    return lines + ([f"scope = {{ {', '.join(parts)} }}"] if parts else [])


def _in_order(tags: Collection[int | None]) -> list[int | None]:
    return sorted(tags, key=lambda tag: -1 if tag is None else tag)


def _quoted(text: str) -> str:
    return json.dumps(text)


def _shown(domain: bytes, members: Mapping[bytes, Member]) -> str:
    return members[domain].name if domain in members else domain.hex()[:12]


def _changed(domain: bytes, was: Member | None, now: Member | None) -> list[str]:
    if was == now:
        return []
    short = domain.hex()[:12]
    if now is None:
        return [f"{was.name if was else ''} ({short}): removed"]
    said = f"{now.standing.decision}, roles: {', '.join(sorted(now.standing.roles)) or 'none'}"
    kept = "".join(f", {role} up to record {last}" for role, last in now.standing.until)
    renamed = f", was called {was.name}" if was is not None and was.name != now.name else ""
    return [f"{now.name} ({short}): {said}{kept}{renamed}"]
