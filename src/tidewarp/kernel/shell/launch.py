"""``mpiexec`` from here: start ranks, watch them, and go on from the newest checkpoint when one of them dies."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from io import RawIOBase
from pathlib import Path
from typing import Any, NamedTuple

from tidewarp.errors import MissingExtra, RankLost
from tidewarp.kernel.shell.interrupts import LAUNCHED

__all__ = ["RANKS_ENVIRONMENT", "Ended", "Launched", "launch", "mpiexec_path", "run_ranks"]

RANKS_ENVIRONMENT = {
    # Open MPI refuses to run as root, and more ranks than cores, unless it is told to. MPICH reads none of these.
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}
_KEEPALIVE = "PMIX_KEEPALIVE_PIPE"
"""The number of a pipe: when it ends, so does Open MPI's mpiexec. It does not hand on the end of its own standard input."""
_FRAME = "-" * 74
"""The line before and after what Open MPI's mpiexec says itself."""
_NOTE = re.compile(r"$|NBC_Progress: |\[[^]]*\] PMIX ERROR: ")
"""What Open MPI says, with empty lines, when a rank has died that others have waited for, or ranks end while it tells them to."""
_FAULT_TOLERANT = ("--with-ft", "ulfm")
_GRACE_S = 5.0
_SAID_MOST = 65_536  # bytes


class Ended(NamedTuple):
    """How an ``mpiexec`` ended: its exit code (negative: the signal that ended it), and the answer of rank 0, if it gave one.

    ``said`` is the error that a rank without an answer ended with, if it could say one.
    """

    code: int
    answer: dict[str, Any] | None
    said: str = ""


class Launched(NamedTuple):
    """What a launch came to: rank 0's answer, mpiexec's exit code, how often it was started again."""

    answer: dict[str, Any]
    code: int
    restarts: int
    ranks: int


def mpiexec_path() -> Path:
    """The ``mpiexec`` beside this Python: one of another MPI may come first in the path.

    Raises:
        MissingExtra: there is none.
    """
    path = Path(sys.prefix, "bin", "mpiexec")
    if not path.exists():
        raise MissingExtra(f"{path}", "ranks are started with it", "pip install 'tidewarp[mpi]'")
    return path


def _is_open_mpi() -> bool:
    return mpiexec_path().with_name("prterun").exists()


def run_ranks(
    command: Sequence[str], ranks: int, env: Mapping[str, str] | None = None, *, survive: bool = False
) -> Ended:
    """Run ``command`` on so many ranks until it ends; rank 0 answers with a JSON object as the last line of its output.

    ``survive``: where mpiexec is Open MPI's, a rank that dies does not end the others.

    Blocks. What the ranks say on their error output follows at the end, but for the error that is their answer.
    Whatever ends this call ends all ranks, and so does the end of this process, even by SIGKILL: their standard input is
    a pipe from here, which rank 0 follows (:meth:`RankInterrupts.follow_launcher`), and Open MPI's mpiexec follows another.
    An interrupt is written to the first; the ranks then end by themselves, and a second one ends them at once.

    Raises:
        KeyboardInterrupt: somebody interrupted, and the ranks ended without an answer.
    """
    reader, writer = os.pipe()  # the writer is not inherited
    alive, still_here = os.pipe()
    with (
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as said,
        os.fdopen(reader, "rb", 0),
        os.fdopen(writer, "wb", 0) as line,
        os.fdopen(alive, "rb", 0),
        os.fdopen(still_here, "wb", 0),
    ):
        process = subprocess.Popen(
            [str(mpiexec_path()), *(_FAULT_TOLERANT if survive and _is_open_mpi() else ()), "-n", str(ranks), *command],
            stdin=reader,
            stdout=out,
            stderr=said,
            env={**os.environ, **RANKS_ENVIRONMENT, LAUNCHED: "1", _KEEPALIVE: str(alive), **(env or {})},
            pass_fds=(alive,),
            start_new_session=True,
        )
        interrupt = _wait(process, line)
        out.seek(0)
        answer = _answer_in(out.read())
        said.seek(0)
        error = _pass_on(said.read(_SAID_MOST).decode("utf-8", "replace"), answered=answer is not None)
    if interrupt is not None and answer is None:
        raise interrupt
    return Ended(process.returncode, answer, "" if answer is not None else error)


