"""``tidewarp program request``, ``requests``, ``work`` and ``verdict``: runs over two sites, as their users meet them."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest

from tidewarp.cli.program import work
from tidewarp.cli.program.run import executor_of
from tidewarp.codec.artifacts import Artifact
from tidewarp.codec.references import Reference
from tidewarp.errors import OutOfModel, StoreLocked
from tidewarp.federation import shell
from tidewarp.federation.shell.reports import PullReport
from tidewarp.federation.shell.site import open_site
from tidewarp.programs import OperationRegistry, working
from tidewarp.programs.runs import run as run_program
from tidewarp.store import open_store
from tidewarp.store.files import locate, read_seed

CONCAT = {"inputs": ["a", "b"], "nodes": {"j": {"op": "pel.bytes.concat/1", "in": ["a", "b"]}}, "outputs": ["j"]}
HASH = {"inputs": ["a"], "nodes": {"h": {"op": "pel.bytes.hash.asl1/1", "in": ["a"]}}, "outputs": ["h"]}
LEFT, RIGHT = (Artifact(text.encode()).reference().hex() for text in ("left", "right"))
NOBODY = ["--from", "http://127.0.0.1:9"]
EXPECTED = sha256(b"leftright").digest() + sha256(b"right").digest()


@pytest.fixture
def keys(run):
    """Two stores with both programs' sources beside them; their public keys."""
    for name, source in (("concat", CONCAT), ("hash", HASH)):
        Path(f"{name}.json").write_text(json.dumps(source))
    return {place: run("store", "init", place, "--json").done()["public_key"] for place in "AB"}


@pytest.fixture
def say(run, keys):
    """Commands of a user, by what he wants."""
    return User(run)


class User:
    def __init__(self, run):
        self.run = run

    def put(self, place, text):
        Path("file").write_text(text)
        return self.run("store", "put", place, "file", "--json").done()["ref"]

    def build(self, place, name):
        return self.run("program", "build", f"{name}.json", "--store", place, "--json").done()["program_ref"]

    def ask(self, place, *words):
        return self.run("program", "request", "--store", place, *words, "--json").done()

    def work(self, place, *options):
        return self.run("program", "work", "--store", place, "--once", *options, "--json").done()

    def requests(self, place, *refs):
        answer = self.run("program", "requests", "--store", place, *refs, "--json").done()
        return {one["request_ref"]: one for one in answer["requests"]}

    def exchange(self, *pairs):
        """The second of each pair pulls from the first."""
        for source, target in pairs:
            with open_store(source, read_only=True) as store, shell.serve(store) as server:
                self.run("peer", "pull", target, server.url, "--json").done()


def ask_for_graph(say, left="A", right="A"):
    """Four runs, of which two hang on others; the last one. At ``left`` two of them, at ``right`` two."""
    concat, digest = say.build(left, "concat"), say.build(left, "hash")
    joined = say.ask(left, concat, LEFT, RIGHT)["request_ref"]
    hashed = say.ask(right, digest, f"{joined}:0")["request_ref"]
    side = say.ask(right, digest, RIGHT)["request_ref"]
    last = say.ask(left, concat, f"{hashed}:0", f"{side}:0")["request_ref"]
    return joined, hashed, side, last


def outputs(say, place, ref):
    return say.requests(place)[ref]["output_refs"]


def test_a_graph_at_one_site(say, run):
    """From the last to the first: asked for before anything is there, executed in one round."""
    refs = ask_for_graph(say)
    before = say.requests("A")
    assert {before[ref]["stage"] for ref in refs} == {"waiting"}
    assert before[refs[0]]["waits_for"] == sorted([LEFT, RIGHT])
    assert before[refs[3]]["waits_for"] == sorted([refs[1], refs[2]])
    assert say.work("A")["executed"] == 0
    say.put("A", "left")
    say.put("A", "right")
    done = say.work("A")
    assert (done["executed"], done["refused"], done["rounds"]) == (4, 0, 1)
    assert {one["request_ref"] for one in done["runs"]} == set(refs)
    assert [one["status"] for one in done["runs"]] == [0] * 4
    (answer,) = outputs(say, "A", refs[3])
    run("store", "get", "A", answer, "-o", "answer", "--json").done()
    assert Path("answer").read_bytes() == EXPECTED
    assert say.work("A")["executed"] == 0
    assert f"{refs[3][:16]} done      {answer}\n" in run("program", "requests", "--store", "A", refs[3][:20]).out
    assert run("store", "verify", "A", "--reexecute", 9, "--json").done()["same"] == 4


