"""An engine that one rank runs for all: rank 0 executes, the others hear what came of it."""

from __future__ import annotations

from tidewarp.errors import TidewarpError
from tidewarp.kernel.contract import Kernel, Statistics
from tidewarp.kernel.lp import form_of_lp
from tidewarp.kernel.model import Model
from tidewarp.kernel.records import Event, Image, framed, split_frames
from tidewarp.kernel.shell.mpi.tallies import numbers, total
from tidewarp.kernel.shell.mpi.world import Ranks, aborting
from tidewarp.kernel.shell.watchdog import Block, blocks_of
from tidewarp.kernel.trace import Ledger

__all__ = ["AloneKernel"]


class AloneKernel:
    """Rank 0's ``inner`` engine as that of all ranks. See :class:`~tidewarp.kernel.contract.Kernel`."""

    def __init__(self, model: Model, ledger: Ledger, ranks: Ranks, inner: Kernel | None) -> None:
        self.gvt = 0
        self._model = model
        self._ledger = ledger
        self._ranks = ranks
        self._inner = inner
        self._counts = Statistics()

    @property
    def blocks(self) -> list[Block]:
        """What the watchdog of rank 0 looks at."""
        return blocks_of(self._inner)

    def advance(self, until: int, safe: int) -> None:
        """Wait for rank 0, and raise what it raises."""
        self._ledger.held = False
        error: TidewarpError | None = None
        with aborting(self._ranks):
            if self._inner is not None:
                try:
                    self._inner.advance(until, safe)
                except TidewarpError as caught:
                    error = caught
            position = self._ranks.share(self._ledger.position())
            if self._inner is None:
                self._ledger.follow(*position)
            self.gvt = self._ranks.share(self._inner.gvt if self._inner is not None else 0)
            own = numbers(self._inner.statistics() if self._inner is not None else Statistics())
            self._counts = total([self._ranks.share(own)], len(self._model.classes))
            self._ranks.raise_any(error)

    def inject(self, event: Event) -> None:
        """Add an external event; every rank is given it."""
        if self._inner is not None:
            self._inner.inject(event)

    def image(self) -> Image:
        """The state on rank 0, on every rank."""
        *rows, pending = (bytes(part) for part in split_frames(self._ranks.first(self._image)))
        return Image(tuple(rows), pending)

    def _image(self) -> bytes:
        assert self._inner is not None
        image = self._inner.image()
        return framed((*image.rows, image.pending))

    def state(self, lp: int) -> dict[str, object]:
        """The fields of one LP on rank 0, on every rank."""
        form = form_of_lp(self._model.class_of(lp))

        def packed() -> bytes:
            assert self._inner is not None
            return form.pack(list(self._inner.state(lp).values()), self._model.path(lp))

        return dict(zip(form.names, form.unpack(self._ranks.first(packed)), strict=True))

    def statistics(self) -> Statistics:
        """Those of rank 0, as of the end of the last ``advance``."""
        return self._counts

    def stalls(self) -> list[str]:
        """What holds rank 0; the others only know that they wait."""
        return [] if self._inner is None else self._inner.stalls()

    def close(self) -> None:
        """Close the engine."""
        if self._inner is not None:
            self._inner.close()
