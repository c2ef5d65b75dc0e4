"""The ranks of an ``mpiexec``."""
from __future__ import annotations
from typing import Any
class Ranks:
    rank=0
    def share(self, value: Any) -> Any:
        """Rank 0's."""
        return value
def join_ranks() -> Ranks:
    """All."""
    return Ranks()