def test_what_is_asked_for_is_asked_for_once(say, run):
    """The same request from the same words; from a beginning of a reference too, where what it names is here."""
    say.put("A", "left")
    concat = say.build("A", "concat")
    first = say.ask("A", concat, LEFT, RIGHT)
    assert (first["new"], first["stage"], first["waits_for"]) == (True, "waiting", [RIGHT])
    again = say.ask("A", concat[:14], LEFT[:12], RIGHT)
    assert again == {**first, "new": False}
    assert run("program", "request", "--store", "A", concat, LEFT, RIGHT).out == first["request_ref"] + "\n"
    params = say.ask("A", concat, LEFT, RIGHT, "--params", LEFT)
    assert params["new"]
    assert len(say.requests("A")) == 2


def test_words_that_are_no_request_are_refused(say, run):
    """With exit code 2, and nothing written: what would wait for ever without anybody seeing why."""
    say.put("A", "left")
    concat = say.build("A", "concat")
    ref = say.ask("A", concat, LEFT, RIGHT)["request_ref"]
    with open_store("A", read_only=True) as store:
        size = store.journal.size
    for words, said in (
        ((concat, ref, LEFT), f"{ref}:0"),
        ((concat, f"{ref}:1", LEFT), "its program has 1 outputs"),
        ((concat, f"{LEFT}:0", LEFT), "this is no request"),
        ((concat, RIGHT[:20], LEFT), "no reference here begins so"),
        ((concat, "left", LEFT), "68 lower-case hexadecimal digits"),
        ((concat, "0002" + RIGHT[4:], LEFT), "no record here names it"),
        ((LEFT, LEFT), "a program has tag 0x101"),
        ((concat, f"{ref}:", LEFT), "hexadecimal"),
    ):
        assert said in run("program", "request", "--store", "A", *words, "--json").refusal(2)
    with open_store("A", read_only=True) as store:
        assert store.journal.size == size


def test_a_model_that_was_not_named_is_elsewhere(say, run):
    """A replay is executed by whoever names the model; until then nobody waits for it here."""
    replay = {
        "inputs": ["a", "b", "c"],
        "nodes": {"r": {"op": "tidewarp.journal.replay/1", "in": ["a", "b", "c"]}},
        "outputs": ["r"],
    }
    Path("replay.json").write_text(json.dumps(replay))
    say.put("A", "left")
    ref = say.ask("A", say.build("A", "replay"), LEFT, LEFT, LEFT)["request_ref"]
    say.work("A")
    assert say.requests("A")[ref]["stage"] == "failed"  # it is no descriptor of a model, whoever has one


def test_a_graph_over_two_sites_that_serve_pull_and_work(say, run, serve, start):
    """Four processes: both sites have a part of the inputs and of the requests, and both come to what one alone does."""
    servers = {place: serve(place, "--read-only") for place in "AB"}
    workers = [
        start("program", "work", "--store", place, "--from", servers[other].url, "--every", 0.1, "--json")
        for place, other in ("AB", "BA")
    ]

    def patiently(call, *words):
        """As a user who is told that a round is going on, and tries again."""
        answer = []

        def is_done():
            try:
                answer[:] = [call(*words)]
            except AssertionError as error:
                if "writes this journal" not in str(error):
                    raise
            return answer

        workers[0].wait_for(is_done)
        return answer[0]

    patiently(say.put, "B", "right")
    programs = [patiently(say.build, "A", name) for name in ("concat", "hash")]
    joined = patiently(say.ask, "A", programs[0], LEFT, RIGHT)["request_ref"]
    hashed = patiently(say.ask, "B", programs[1], f"{joined}:0")["request_ref"]
    side = patiently(say.ask, "B", programs[1], RIGHT)["request_ref"]
    last = patiently(say.ask, "A", programs[0], f"{hashed}:0", f"{side}:0")["request_ref"]
    patiently(say.put, "A", "left")
    refs = (joined, hashed, side, last)

    def is_done(place):
        states = say.requests(place)
        return all(ref in states and states[ref]["stage"] == "done" for ref in refs)

    for worker, place in zip(workers, "AB", strict=True):
        worker.wait_for(lambda place=place: is_done(place))
    ended = [worker.send(signal.SIGTERM) for worker in workers]
    assert [one.code for one in ended] == [0, 0]
    made = {one["request_ref"]: one["result_ref"] for each in ended for one in each.document["runs"]}
    for server in servers.values():
        server.stop()
    run("store", "init", "C", "--json").done()
    for text in ("left", "right"):
        say.put("C", text)
    assert ask_for_graph(say, "C", "C") == refs
    alone = {one["request_ref"]: one["result_ref"] for one in say.work("C")["runs"]}
    assert made == alone
    assert sum(each.document["executed"] for each in ended) >= 4
    for place in "ABC":
        assert outputs(say, place, last) == [Artifact(EXPECTED).reference().hex()]