def _wait(process: subprocess.Popen[bytes], line: RawIOBase) -> KeyboardInterrupt | None:
    """Until it has ended; the interrupt that its ranks were told of, if one came."""
    interrupt = None
    try:
        try:
            process.wait()
        except KeyboardInterrupt as caught:
            interrupt = caught
            line.write(b"interrupt\n")
            process.wait()
    finally:
        _end(process)
    return interrupt


def _pass_on(said: str, *, answered: bool) -> str:
    """Say what ranks have said, but for their error: whoever launched them says that; returns it.

    What MPI itself says of exit codes and losses is left out where rank 0 has answered.
    """
    errors = []
    framed = False
    for line in said.splitlines():
        if answered and line == _FRAME:
            framed = not framed
        elif framed or (answered and (not line or _NOTE.match(line))):
            continue
        elif line.startswith("error: "):
            errors.append(line.removeprefix("error: "))
        else:
            sys.stderr.write(f"{line}\n")
    return errors[0] if errors else ""


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leave nothing of the session behind: mpiexec is asked to end its ranks, then all are killed."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _answer_in(out: bytes) -> dict[str, Any] | None:
    for line in reversed(out.decode("utf-8", "replace").splitlines()):
        if line.startswith("{"):
            with contextlib.suppress(ValueError):
                answer = json.loads(line)
                return answer if isinstance(answer, dict) else None
    return None


def launch(
    command: Callable[[Path | None], Sequence[str]],
    ranks: int,
    *,
    restarts: int,
    newest: Callable[[], Path | None],
    say: Callable[[str], None],
    survive: bool = False,
) -> Launched:
    """Run ``command(checkpoint to resume from)`` on ``ranks`` until it answers, at most ``restarts`` times again.

    ``newest`` gives the newest whole checkpoint, ``say`` takes lines for people, ``survive`` is as for :func:`run_ranks`. A start that dies without having left
    a newer checkpoint is repeated with one rank less: what killed it may be what that rank needs. A rank that ends with an
    error of its own, as one whose handler does not end, would do so again: it is not repeated.

    Raises:
        RankLost: a rank died, and no restart is left.
        MissingExtra: there is no mpiexec.
    """
    begun_with: Path | None = None
    resume: Path | None = None
    for restart in range(restarts + 1):
        ended = run_ranks(command(resume), ranks, survive=survive)
        if ended.answer is not None:
            return Launched(ended.answer, ended.code, restart, ranks)
        begun_with, resume = resume, newest()
        if ended.said:
            break
        if restart < restarts:
            if resume == begun_with and ranks > 1:
                ranks -= 1
            say(f"{_death(ended)}: {_from(resume)} on {ranks} ranks (restart {restart + 1} of {restarts})")
    raise _lost(ended, resume)


def _death(ended: Ended) -> str:
    return f"rank died (mpiexec exit {ended.code}{'; ' if ended.said else ''}{ended.said})"


def _from(checkpoint: Path | None) -> str:
    return "from the start" if checkpoint is None else f"resuming from {checkpoint}"


def _lost(ended: Ended, newest: Path | None) -> RankLost:
    if newest is None:
        return RankLost(_death(ended), "there is no checkpoint to go on from", "start anew, with --checkpoint DIR")
    seconds = int(newest.name.partition("-")[0]) / 1e9
    return RankLost(
        _death(ended), f"the newest checkpoint is at t={seconds:g} s", f"resume with --resume {newest.parent}"
    )
