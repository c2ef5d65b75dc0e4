"""Which domains have grown since somebody looked last: a few of the last vectors of signed sizes, each named by its hash.

A token is that name, so it is the same from one life of a server to the next. Whoever comes with one that is not kept any
more looks at all heads instead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from tidewarp.codec.frames import u64

__all__ = ["TOKENS_KEPT", "Changes"]

TOKENS_KEPT = 64


class Changes:
    """The vectors that were shown last. Threads may share it: of two that note at one time, one may be forgotten."""

    def __init__(self) -> None:
        self._kept: tuple[tuple[str, Mapping[bytes, int]], ...] = ()

    def note(self, sizes: Mapping[bytes, int]) -> str:
        """The token of a vector: by domain (32 bytes), how many records are signed."""
        rows = b"".join(domain + u64(size) for domain, size in sorted(sizes.items()))
        token = hashlib.sha256(rows).hexdigest()
        others = [one for one in self._kept if one[0] != token]
        self._kept = (*others[1 - TOKENS_KEPT :], (token, dict(sizes)))
        return token

    def since(self, token: str, sizes: Mapping[bytes, int]) -> list[bytes] | None:
        """The domains that ``sizes`` has at another size than the vector of ``token``; None: that one is not kept."""
        before = next((vector for name, vector in self._kept if name == token), None)
        if before is None:
            return None
        return sorted(domain for domain, size in sizes.items() if before.get(domain) != size)
