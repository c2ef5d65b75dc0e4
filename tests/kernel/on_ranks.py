"""A program for ``mpiexec``: what it is told to run, on every rank; one JSON file from each. Run by test_mpi*.py."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tidewarp.errors import TidewarpError
from tidewarp.kernel import Context, Engine, LogicalProcess, Model, i64, mix64, on, run, u64
from tidewarp.kernel.checkpoints import digest_of
from tidewarp.kernel.shell.mpi.post import LETTERS, Post
from tidewarp.kernel.shell.mpi.rounds import RankRounds
from tidewarp.kernel.shell.mpi.world import Ranks, join_ranks
from tidewarp.units import seconds
from tidewarp.worlds.hurt import Played, play, random_case
from tidewarp.worlds.phold import phold

SMALL = {"lps": 24, "population": 4, "remote": 0.5}
END = seconds(6)


class Order(NamedTuple):
    """What to do when it arrives."""

    number: i64


class Clerk(LogicalProcess):
    """Hands orders on until one is due to fail."""

    count: i64

    def start(self, ctx: Context) -> None:
        """One order each."""
        ctx.send(ctx.lp, 1 + ctx.below(10), Order(ctx.lp))

    @on(Order)
    def serve(self, now: int, order: Order, ctx: Context) -> None:
        """Fail from tick 200 on, if the parameters say so."""
        self.count += 1
        ctx.add("served")
        ctx.emit(order)
        if now >= 200 and ctx.lp == ctx.params.at and ctx.params.how == 1:
            self.count //= 0 * self.count
        ctx.send(ctx.below(ctx.n_lps), 1 + ctx.below(20), order)


class Endless(LogicalProcess):
    """Hands orders on, until the handler of one does not end."""

    count: i64

    def start(self, ctx: Context) -> None:
        """One order each."""
        ctx.send(ctx.lp, 1 + ctx.below(10), Order(ctx.lp))

    @on(Order)
    def serve(self, now: int, order: Order, ctx: Context) -> None:
        """Stay here from tick 200 on."""
        while now >= 200 and ctx.lp == ctx.params.at:
            self.count = (self.count + 1) % 1000
        ctx.send(ctx.below(ctx.n_lps), 1 + ctx.below(20), order)


class Careless(LogicalProcess):
    """Sends a number that its kind cannot hold; such a number does not compile."""

    count: i64

    def start(self, ctx: Context) -> None:
        """One order each."""
        ctx.send(ctx.lp, 1 + ctx.below(10), Order(ctx.lp))

    @on(Order)
    def serve(self, now: int, order: Order, ctx: Context) -> None:
        """Send it from tick 200 on, half way round."""
        self.count += 1
        if now >= 200 and ctx.lp == ctx.params.at:
            ctx.send((ctx.lp + 3) % ctx.n_lps, 5, Order(2**70))
        ctx.send(ctx.below(ctx.n_lps), 1 + ctx.below(20), order)


class Failing(NamedTuple):
    """Which LP fails, and how: 1 its handler raises, 2 it sends a number that its kind cannot hold, 0 not at all."""

    at: i64
    how: i64


def office(at: int, how: int, seed: int = 1) -> Model:
    """Six clerks, one of them careless."""
    model = Model("office", Failing(at, how), lookahead=1, seed=seed, trace_interval=50)
    model.add(Careless if how == 2 else Clerk, 6, path="clerk")
    model.accumulator("served")
    return model


def slow_post(polls: int) -> None:
    """From here on letters are taken only at a later look than the one that finds them: as between hosts, and worse."""
    open_post, arrived = Post.__init__, Post._arrived

    def opened(self: Post, ranks: Ranks) -> None:
        self.held = None
        open_post(self, ranks)
        self.held = deque()

    def late(self: Post, tag: int) -> Iterator[tuple[int, bytearray]]:
        if self.held is None or tag != LETTERS:
            yield from arrived(self, tag)
            return
        self.held.extend([polls, item] for item in arrived(self, tag))
        for entry in self.held:
            entry[0] -= 1
        while self.held and self.held[0][0] < 0:
            yield self.held.popleft()[1]

    Post.__init__, Post._arrived = opened, late


def parity(seed: int, first: int, count: int, tier: str, polls: int) -> dict[str, Any]:
    """Random cases on these ranks beside rank 0's own sequential run of them."""
    ranks = join_ranks()
    slow_post(polls)
    differing, ran, rolled_back, committed, remote = [], 0, 0, 0, 0
    for index in range(first, first + count):
        case = random_case(seed, index)
        workers = min(case.options["workers"], case.model.n_lps // ranks.size)
        if not workers:
            continue
        options = {**case.options, "workers": workers, "memory_max_bytes": None, "tier": tier, "transport": "mpi"}
        got = played(case, options)
        expected = played(case, {"kernel": "sequential", "tier": "python"}) if ranks.rank == 0 else got
        ran += 1
        if isinstance(got, Played):
            rolled_back += got.stats.rolled_back
            committed += got.committed
            remote += got.stats.remote_sent
        if told(got, ranks.rank) != told(expected, ranks.rank):
            differing.append([index, str(told(got, 0))[:300], str(told(expected, 0))[:300]])
    return {
        "differing": differing,
        "ran": ran,
        "rolled_back": rolled_back,
        "committed": committed,
        "remote_sent": remote,
    }


def waiting(count: int) -> list[bool]:
    """Images of runs that wait for a watermark and have run ahead of it, beside those of a run that cannot."""
    slow_post(20)
    same = []
    for index in range(count):
        images = []
        for options in ({"kernel": "optimistic", "transport": "mpi", "window": 10**9}, {"kernel": "sequential"}):
            model = random_case(3, index).model
            if model.n_lps < join_ranks().size:
                continue
            with Engine(model, tier="python", **options) as engine:
                engine.watermark(model.sources[0], 4)
                engine.advance(20)
                engine.outputs()
                images.append(engine.image())
        same.append(images[:1] == images[1:])
    return same


def played(case: Any, options: dict[str, Any]) -> Played | str:
    """What a case came to, or the error that it ended with."""
    try:
        return play(case, **options)
    except TidewarpError as error:
        return f"{type(error).__name__}: {error}"


def told(outcome: Played | str, rank: int) -> Any:
    """What has to be equal; outputs and the trace are on rank 0."""
    if isinstance(outcome, str):
        return outcome
    own = (outcome.trace_digests, outcome.outputs) if rank == 0 else ()
    stats = outcome.stats
    sums = sum(stats.executed_by_class) == stats.executed, sum(stats.rolled_back_by_class) == stats.rolled_back
    return (outcome.digest, outcome.committed, outcome.accumulators, stats.committed_by_class, sums, own)


def failing(at: int, how: int, kernel: str, transport: str, tier: str) -> list[Any]:
    """A run that fails: the error, how much was committed before it, and the state that is left."""
    with Engine(office(at, how), kernel=kernel, tier=tier, transport=transport) as engine:
        try:
            engine.advance(400)
        except TidewarpError as error:
            error_text = f"{type(error).__name__}: {error}"
        else:
            error_text = ""
        try:
            engine.advance(401)
            again = ""
        except TidewarpError as error:
            again = f"{type(error).__name__}: {error}"
        counts = [engine.state(lp)["count"] for lp in range(6) if lp not in (at, (at + 3) % 6)]  # not where it failed
    return [error_text, again, engine.ledger.committed, engine.ledger.accumulators, counts]


def all_failures(tier: str) -> list[Any]:
    """Each way to fail, on each rank, beside the sequential engine."""
    found = []
    for at, how in ((0, 1), (5, 1), (1, 2))[: 3 if tier == "python" else 2]:
        for kernel in ("optimistic", "conservative", "sequential"):
            expected = failing(at, how, "sequential", "threads", "python")
            found.append([at, how, kernel, failing(at, how, kernel, "mpi", tier), expected])
    return found


def different(field: str) -> None:
    """Ranks that do not agree: RankMismatch on all of them."""
    rank = join_ranks().rank
    model = office(0, 0, seed=1 + (rank if field == "seed" else 0))
    run(model, 10, kernel="optimistic", transport="mpi", tier="python", batch=64 + (rank if field == "batch" else 0))


def crowded() -> None:
    """More events than the memory bound allows for: PoolExhausted on all ranks."""
    run(phold(**SMALL), END, kernel="optimistic", transport="mpi", tier="python", memory_max_bytes=8192)


def broken() -> None:
    """A fault that only rank 1 has: nobody waits for it."""
    ranks = join_ranks()
    with Engine(phold(**SMALL), kernel="optimistic", transport="mpi", tier="python") as engine:
        if ranks.rank == 1:
            engine._kernel._step = lambda horizon: 1 // 0
        engine.advance(END)


def looked_at(kernel: str, tier: str, folder: str) -> list[Any]:
    """What a session shows on the way: state, counts, a checkpoint, state at a barrier, the digest; equal on all ranks."""
    model = office(0, 0)
    with Engine(model, kernel=kernel, transport="mpi", tier=tier) as engine:
        engine.advance(120)
        engine.outputs()
        middle = [engine.state(lp) for lp in range(model.n_lps)]
        data = engine.checkpoint()
        engine.outputs()
        committed = engine.ledger.committed
        between: list[list[Any]] = []
        engine.barrier(200, lambda engine: between.append([engine.state(lp) for lp in range(model.n_lps)]))
        engine.advance(300)
        digest = engine.digest()
    if join_ranks().rank == 0:
        Path(folder, f"{kernel}-{tier}").write_bytes(data)
    with Engine.restore(model, data, kernel=kernel, transport="mpi", tier=tier, workers=2) as engine:
        engine.advance(300)
        return [middle, digest_of(data), committed, *between, digest, engine.digest()]


def phold_run(tier: str, kernel: str, workers: int, digest: str) -> list[Any]:
    """The digest of a small PHOLD."""
    result = run(phold(**SMALL), END, kernel=kernel, transport="mpi", tier=tier, workers=workers, digest=digest)
    return [result.digest, result.committed, result.rolled_back]


def hurt(at: int, polls: int, who: int, sign: int) -> None:
    """Let rank ``who`` (-1: each) send itself a signal, ``polls`` looks at its post after it saw GVT at or beyond tick ``at``."""
    end_round, poll = RankRounds._end, Post.poll
    left = [-1]

    def ended(self: RankRounds) -> None:
        end_round(self)
        if left[0] < 0 and self.gvt[0] >= at:
            left[0] = polls

    def polled(self: Post) -> Iterator[tuple[int, memoryview]]:
        if left[0] == 0:
            os.kill(os.getpid(), sign)
        left[0] = left[0] - 1 if left[0] > 0 else 2**62 if left[0] == 0 else left[0]
        yield from poll(self)

    if who in (-1, join_ranks().rank):
        RankRounds._end, Post.poll = ended, polled


def saving(folder: str, resume: str | None, tier: str, wound: list[int] | None) -> list[Any]:
    """A PHOLD that leaves checkpoints; ``wound``: the arguments of :func:`hurt`."""
    if wound is not None:
        hurt(*wound)
    result = run(
        phold(**SMALL),
        END,
        kernel="optimistic",
        transport="mpi",
        tier=tier,
        checkpoint=Path(folder),
        checkpoint_every=seconds(1),
        resume=None if resume is None else Path(resume),
    )
    return [result.digest, result.resumed]


def stopped(tier: str, at: int) -> list[Any]:
    """Rank 1 is stopped on the way; rank 0 looks 500 times at a rank that stands still before it lets it go on."""
    ranks = join_ranks()
    pids = [int.from_bytes(data, "big") for data in ranks.gather(os.getpid().to_bytes(8, "big"))]
    hurt(at, 0, 1, signal.SIGSTOP)
    poll, looks = Post.poll, [0]

    def watching(self: Post) -> Iterator[tuple[int, memoryview]]:
        state = Path(f"/proc/{pids[1]}/stat").read_text().rpartition(")")[2].split()[0]
        looks[0] += state == "T"
        if state == "T" and looks[0] == 500:
            os.kill(pids[1], signal.SIGCONT)
        yield from poll(self)

    if ranks.rank == 0:
        Post.poll = watching
    result = run(phold(**SMALL), END, kernel="optimistic", transport="mpi", tier=tier)
    return [result.digest, ranks.total([looks[0]])[0]]


class Ping(NamedTuple):
    """Goes on at once, mostly."""

    number: i64


class Hot(LogicalProcess):
    """Sends everything on to anybody, mostly without delay."""

    hash: u64

    def start(self, ctx: Context) -> None:
        """Two each."""
        for k in range(2):
            ctx.send(ctx.lp, 1 + ctx.below(3), Ping(ctx.lp * 2 + k))

    @on(Ping)
    def take(self, now: int, ping: Ping, ctx: Context) -> None:
        """The hash tells orders apart."""
        self.hash = mix64(self.hash ^ ping.number)
        delay = 0
        if ctx.below(8) == 0:
            delay = 1 + ctx.below(2)
        ctx.send(ctx.below(ctx.n_lps), delay, ping)


def thrashing(tier: str, window: Any, end: int) -> list[Any]:
    """Delays of zero and slow letters: what ranks do ahead of each other is undone."""
    slow_post(20)
    model = Model("hot", None, trace_interval=50)
    model.add(Hot, 16, path="hot")
    result = run(model, end, kernel="optimistic", transport="mpi", tier=tier, window=window)
    expected = run(model, end, tier="python")
    stats = result.stats
    return [result.digest == expected.digest, result.committed, stats.executed, stats.thrash_breaks]


def endless(tier: str) -> None:
    """A handler of rank 1 does not end."""
    model = Model("endless", Failing(5, 3), lookahead=1)
    model.add(Endless, 6, path="clerk")
    run(model, 400, kernel="optimistic", transport="mpi", tier=tier, handler_timeout_s=0.5)


def held() -> list[list[str]]:
    """What a rank says of who holds GVT, in each state that a round can be in."""
    ranks = join_ranks()
    post = Post(ranks)
    rounds = RankRounds(ranks, post, 1, (0, 0, 0), lambda: (0, 0))
    said = []

    def told() -> None:
        said.extend(rounds.holders(lambda: ["PE 0: it holds an event"]))

    rounds.begin()
    told()
    while not rounds.open:
        rounds.poll(0)
    told()
    rounds.report((7 + ranks.rank, 0, 1))
    while not rounds.resting:
        rounds.poll(0)
    told()
    return [said]


PROGRAMS: dict[str, Callable[..., Any]] = {
    "parity": parity,
    "waiting": waiting,
    "failures": all_failures,
    "different": different,
    "crowded": crowded,
    "broken": broken,
    "looked_at": looked_at,
    "phold": phold_run,
    "saving": saving,
    "stopped": stopped,
    "thrashing": thrashing,
    "endless": endless,
    "held": held,
}


def main() -> int:
    """Run a program with JSON arguments; its answer, or its error, as a line in a file for each rank."""
    name, folder, *arguments = sys.argv[1:]
    try:
        answer, code = PROGRAMS[name](*map(json.loads, arguments)), 0
    except TidewarpError as error:
        answer, code = {"error": type(error).__name__, "text": str(error)}, 0
    Path(folder, f"rank-{join_ranks().rank}.json").write_text(json.dumps(answer))
    sys.stdout.write(json.dumps({"answer": answer}) + "\n" if join_ranks().rank == 0 else "")
    return code


if __name__ == "__main__":
    sys.exit(main())
