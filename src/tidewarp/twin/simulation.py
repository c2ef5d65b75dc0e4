"""The host's side of one simulation process: a run elsewhere, with the interface of a run here.

A request is answered before the next one is sent. One slice costs one exchange: what was granted since the last one
goes with it, and the outputs come back with all that the host has to know of where the run stands.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import warnings
from multiprocessing.connection import Connection, Pipe
from multiprocessing.reduction import recv_handle
from typing import Any

from tidewarp.connect.contract import Output
from tidewarp.connect.gate import Grant
from tidewarp.errors import ModelError, OperatorError
from tidewarp.process.rules import Rule
from tidewarp.twin.cuts import Cut
from tidewarp.twin.documents import Mark
from tidewarp.twin.run import Run, Standing
from tidewarp.twin.serving import flush, serve
from tidewarp.units import TICK_MAX

__all__ = ["Died", "Simulation", "launch", "wait_for"]


class Died(Exception):
    """The process ended without being asked to."""


class Simulation:
    """A run in another process; attributes as of :class:`~tidewarp.twin.run.Run`.

    Every method that asks the process raises Died if it is not there any more.
    """

    at: int
    settled: bool
    failed: bool
    stop_tick: int
    applied: int
    refused: int
    published: int
    events: int
    undeliverable: int
    ahead: int

    def __init__(self, connection: Connection, pid: int, standing: Standing) -> None:
        self.pid = pid
        self.lease = standing.at
        self.bytes = 0  # where nobody knows
        self.lease_max = TICK_MAX  # what is granted beyond is not passed on
        self._connection = connection
        self._granted: list[Grant] = []  # since the last exchange
        self._salvaged: list[Output] = []
        self._stand(standing)

    def _stand(self, standing: Standing) -> None:
        self.standing = standing
        self.at, self.settled, self.failed, _, self.stop_tick = standing[:5]
        self.applied, self.refused, self.published, self.events, self.undeliverable, self.ahead = standing[5:11]
        self.behind = standing.behind

    def grant(self, grant: Grant) -> None:
        """Take over a lease with its inputs."""
        if grant.floor > self.lease_max:
            grant = Grant(self.lease_max, tuple(one for one in grant.inputs if one.tick < self.lease_max))
        self._granted.append(grant)
        self.lease = grant.floor

    def weigh(self) -> None:
        """Set ``bytes``: its memory, pages that it shares counted in part. For 100 MB it takes as long as a fork."""
        with contextlib.suppress(OSError), open(f"/proc/{self.pid}/smaps_rollup", "rb") as file:
            self.bytes = next((int(line.split()[1]) << 10 for line in file if line.startswith(b"Pss:")), 0)

    @property
    def next_tick(self) -> int:
        """When something happens next; TICK_MAX if nothing does."""
        granted = next((grant.inputs[0].tick for grant in self._granted if grant.inputs), TICK_MAX)
        return min(self.standing.next_tick, granted)

    def step(self, limit: int, events_max: int) -> list[Output]:
        """As of a run. Raises ModelError: what can be saved is here already."""
        self.refuse_failed()
        granted = [(floor, list(map(tuple, inputs))) for floor, inputs in ((g.floor, g.inputs) for g in self._granted)]
        rows, failure = self._ask("step", limit, events_max, granted)
        self._granted = []
        outputs = list(map(Output._make, rows))
        if failure is not None:
            self._salvaged = outputs
            raise failure
        return outputs

    def salvage(self) -> list[Output]:
        """After a failure: the outputs of the instants that were completed."""
        return self._salvaged

    def refuse_failed(self) -> None:
        """Raise ModelError if the model has raised before."""
        if self.failed:
            raise ModelError("this twin", "its model raised, so its state is torn", "open its journal again")

    def mark(self, *, final: bool = False) -> Mark:
        """The heads of the chains; with the run digest where the run ends or stops."""
        mark: Mark = self._ask("mark", final)
        return mark

    def restore(self, cut: Cut) -> list[Output]:
        """As of a run."""
        return list(map(Output._make, self._ask("restore", cut)))

    def take_cuts(self) -> list[Cut]:
        """As of a run."""
        cuts: list[Cut] = self._ask("cuts") if self.standing.cuts else []
        return cuts

    def rules(self) -> list[Rule]:
        """Of all paths of its registry."""
        rules: list[Rule] = self._ask("rules")
        return rules

    def digest(self) -> tuple[str, dict[str, list[Any]]]:
        """The run digest, and path -> [value, version]."""
        found: tuple[str, dict[str, list[Any]]] = self._ask("digest")
        return found

    def fork(self) -> Simulation:
        """A copy of the process, settled as it is, with nothing granted; what it costs is the page tables. Raises OperatorError."""
        pid: int = self._ask("fork")
        try:
            connection = Connection(recv_handle(self._connection))
        except (EOFError, OSError, RuntimeError) as error:
            raise Died from error
        return Simulation(connection, pid, self.standing)

    def end(self) -> None:
        """Let the process end, once it has done what it was asked for last."""
        self._connection.close()

    def _ask(self, name: str, *arguments: Any) -> Any:
        try:
            self._connection.send_bytes(pickle.dumps((name, arguments), pickle.HIGHEST_PROTOCOL))
            is_done, value, standing = pickle.loads(self._connection.recv_bytes())
        except (EOFError, OSError) as error:
            raise Died from error
        except BaseException:  # an interrupt of the keyboard: an answer is under way that nobody will read
            self._connection.close()
            raise
        self._stand(Standing._make(standing))
        if not is_done:
            raise value
        return value


def launch(run: Run) -> Simulation:
    """A process that holds ``run`` as it is now, and is to be waited for when it has ended: the nursery of copies.

    Threads stay here, and so do all files but stdin, stdout and stderr. Raises OperatorError: there can be no more processes.
    """
    ours, theirs = Pipe()
    flush()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads, whose locks the model knows nothing of
            pid = os.fork()
        if pid == 0:
            ours.close()
            serve(run, theirs)
    except OSError as error:
        rule = f"it needs a process of its own: {error.strerror}"
        action = "raise the limit of processes, or open with host='inline'"
        raise OperatorError("the simulation", rule, action) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    theirs.close()
    return Simulation(ours, pid, run.standing())


def wait_for(nursery: Simulation) -> None:
    """End it, and wait until it and all its copies, which have been ended before, are gone."""
    nursery.end()
    with contextlib.suppress(ChildProcessError):  # somebody reaps all children of this program
        os.waitpid(nursery.pid, 0)
