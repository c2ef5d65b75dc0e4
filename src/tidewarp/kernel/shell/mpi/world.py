"""The ranks: who is there, the same bytes on all of them, one error for all of them.

Every rank runs the same program and makes the same calls in the same order; nothing here pickles.
"""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from tidewarp import errors
from tidewarp.codec import pack, unpack
from tidewarp.errors import InternalError, MissingExtra, RankMismatch, TidewarpError
from tidewarp.kernel.model import Model
from tidewarp.kernel.options import Options

if TYPE_CHECKING:
    from mpi4py import MPI

__all__ = ["Ranks", "aborting", "can_lose_ranks", "hello", "is_loss", "join_ranks", "named_error", "rebuilt_error"]

_FAULT_TOLERANT = "OMPI_MCA_mpi_ft_enable"
"""What Open MPI's ``mpiexec --with-ft ulfm`` tells its ranks."""


class _Inquiry:
    """Looks for messages; what MPI needs for that is made once, since most looks find nothing."""

    def __init__(self, comm: MPI.Intracomm) -> None:
        from mpi4py import MPI

        self._probe, self._any, self._status, self._bytes = comm.Improbe, MPI.ANY_SOURCE, MPI.Status(), MPI.BYTE

    def take(self, tag: int) -> tuple[int, bytearray] | None:
        """The next message with this tag, and the rank that it is from; None: there is none."""
        message = self._probe(self._any, tag, self._status)
        if message is None:
            return None
        data = bytearray(self._status.Get_count(self._bytes))
        source = self._status.Get_source()
        message.Recv([data, self._bytes])
        return source, data


class Ranks:
    """A communicator of our own; ``rank`` is 0 to ``size`` - 1."""

    def __init__(self, comm: MPI.Intracomm) -> None:
        self._left: list[Any] = []  # what MPI may still read or write for a communicator that has lost a rank
        self._join(comm)

    def _join(self, comm: MPI.Intracomm) -> None:
        self.comm = comm
        self.rank: int = comm.Get_rank()
        self.size: int = comm.Get_size()
        self.inquiry = _Inquiry(comm)
        self.sent = self.received = 0  # messages to and from single ranks, of all runs
        self.unfinished: list[Any] = []  # requests of the last run, whose memory MPI may still read or write

    def shrink(self) -> None:
        """Go on without the ranks that have died: those left are numbered anew, in the same order. Each of them calls this."""
        self._left.append((self.comm, self.unfinished))
        self._join(self.comm.Shrink())  # type: ignore[arg-type]  # of an Intracomm it is one

    def agree(self, well: bool) -> bool:
        """Whether all ranks say that it went well, and none has died; all get the same answer, whoever dies meanwhile."""
        try:
            return bool(self.comm.Agree(int(well)))
        except Exception as error:
            if is_loss(error):
                return False
            raise

    def gather(self, data: bytes) -> list[bytes]:
        """What each rank gave, on every rank; blocks until all have."""
        sizes = np.zeros(self.size, np.int64)
        self.comm.Allgather(np.array([len(data)], np.int64), sizes)
        whole = np.zeros(int(sizes.sum()), np.uint8)
        self.comm.Allgatherv(np.frombuffer(data, np.uint8), [whole, sizes.tolist()])
        ends = np.cumsum(sizes).tolist()
        return [whole[end - size : end].tobytes() for size, end in zip(sizes.tolist(), ends, strict=True)]

    def total(self, numbers: Sequence[int]) -> list[int]:
        """The sums over all ranks of int64 numbers."""
        sums = np.zeros(len(numbers), np.int64)
        self.comm.Allreduce(np.array(numbers, np.int64), sums)
        return [int(n) for n in sums]

    def share_bytes(self, data: bytes, root: int = 0) -> bytes:
        """The bytes of rank ``root`` on every rank."""
        size = np.array([len(data)], np.int64)
        self.comm.Bcast(size, root)
        whole = np.frombuffer(data, np.uint8).copy() if self.rank == root else np.zeros(int(size[0]), np.uint8)
        self.comm.Bcast(whole, root)
        return whole.tobytes()

    def share(self, value: Any) -> Any:
        """Rank 0's value on every rank: what the codec knows, ints of 64 bits."""
        return unpack(self.share_bytes(pack(value) if self.rank == 0 else b""))

    def first(self, make: Callable[[], bytes]) -> bytes:
        """What ``make`` gives on rank 0, which alone calls it; every rank raises its error.

        Raises:
            TidewarpError: what ``make`` raised on rank 0.
        """
        data, error = b"", None
        if self.rank == 0:
            try:
                data = make()
            except TidewarpError as caught:
                error = caught
        self.raise_any(error)
        return self.share_bytes(data)

    def raise_any(self, error: TidewarpError | None) -> None:
        """Raise on every rank what any of them has to raise: that of the lowest rank.

        Raises:
            TidewarpError: there is one.
        """
        found = self.gather(b"" if error is None else named_error(error))
        first = next((data for data in found if data), None)
        if first is not None:
            raise (error if error is not None and named_error(error) == first else rebuilt_error(first))


