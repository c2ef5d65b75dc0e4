"""Kill a twin anywhere, as often as wanted, and check after each kill what is left of it.

    def test_my_model_survives(tmp_path):
        trial = KillTrial("model.py", tmp_path, outputs="done.jsonl", files=["readings.csv"])
        report = trial.run("armed", kills=50)
        assert not report.failures, report.table()

A *life* is a process that opens the twin and runs it. A *run* is a chain of lives over one journal: some are
killed with SIGKILL, the recoveries among them, and the last one ends by itself. There are three ways to kill:

``armed``    a forked child kills itself at the n-th arrival at one of ``observe.STAGES``
``moments``  a forked child is killed at a random moment; a mapped byte tells at which stage that was
``command``  a command (``tidewarp run … --resume``) is killed at a random moment, or when its journal has grown enough

After every kill, from outside and without asking the dead:

``verify``        the journal is whole, its cursors agree with its records, and it still holds the head of before
``acknowledged``  every position that a source was told to be durable is in the journal
``prefix``        the sink's whole lines are a prefix of the undisturbed run's, byte for byte but for the domain
``explained``     replaying what the journal determines publishes at least what the sink holds

At the end of every run ``digest`` (of the run, of its journal, of its replay), ``counts`` and ``outputs`` have to
be those of the undisturbed run. A life that raises, or hangs, is an ``error``.

The idea of fault points that only tests arm is FoundationDB's (``flow/Buggify.h``). Needs ``os.fork``.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from tidewarp.clocks import WallClock
from tidewarp.errors import InternalError, OperatorError
from tidewarp.observe import STAGES
from tidewarp.seeds import Stream
from tidewarp.testing.lives import JOURNAL, Aim, Life, commanded, forked, journal_bytes
from tidewarp.testing.remains import OUTPUTS, Course, Undisturbed, Wrong, output_lines
from tidewarp.testing.report import Failure, Report, summed
from tidewarp.twin import Build, load_model, verify

__all__ = ["JOURNAL", "MODES", "OUTPUTS", "Failure", "KillTrial", "Report"]

MODES = ("armed", "moments", "command")
_KILLS_PER_RUN = 12  # at most: a run of many kills is mostly recoveries, one of few mostly fresh work


class KillTrial:
    """Kills lives of one model. To begin with it makes the undisturbed run, which all others have to equal.

    Each run has a folder of its own as its working directory, so the model's relative paths lie in there. The model must come
    to an end by itself: the data end, or nothing is left to do.

    Args:
        build: the model: a function, or the path of its file (``MODEL.py`` or ``MODEL.py:function``).
        folder: where the folders of the runs go; a run's stays only if the run is wrong. Made if it is not there.
        outputs: the file that the model's ``sinks.jsonl`` writes, relative to the run's folder.
        files: what the model reads by a relative path: copied into each run's folder, under its own name.
        seed: of all draws. Run n depends on (seed, mode, n) and on the machine's own timing.
        model_seed: of the twin.
        batch: inputs per journal record, at most; half of the lives draw a smaller number.
        pauses: half of the lives end and go on once on their way, so that orderly stops are among what a kill meets. Without,
            for a model that repairs: a stop is final, so what is later than it comes to another result.
        setup: called in every child.
        plant: called in every child but that of the undisturbed run: a mistake that the trial has to find.
        command: for mode ``command``: its words. It runs in the folder of the run, the journal is JOURNAL. Of a model that is
            given by its path the default is ``tidewarp run`` with ``--resume``.

    Raises:
        OperatorError: no such model or file; the undisturbed run fails, or ``outputs`` does not hold what it published.
    """

    def __init__(
        self,
        build: Build | str | Path,
        folder: Path,
        *,
        outputs: str = OUTPUTS,
        files: Sequence[str | Path] = (),
        seed: int = 1,
        model_seed: int = 7,
        batch: int = 64,
        pauses: bool = True,
        setup: Callable[[], None] | None = None,
        plant: Callable[[], None] | None = None,
        command: Sequence[str] = (),
    ) -> None:
        self._build: Build = build if callable(build) else load_model(str(build))
        self._folder, self._seed, self._model_seed, self._batch = folder, seed, model_seed, batch
        self._files = [Path(file).resolve() for file in files]
        self._command = tuple(command) if callable(build) or command else _run_command(build, model_seed, batch)
        self._pauses = pauses
        self._prepare = [] if setup is None else [setup]
        folder.mkdir(parents=True, exist_ok=True)
        undisturbed = self._new_folder("undisturbed")
        life = self._fork(undisturbed, Aim(), batch)
        if life.done is None:
            told = life.error or f"it hangs at {life.place}"
            raise OperatorError("the undisturbed run", told, "mend the model first, or give files=[...]")
        self._prepare += [] if plant is None else [plant]
        self.done, self._life_s = life.done, life.took_s
        lines = output_lines(undisturbed / outputs, verify(undisturbed / JOURNAL))
        if len(lines) != life.done["outputs"]:
            found = f"outputs={outputs!r}: {len(lines)} lines, {life.done['outputs']} outputs were published"
            raise OperatorError(found, "the harness reads them in a jsonl file", "give the name that its sink has")
        self._undisturbed = Undisturbed(self._build, life.done, lines, outputs)
        self._journal_bytes = journal_bytes(undisturbed)

    def run(
        self,
        mode: str,
        kills: int,
        *,
        workers: int = 1,
        first: int = 0,
        runs_max: int = 2**63,
        failures_max: int = 3,
    ) -> Report:
        """Runs from number ``first`` on, until ``kills`` lives were killed or one of the bounds is reached. Blocks.

        ``workers`` processes share the kills; each keeps the bounds for itself.

        Raises:
            OperatorError: a mode that is not one of MODES, or a command that fails undisturbed.
        """
        if mode not in MODES:
            raise OperatorError(f"mode {mode!r}", f"one of {', '.join(MODES)}", "choose one of them")
        clock = WallClock()
        begun_s = clock.now()
        if mode == "command":
            self._measure_command()

        def series(worker: int) -> Report:
            report = Report(mode, self._seed)
            share = kills // workers + (worker < kills % workers)
            while report.kills < share and report.runs < runs_max and len(report.failures) < failures_max:
                self._run(report, first + worker + report.runs * workers, share)
                report.runs += 1
            return report

        report = series(0) if workers == 1 else summed([*_in_processes(series, workers)])
        report.wall_s = clock.now() - begun_s
        return report

    # ------------------------------------------------------------------ one run
    def _new_folder(self, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir()
        for file in self._files:
            try:
                shutil.copy(file, folder)
            except OSError as error:
                raise OperatorError(str(file), f"cannot be copied: {error.strerror}", "check files=[...]") from error
        return folder

    def _run(self, report: Report, number: int, kills: int) -> None:
        mode = report.mode
        course = Course(number, self._new_folder(f"{mode}-{number}"), Stream(self._seed, f"{mode}.{number}"))
        wanted = 1 + course.chance.below(_KILLS_PER_RUN)
        try:
            while True:
                more = len(course.kills) < wanted and report.kills < kills
                report.lives += 1
                life = self._live(mode, course, self._aim(mode, course) if more else Aim())
                if life.done is not None:
                    break
                report.places[life.place] = report.places.get(life.place, 0) + 1
                course.kills.append(life.place)
                self._undisturbed.check_remains(course)
            self._undisturbed.check_end(course, life.done)
        except Wrong as wrong:
            report.failures.append(Failure(number, wrong.check, wrong.message, tuple(course.kills)))
            return
        shutil.rmtree(course.folder)

    def _aim(self, mode: str, course: Course) -> Aim:
        """Somewhere in what is left of the run; armed runs begin with each stage in turn."""
        chance = course.chance
        if mode == "command" and chance.below(2):
            return Aim(journal_bytes=journal_bytes(course.folder) + chance.below(self._journal_bytes))
        done = course.inputs / max(1, self.done["inputs"])  # share of the run that the journal holds
        if mode != "armed":
            return Aim(delay_s=chance.random() * self._life_s * (1 - done / 2))  # recovering is faster than living
        stage = STAGES[chance.below(len(STAGES)) if course.kills else course.number % len(STAGES)]
        arrivals = self.done["arrivals"].get(stage, 1) * (1 - done)
        if stage == "recover":  # once per record, of which a young journal has few
            arrivals = self.done["journal_records"] * done
        return Aim(stage=stage, arrival=1 + chance.below(max(1, int(arrivals))))

    def _live(self, mode: str, course: Course, aim: Aim) -> Life:
        """One life, which ends by itself or is killed on purpose."""
        if mode == "command":
            life = commanded(self._command, course.folder, aim)
        else:
            chance = course.chance
            batch = self._batch if chance.below(2) else 1 + chance.below(self._batch)
            pauses_s = [chance.random() * self.done["virtual_time_s"]] * chance.below(2) * self._pauses
            life = self._fork(course.folder, aim, batch, pauses_s)
        course.acknowledged |= life.acknowledged
        if life.error is not None:
            raise Wrong("error", life.error)
        return life

    def _fork(self, folder: Path, aim: Aim, batch: int, pauses_s: Sequence[float] = ()) -> Life:
        seed, prepare = self._model_seed, self._prepare
        return forked(self._build, folder, aim, seed=seed, batch=batch, pauses_s=pauses_s, prepare=prepare)

    def _measure_command(self) -> None:
        """The command's own undisturbed run: how long it takes, and that it agrees with the library's."""
        if not self._command:
            raise OperatorError("mode 'command'", "it needs a command", "give command=[...], or the model by its path")
        folder = self._new_folder("command")
        life = commanded(self._command, folder)
        if life.done is None or life.done["digest"] != self.done["digest"]:
            raise OperatorError("the command, undisturbed", life.error or "it has another digest", "compare the two")
        self._life_s = life.took_s


def _run_command(model: str | Path, seed: int, batch: int) -> tuple[str, ...]:
    path, colon, name = str(model).rpartition(":")
    spec = f"{Path(path).resolve()}:{name}" if colon and name.isidentifier() else str(Path(model).resolve())
    options = ("--journal", JOURNAL, "--resume", "--seed", str(seed), "--journal-batch", str(batch), "--json")
    return (sys.executable, "-m", "tidewarp", "run", spec, *options)


def _in_processes(series: Callable[[int], Report], workers: int) -> Iterator[Report]:
    """What ``series`` gives for each worker, computed side by side in forked children."""
    children = []
    for worker in range(workers):
        out, into = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                with os.fdopen(into, "w") as pipe:
                    json.dump(asdict(series(worker)), pipe)
            finally:
                os._exit(0)
        os.close(into)
        children.append((child, out))
    for child, out in children:
        with os.fdopen(out) as pipe:
            text = pipe.read()
        os.waitpid(child, 0)
        if not text:
            raise InternalError("a worker of the kill trial", "it ended without a report", "run it with workers=1")
        yield Report.of(json.loads(text))
