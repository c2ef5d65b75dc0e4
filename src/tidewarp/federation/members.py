"""The members of a policy: what people call a domain, how it stands, and the forms in which that is written."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any, NamedTuple

from tidewarp.errors import OperatorError
from tidewarp.federation.reading import HEX, StrictReader
from tidewarp.store.admission import EVERYTHING, Decision, Role, Scope, Standing

__all__ = ["NEWCOMER_ROLES", "READER", "Member", "changed_lines", "check_member", "quoted", "read_member"]

NEWCOMER_ROLES = frozenset({Role.PRODUCE, Role.EXECUTE, Role.PUBLISH})
"""What a domain may do in a store that has no policy."""

READER = StrictReader("see how tidewarp peer policy prints it")
_NAME_MAX = 64
_U8, _U32, _SEQ = 0xFF, 0xFFFF_FFFF, (1 << 63) - 1
_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9._-]*")
_UNTAGGED = "untagged"


class Member(NamedTuple):
    """A domain of a policy: what people call it, and how it stands."""

    name: str
    standing: Standing

    def document(self) -> dict[str, Any]:
        """Its part of the canonical document."""
        standing = self.standing
        kinds, tags = standing.scope
        return {
            "name": self.name,
            "decision": str(standing.decision),
            "roles": sorted(map(str, standing.roles)),
            "scope": {
                "kinds": None if kinds is None else sorted(kinds),
                "tags": None if tags is None else _in_order(tags),
            },
            "until": {str(role): last for role, last in standing.until},
        }

    def lines(self) -> list[str]:
        """Its part of the text, behind the line of its domain."""
        standing = self.standing
        lines = [
            f"name = {quoted(self.name)}",
            f"decision = {quoted(standing.decision)}",
            f"roles = [{', '.join(map(quoted, sorted(standing.roles)))}]",
        ]
        if standing.until:
            lines.append(f"until = {{ {', '.join(f'{role} = {last}' for role, last in standing.until)} }}")
        kinds, tags = standing.scope
        parts = [] if kinds is None else [f"kinds = [{', '.join(map(str, sorted(kinds)))}]"]
        if tags is not None:
            words = (quoted(_UNTAGGED) if tag is None else str(tag) for tag in _in_order(tags))
            parts.append(f"tags = [{', '.join(words)}]")
        return lines + ([f"scope = {{ {', '.join(parts)} }}"] if parts else [])


def check_member(domain: bytes, member: Member) -> None:
    """Raise OperatorError unless the domain (32 bytes) may be this member."""
    name, standing = member
    if len(domain) != 32:
        raise OperatorError(f"{len(domain)} bytes", "a domain has 32", "give all of it")
    if len(name) > _NAME_MAX or not _NAME.fullmatch(name) or HEX.fullmatch(name):
        rule = f"a name has at most {_NAME_MAX} letters, digits and ._-, and is no domain"
        raise OperatorError(f"name {name!r:.80}", rule, "choose another")
    if standing.scope != EVERYTHING and standing.decision is not Decision.LIMITED:
        raise OperatorError(f"scope of {name}", "only a limited domain has one", 'say decision = "limited"')
    for kind in standing.scope.kinds or ():
        READER.number(kind, _U8, "a kind of records")
    for tag in standing.scope.tags or ():
        if tag is not None:
            READER.number(tag, _U32, "a tag")
    for role, last in standing.until:
        READER.number(last, _SEQ, f"the bound of role {role} of {name}")
        if role in standing.roles:
            raise OperatorError(f"role {role} of {name}", "it is given and withdrawn", "leave one of the two out")


def read_member(document: object, where: str) -> Member:
    """The member that a part of a document or of a text says; ``where`` names it. Raises OperatorError."""
    table = READER.table(document, where, ("name", "decision", "roles", "scope", "until"))
    name = table.get("name")
    if type(name) is not str:
        raise OperatorError(f"{where}: name {name!r:.40}", "a domain has a name", 'say name = "…"')
    decision = READER.enum(table.get("decision", Decision.ACCEPTED), Decision, f"decision of {name!r:.80}")
    roles = frozenset(
        READER.enum(one, Role, f"role of {name!r:.80}") for one in READER.sequence(table.get("roles", []), "roles")
    )
    until = {
        READER.enum(role, Role, f"role of {name!r:.80}"): READER.number(last, _SEQ, f"the bound of role {role!r:.40}")
        for role, last in READER.table(table.get("until", {}), f"until of {name!r:.80}").items()
    }
    scope = _scope_of(table.get("scope", {}), f"scope of {name!r:.80}")
    return Member(name, Standing(decision, roles, scope, tuple(sorted(until.items()))))


def _scope_of(document: object, where: str) -> Scope:
    table = READER.table(document, where, ("kinds", "tags"))
    kinds, tags = table.get("kinds"), table.get("tags")
    return Scope(
        None
        if kinds is None
        else frozenset(READER.number(one, _U8, "a kind") for one in READER.sequence(kinds, "kinds")),
        None
        if tags is None
        else frozenset(
            None if one is None or one == _UNTAGGED else READER.number(one, _U32, "a tag")
            for one in READER.sequence(tags, "tags")
        ),
    )


def changed_lines(domain: bytes, was: Member | None, now: Member | None) -> list[str]:
    """What is said of a domain now that was not before, in a line if there is anything."""
    if was == now:
        return []
    short = domain.hex()[:12]
    if now is None:
        return [f"{was.name if was else ''} ({short}): removed"]
    said = f"{now.standing.decision}, roles: {', '.join(sorted(now.standing.roles)) or 'none'}"
    kept = "".join(f", {role} up to record {last}" for role, last in now.standing.until)
    renamed = f", was called {was.name}" if was is not None and was.name != now.name else ""
    return [f"{now.name} ({short}): {said}{kept}{renamed}"]


def quoted(text: str) -> str:
    """As TOML has it."""
    return json.dumps(text)


def _in_order(tags: Collection[int | None]) -> list[int | None]:
    return sorted(tags, key=lambda tag: -1 if tag is None else tag)
