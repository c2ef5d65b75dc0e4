"""What an exchange with a peer has done, for who asked for it."""

from __future__ import annotations

from typing import NamedTuple

from tidewarp.federation.messages import Domain, DomainReport

__all__ = ["PullReport", "PushReport"]


class PullReport(NamedTuple):
    """What a pull has done: records committed, what was refused or forked, bytes of answers, wall seconds.

    ``forks`` are the domains (32 bytes) of those conflicts that are forks, one for each of these.

    ``domains`` has a line for each that was looked at, ``ignored`` counts the others. ``incomplete`` is empty, or says
    what ended the pull early; all commits are kept. ``answered``: has the peer said anything? ``absent`` counts artifacts
    that records here name and whose bytes no peer has given yet.
    """

    records: int
    conflicts: int
    bytes: int
    domains: tuple[DomainReport, ...]
    ignored: int
    incomplete: str
    answered: bool
    seconds: float
    absent: int = 0
    forks: tuple[Domain, ...] = ()

    @classmethod
    def nothing(cls) -> PullReport:
        """Of a pull that has not begun."""
        return cls(0, 0, 0, (), 0, "", False, 0.0)

    def followed_by(self, other: PullReport) -> PullReport:
        """Both, as one: what was done is added, and how things stand is what the later one says."""
        domains = {one.domain: one for one in self.domains}
        for one in other.domains:
            before = domains[one.domain].before if one.domain in domains else one.before
            domains[one.domain] = one._replace(before=before)
        return PullReport(
            self.records + other.records,
            self.conflicts + other.conflicts,
            self.bytes + other.bytes,
            tuple(domains.values()),
            other.ignored,
            other.incomplete,
            self.answered or other.answered,
            self.seconds + other.seconds,
            other.absent,
            (*self.forks, *other.forks),
        )


class PushReport(NamedTuple):
    """What a push has done: records that the peer has committed, what it refused or found forked, bytes sent, wall seconds.

    ``domains`` has a line for each that is here. ``incomplete`` is empty, or says what ended the push early; what the peer
    has committed stays. ``answered``: has the peer said anything? ``absent`` counts artifacts whose bytes it still lacks.
    """

    records: int
    conflicts: int
    bytes: int
    domains: tuple[DomainReport, ...]
    incomplete: str
    answered: bool
    seconds: float
    absent: int