def test_a_worker_that_nobody_answers_goes_on(say, run):
    """The other site is down: what can be done here is done, and said what was not reached, with 3 if it was all."""
    concat = say.build("A", "concat")
    for text in ("left", "right"):
        say.put("A", text)
    say.ask("A", concat, LEFT, RIGHT)
    ended = run("program", "work", "--store", "A", "--once", *NOBODY, "--json")
    assert (ended.code, ended.document["executed"]) == (3, 1)
    assert list(ended.document["unanswered"]) == NOBODY[1:]
    said = run("program", "work", "--store", "A", "--once", *NOBODY)
    assert (said.code, said.out.splitlines()[0]) == (3, "0 executed")
    with open_store("B", read_only=True) as store, shell.serve(store) as server:
        assert list(say.work("A", *NOBODY, "--from", server.url)["unanswered"]) == NOBODY[1:]


def test_what_cannot_be_executed_here_is_told_before_who_does_not_answer(say, run, monkeypatch):
    """Exit 1 in place of 3: also with all sites that were named, it would be so."""
    concat = say.build("A", "concat")
    for text in ("left", "right"):
        say.put("A", text)
    ref = say.ask("A", concat, LEFT, RIGHT)["request_ref"]

    def beyond(*_, **__):
        raise OutOfModel("node j", "it takes more than there is here", "let another site work")

    monkeypatch.setattr(working, "run", beyond)
    ended = run("program", "work", "--store", "A", "--once", *NOBODY, "--json")
    assert (ended.code, ended.document["executed"], ended.document["refused"]) == (1, 0, 1)
    (told,) = ended.document["runs"]
    assert (told["request_ref"], told["error"]["rule"]) == (ref, "it takes more than there is here")
    assert list(ended.document["unanswered"]) == NOBODY[1:]


def test_a_site_that_answers_again_is_not_told_of(say, monkeypatch):
    """What counts is the last round, of each site that was named."""
    away = PullReport.nothing()._replace(incomplete="it is away")
    said = iter([away, away, PullReport.nothing(), away, PullReport.nothing(), PullReport.nothing()])
    monkeypatch.setattr(work, "pull", lambda *_, **__: next(said))
    rounds = work._Rounds(
        Path("A"),
        ("http://127.0.0.1:8", "http://127.0.0.1:9"),
        None,
        OperationRegistry.kernel(),
        0.0,
        SimpleNamespace(have_come=lambda: False),
        is_last=True,
    )
    for ports in ([8, 9], [9], []):
        rounds.next()
        assert list(rounds.document()["unanswered"]) == [f"http://127.0.0.1:{port}" for port in ports]
        assert rounds.are_alone() == (len(ports) == 2)


def test_a_worker_leaves_the_store_to_others_between_two_rounds(say, run, start):
    """And ends in order at a signal, in whichever state, though nobody answers it; while another writes, a round is refused."""
    digest = say.build("A", "hash")
    say.put("A", "left")
    ref = say.ask("A", digest, LEFT)["request_ref"]
    worker = start("program", "work", "--store", "A", "--every", 600, *NOBODY, "--json")
    worker.wait_for(lambda: say.requests("A")[ref]["stage"] == "done")
    worker.wait_for(lambda: not is_locked("A"))
    with open_store("A"):
        assert "writes this journal" in run("program", "work", "--store", "A", "--once", "--json").refusal(2)
    say.put("A", "right")
    ended = worker.send(signal.SIGINT)
    assert (ended.code, ended.document["rounds"], ended.document["executed"]) == (0, 1, 1)
    assert list(ended.document["unanswered"]) == NOBODY[1:]
    assert ended.err == f"{ref}: status 0 {outputs(say, 'A', ref)[0]}\n"