@cache
def join_ranks() -> Ranks:
    """The ranks that this process was started with; alone, one rank. Initialises MPI at the first call.

    Raises:
        MissingExtra: mpi4py, or the library that it loads, is not installed.
    """
    try:
        import mpi4py

        mpi4py.rc.thread_level = "funneled"
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise MissingExtra(
            "transport='mpi'", f"it needs mpi4py and an MPI library ({error})", "pip install 'tidewarp[mpi]'"
        ) from error
    return Ranks(MPI.COMM_WORLD.Dup())


def hello(ranks: Ranks, model: Model, options: Options, layout: str) -> list[str]:
    """Compare what every rank is about to run, ``layout`` being the form of messages; returns the host of each rank.

    Raises:
        RankMismatch: on every rank; it names the first rank that differs from rank 0, and the field.
    """
    mine = _description(model, options, layout)
    told = [unpack(data) for data in ranks.gather(pack({**mine, "host": socket.gethostname()}))]
    for rank, other in enumerate(told):
        for name in mine:
            if other.get(name) != told[0].get(name):
                raise RankMismatch(
                    f"rank {rank} on {other.get('host')}: {name} {_shown(other.get(name))}, on rank 0 {_shown(told[0].get(name))}",
                    "all ranks run one model with the same options and release",
                    "start them with one mpiexec, and install the same release everywhere",
                )
    return [other["host"] for other in told]


def _description(model: Model, options: Options, layout: str) -> Mapping[str, str]:
    return {
        "tidewarp": metadata.version("tidewarp"),
        "model": model.digest(),
        "seed": str(model.seed),
        "byte order": sys.byteorder,
        "layout": layout,
        **{f"option {field.name}": repr(getattr(options, field.name)) for field in fields(options)},
    }


def _shown(text: Any) -> str:
    return text if isinstance(text, str) and len(text) <= 80 else f"{str(text)[:80]}…"


def named_error(error: TidewarpError) -> bytes:
    """An error as bytes: the name of its class and its three strings."""
    return pack([type(error).__name__, error.value, error.rule, error.action])


def rebuilt_error(data: bytes) -> TidewarpError:
    """The error of :func:`named_error`; a class that ``errors`` does not have is our own fault."""
    name, value, rule, action = unpack(data)
    kind = getattr(errors, name, None) if name in errors.__all__ else None
    return (kind or InternalError)(value, rule, action)


def can_lose_ranks() -> bool:
    """Whether the other ranks live on when one dies, and MPI calls then raise an error that :func:`is_loss` knows."""
    return os.environ.get(_FAULT_TOLERANT) == "1"


def is_loss(error: BaseException) -> bool:
    """Whether MPI says with this error that a rank has died, or that another rank has heard so."""
    if not can_lose_ranks():
        return False
    from mpi4py import MPI

    losses = (MPI.ERR_PROC_FAILED, MPI.ERR_PROC_FAILED_PENDING, MPI.ERR_REVOKED)
    return isinstance(error, MPI.Exception) and error.Get_error_class() in losses


@contextmanager
def aborting(ranks: Ranks) -> Iterator[None]:
    """End every rank at once if this one fails in a way that the others cannot know of: they would wait for it for ever."""
    try:
        yield
    except TidewarpError:  # raised on all of them
        raise
    except BaseException as error:
        if ranks.size == 1 or is_loss(error):  # the others hear of a loss themselves
            raise
        if is_interrupt := isinstance(error, KeyboardInterrupt):
            sys.stderr.write("interrupted\n")
        else:
            traceback.print_exc()
        sys.stderr.flush()
        ranks.comm.Abort(130 if is_interrupt else 1)
        raise
