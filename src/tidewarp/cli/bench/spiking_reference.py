"""Brian2 in a process of its own, which runs the same network whenever it is asked."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np

from tidewarp.errors import MissingExtra, OperatorError
from tidewarp.worlds.spiking import Network, Recorded

__all__ = ["Reference", "Round"]

PROGRAM = Path(__file__).with_name("spiking_brian2.py")
Q16 = 65536.0


class Round(NamedTuple):
    """One run: wall seconds, spikes of all neurons."""

    seconds: float
    spikes: int


class Reference:
    """The process; a context manager that leaves none behind. The one of :meth:`of` for None has no rounds."""

    def __init__(self, python: Path | None, arrays: dict[str, Any] | None = None) -> None:
        self._python = python
        self._arrays = arrays or {}

    @classmethod
    def of(cls, name: str | None, python: Path, network: Network, spikes: Sequence[Recorded], end: int) -> Reference:
        """Brian2 with this network, sensors and length in ticks; None: nothing to compare with."""
        return cls(None) if name is None else cls(Path(python), _arrays_of(network, spikes, end))

    def __enter__(self) -> Self:
        if self._python is None:
            return self
        self._folder = tempfile.TemporaryDirectory(prefix="tidewarp-bench-")
        path = Path(self._folder.name) / "network.npz"
        np.savez(path, **self._arrays)
        self._log = (Path(self._folder.name) / "log").open("w+b")
        pipe = subprocess.PIPE
        command = [str(self._python), str(PROGRAM), str(path)]
        self._child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._log)
        try:
            answer = self._answer()
            if "error" in answer:
                raise MissingExtra(
                    "--reference brian2",
                    f"{self._python} cannot import it: {answer['error']}",
                    "pip install 'tidewarp[bench]' 'numpy<2.4', or name a Python that has it with --reference-python",
                )
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._python is not None:
            self._stop()

    def rounds(self, count: int) -> list[Round]:
        """Run it ``count`` times, each from its start.

        Raises:
            OperatorError: the process ended; with its last words.
        """
        made: list[Round] = []
        for _ in range(count if self._python is not None else 0):
            assert self._child.stdin is not None
            self._child.stdin.write(b"run\n")
            self._child.stdin.flush()
            answer = self._answer()
            made.append(Round(float(answer["seconds"]), int(answer["spikes"])))
        return made

    def _answer(self) -> dict[str, Any]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            self._log.seek(0)
            words = self._log.read().decode("utf-8", "replace").strip().splitlines()
            raise OperatorError(
                "--reference brian2", f"it ended: {words[-1] if words else 'no word'}", "run without it"
            )
        found: dict[str, Any] = json.loads(line)
        return found

    def _stop(self) -> None:
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                stream.close()
        self._child.kill()
        self._child.wait()
        self._log.close()
        self._folder.cleanup()


def _arrays_of(network: Network, spikes: Sequence[Recorded], end: int) -> dict[str, Any]:
    """The network with neurons numbered through; potentials in millivolts."""
    settings, n = network.settings, network.settings.neurons
    src, dst, weight, delay = [], [], [], []
    for number, projection in enumerate(network.projections):
        synapses = network.synapses(number)
        src.append(synapses.src + projection.src * n)
        dst.append(synapses.dst + projection.dst * n)
        weight.append(synapses.weight / Q16)
        delay.append(np.full(len(synapses.src), projection.delay // settings.step - 1))
    pulses = sorted({(spike.tick // settings.step, spike.lp * n + spike.neuron) for spike in spikes})
    return {
        "step_s": settings.step / 1e9,
        "seconds": end / 1e9,
        "neurons": settings.populations * n,
        "tau_s": settings.tau / 1e9,
        "threshold": settings.threshold_mv,
        "refractory": settings.refractory // settings.step,
        "kick": settings.kick_mv,
        "kick_chance": settings.rate_hz * settings.step / 1e9,
        "src": np.concatenate(src),
        "dst": np.concatenate(dst),
        "weight": np.concatenate(weight),
        "delay_steps": np.concatenate(delay),
        "sensor": np.array([neuron for _, neuron in pulses], np.int64),
        "sensor_s": np.array([step for step, _ in pulses], np.int64) * (settings.step / 1e9),
    }