def is_locked(place):
    try:
        open_store(place).close()
    except StoreLocked:
        return True
    return False


# --- a wrong executor


class Cheat:
    """A site whose ``concat`` leaves the first input out, and whose receipts are signed like any other."""

    def __init__(self, place):
        self.place = place

    def run(self, program, *inputs):
        honest = OperationRegistry.kernel().find("pel.bytes.concat", 1)
        registry = OperationRegistry([replace(honest, size=lambda _, sizes: sizes[-1], run=lambda _, given: given[-1])])
        with open_site(Path(self.place)) as site:
            done = run_program(
                site.store,
                Reference.parse(program),
                [Reference.parse(one) for one in inputs],
                registry=registry,
                executor=executor_of(site.store),
                seed=read_seed(locate(self.place, create=False, read_only=True)),
                force=True,
            )
            site.store.signed_head()
        return done.receipt.hex()


@pytest.fixture
def divergent(say, run, keys):
    """A may audit, B cheats: both have executed one request, of which another hangs. The request, and B's receipt."""
    run("peer", "trust", "A", "b", "--key", keys["B"], "--json").done()
    run("peer", "trust", "A", "a", "--key", keys["A"], *flags("produce", "execute", "audit"), "--json").done()
    run("peer", "policy", "B", "--use", "A/policy.toml", "--json").done()
    concat, digest = say.build("A", "concat"), say.build("A", "hash")
    for text in ("left", "right"):
        say.put("A", text)
    first = say.ask("A", concat, LEFT, RIGHT)["request_ref"]
    behind = say.ask("A", digest, f"{first}:0")["request_ref"]
    say.exchange("AB")
    lie = Cheat("B").run(concat, LEFT, RIGHT)
    run("program", "run", "--store", "A", concat, LEFT, RIGHT, "--json").done()
    say.exchange("BA", "AB")
    return first, behind, lie


def flags(*roles):
    return [word for role in roles for word in ("--role", role)]


def test_a_wrong_executor_is_found_named_and_marked(say, run, keys, divergent):
    """Both sites wait; who executes sees who is wrong; the verdict of the auditor counts on both, and the rest goes on."""
    first, behind, lie = divergent
    with open_store("B", read_only=True) as store:
        cheat = store.domain.hex()
    for place in "AB":
        stages = {ref: one["stage"] for ref, one in say.requests(place).items()}
        assert stages == {first: "divergent", behind: "waiting"}
        assert say.work(place, "--grace", 0)["executed"] == 0
        found = run("store", "verify", place, "--reexecute", 9, "--json")
        assert (found.code, found.document["same"], found.document["different"]) == (1, 1, 1)
        where = found.document["first_bad"]["where"]
        for name in (lie, f"domain {cheat}", keys["B"], "by its signature"):
            assert name in where
    refused = run("program", "verdict", "--store", "B", lie, "--json").refusal(2)
    assert "role audit" in refused
    verdict = run("program", "verdict", "--store", "A", lie, "--json").done()
    assert verdict["output_refs"] == [Artifact(b"leftright").reference().hex()]
    (wrong,) = verdict["wrong"]
    assert (wrong["receipt_ref"], wrong["domains"], wrong["signed_by"]) == (lie, [cheat], keys["B"])
    say.exchange("AB")
    for place in "AB":
        assert say.requests(place)[first]["output_refs"] == verdict["output_refs"]
    assert say.work("B", "--grace", 0)["executed"] == 1
    (answer,) = outputs(say, "B", behind)
    run("store", "get", "B", answer, "-o", "answer", "--json").done()
    assert Path("answer").read_bytes() == sha256(b"leftright").digest()
    states = [run("store", "conflicts", place, "--all", "--json").done()["conflicts"] for place in "AB"]
    assert [[(one["kind"], one["state"]) for one in each] for each in states] == [[("divergent", "resolved")]] * 2
    for place in "AB":  # who has it on record is not told of it each time as of something new
        printed = run("store", "verify", place, "--reexecute", 9)
        assert printed.code == 0
        assert "overruled    1" in printed.out
        found = run("store", "verify", place, "--reexecute", 9, "--json").done()
        assert (found["different"], found["overruled"], found["bad"]) == (1, 1, 0)
