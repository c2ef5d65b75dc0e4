"""``tidewarp peer``: two sites in processes of their own, over loopback, at ports that the system chooses."""

from __future__ import annotations

import io
import shutil
import signal
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from writing import fork, put

from tidewarp.codec.artifacts import Artifact
from tidewarp.store import open_store
from tidewarp.testing.contents import Site as Neighbour

pytestmark = pytest.mark.proof("two sites that exchange their records agree")


def digest(run, place):
    return run("store", "digest", place, "--json").done()["state_hash"]


def test_the_walk_through_of_two_sites(sites, run, serve):
    """What B pulls from A it then has: one state hash, the bytes, and a second pull brings nothing."""
    ref = put(run, "A", "a reading\n")
    before = digest(run, "B")
    site = serve("A")
    pulled = run("peer", "pull", "B", site.url, "--json").done()
    assert {*pulled} == {
        "peer",
        "records",
        "conflicts",
        "bytes",
        "domains",
        "ignored",
        "absent",
        "incomplete",
        "contested",
        "contested_more",
        "seconds",
    }
    assert (pulled["records"], pulled["conflicts"], pulled["incomplete"]) == (1, 0, None)
    assert (pulled["contested"], pulled["contested_more"]) == ([], 0)
    (one,) = pulled["domains"]
    assert (one["before"], one["after"], one["outcome"]) == (0, 1, "pulled")
    again = run("peer", "pull", "B", site.url, "--json").done()
    assert (again["records"], again["conflicts"]) == (0, 0)
    site.stop()
    assert digest(run, "A") == digest(run, "B") != before
    assert run("store", "get", "B", ref).out == "a reading\n"
    for place in sites:
        assert run("store", "verify", place, "--json").done()["records"] == 1
    assert run("store", "stat", "B", "--json").done()["domains"] == 2


def test_both_sites_write_and_each_pulls_from_the_other(sites, run, serve):
    """Edges of the exchange in any order: the same hash, with a large artifact among what came."""
    put(run, "A", "from A")
    put(run, "A", "more from A")
    put(run, "B", "from B")
    put(run, "B", "x" * 300_000)
    for place, other in ((1, 0), (0, 1)):
        site = serve(sites[other])
        assert run("peer", "pull", sites[place], site.url, "--json").done()["conflicts"] == 0
        site.stop()
    assert digest(run, "A") == digest(run, "B")
    merged = [run("store", "log", place, "--merge", "--json").done()["records"] for place in sites]
    assert merged[0] == merged[1]
    assert [one["seq"] for one in merged[0]] == [1, 1, 2, 2]
    apart = run("store", "log", "A", "--json").done()["records"]
    assert [one["seq"] for one in apart] == [1, 2, 1, 2]


def test_a_third_site_relays_what_it_holds(sites, run, serve):
    """C never meets A; what it pulls from B is signed by A, so it does not have to believe B."""
    run("store", "init", "C", "--json").done()
    ref = put(run, "A", "a reading")
    site = serve("A")
    run("peer", "pull", "B", site.url, "--json").done()
    site.stop()
    put(run, "B", "another")
    site = serve("B")
    assert run("peer", "pull", "C", site.url, "--json").done()["records"] == 2
    site.stop()
    assert digest(run, "B") == digest(run, "C")
    assert run("store", "get", "C", ref).out == "a reading"


def test_what_is_internal_stays_at_home(sites, run, serve):
    """B learns that there is a record, and neither its body nor its bytes; the published state is one."""
    ref = put(run, "A", "a secret", "--internal")
    put(run, "A", "a reading")
    site = serve("A")
    assert run("peer", "pull", "B", site.url, "--json").done()["records"] == 2
    site.stop()
    run("store", "get", "B", ref).refusal(2)
    states = [one["state"] for one in run("store", "log", "B", "--json").done()["records"]]
    assert states == ["withheld", "here"]
    assert digest(run, "A") == digest(run, "B")
    run("store", "verify", "B", "--json").done()
    assert b"a secret" not in b"".join(file.read_bytes() for file in Path("B").rglob("*") if file.is_file())


def test_a_plan_takes_nothing(sites, run, serve):
    """It says what a pull would bring, and again afterwards that there is nothing."""
    put(run, "A", "one")
    put(run, "A", "two")
    site = serve("A")
    planned = run("peer", "plan", "B", site.url, "--json").done()
    (one,) = planned["domains"]
    assert (one["ours"], one["theirs"], one["records"]) == (0, 2, 2)
    assert run("store", "stat", "B", "--json").done()["records"] == 0
    assert "ours 0, theirs 2" in run("peer", "plan", "B", site.url).out
    run("peer", "pull", "B", site.url, "--json").done()
    (one,) = run("peer", "plan", "B", site.url, "--json").done()["domains"]
    assert (one["ours"], one["theirs"], one["records"]) == (2, 2, 0)
    site.stop()


def test_a_pull_may_be_bounded(sites, run, serve):
    """By domain, by number and by count; the next one goes on from there."""
    for n in range(5):
        put(run, "A", f"reading {n}")
    site = serve("A")
    none = run("peer", "pull", "B", site.url, "--domain", "00" * 32, "--json").done()
    assert (none["records"], none["ignored"]) == (0, 1)
    assert run("peer", "pull", "B", site.url, "--until", 2, "--json").done()["records"] == 2
    assert run("peer", "pull", "B", site.url, "--until", 2, "--json").done()["records"] == 0
    assert run("peer", "pull", "B", site.url, "--max-records", 1, "--json").done()["records"] == 1
    run("store", "verify", "B", "--json").done()
    domain = run("store", "log", "A", "--json").done()["records"][0]["domain"]
    assert run("peer", "pull", "B", site.url, "--domain", domain, "--json").done()["records"] == 2
    site.stop()
    assert digest(run, "A") == digest(run, "B")
    run("peer", "pull", "B", site.url, "--domain", "xyz", "--json").refusal(2)


def test_a_program_run_at_one_site_is_reused_at_the_other(sites, run, serve):
    """Receipt and result came with the records; nothing is executed again."""
    source = '{"inputs": ["a"], "nodes": {"h": {"op": "pel.bytes.hash.asl1/1", "in": ["a"]}}, "outputs": ["h"]}'
    Path("hash.json").write_text(source)
    ref = put(run, "A", "a reading")
    program = run("program", "build", "hash.json", "--store", "A", "--json").done()["program_ref"]
    done = run("program", "run", "--store", "A", program, ref, "--json").done()
    site = serve("A")
    run("peer", "pull", "B", site.url, "--json").done()
    site.stop()
    assert run("program", "run", "--store", "B", program, ref, "--json").done() == {**done, "reused": True}
    assert run("store", "verify", "B", "--json").done()["receipts"] == 1


def test_the_word_of_a_site_that_does_not_count_is_no_result(sites, run, serve):
    """Once B has named whom it trusts, the receipt of A is there and believed by nobody: B executes."""
    source = '{"inputs": ["a"], "nodes": {"h": {"op": "pel.bytes.hash.asl1/1", "in": ["a"]}}, "outputs": ["h"]}'
    Path("hash.json").write_text(source)
    for place in sites:
        ref = put(run, place, "a reading")
        program = run("program", "build", "hash.json", "--store", place, "--json").done()["program_ref"]
    done = run("program", "run", "--store", "A", program, ref, "--json").done()
    site = serve("A")
    run("peer", "pull", "B", site.url, "--json").done()
    site.stop()
    stranger = run("store", "init", "C", "--json").done()["public_key"]
    run("peer", "trust", "B", "c", "--key", stranger, "--json").done()
    own = run("program", "run", "--store", "B", program, ref, "--json").done()
    assert (own["reused"], own["computation_key"]) == (False, done["computation_key"])
    assert run("program", "run", "--store", "B", program, ref, "--json").done()["receipt_ref"] == own["receipt_ref"]


@pytest.fixture
def relays(run):
    """Stores A, B and C: A and C hold a record of a fourth site, and C alone the artifact that it names."""
    site = Neighbour(bytes([9]) * 32)
    artifact = Artifact(bytes(70_000))
    ref = site.put(artifact.payload, carry=False)
    for place, sources in (("A", {}), ("B", None), ("C", {ref: io.BytesIO(artifact.to_bytes())})):
        Path(place).mkdir()  # a directory: the commands take it by this name
        with open_store(place, create=True) as store:
            if sources is not None:
                site.give(store, sources=sources)
    return ref.hex()


@pytest.mark.parametrize("by_pull", [True, False])
def test_bytes_that_a_peer_does_not_give_are_named_until_they_come(relays, run, serve, by_pull):
    """The pull counts them, stat too, verify and fsck find them; another site's pull, or a repair from it, brings them."""
    site = serve("A")
    pulled = run("peer", "pull", "B", site.url, "--json").done()
    assert (pulled["records"], pulled["absent"], pulled["incomplete"]) == (1, 1, None)
    assert "1 artifacts have no bytes here" in run("peer", "pull", "B", site.url).out
    site.stop()
    stat = run("store", "stat", "B", "--json").done()
    assert (stat["withheld"], stat["withheld_bytes"], stat["bytes"]) == (1, 70_000, 0)
    assert "fsck DIR --repair --from URL" in run("store", "stat", "B").out
    for command in ("verify", "fsck"):
        ended = run("store", command, "B", "--json")
        assert (ended.code, relays in ended.out, "missing bytes" in ended.out) == (1, True, True)
        assert "fsck DIR --repair --from URL" in ended.out
    site = serve("C")
    if by_pull:
        assert run("peer", "pull", "B", site.url, "--json").done()["absent"] == 0
    else:
        assert run("store", "fsck", "B", "--repair", "--from", site.url, "--json").done()["clean"]
    site.stop()
    assert run("store", "stat", "B", "--json").done()["withheld"] == 0
    assert run("store", "verify", "B", "--json").done()["ok"]
    assert run("store", "fsck", "B", "--json").done()["problems"] == []


@pytest.mark.parametrize("command", ["pull", "plan"])
@pytest.mark.parametrize(("status", "code", "said"), [(404, 2, "no tidewarp peer"), (500, 3, "answered 500")])
def test_another_server_at_the_address(sites, run, command, status, code, said):
    """A wrong address is named as one, exit 2; a server that fails for now is no such thing, exit 3."""

    class Other(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(status)

        def log_message(self, format, *args):
            """Nothing is written."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            ended = run("peer", command, "B", url)
        finally:
            server.shutdown()
    assert ended.code == code
    assert said in ended.out + ended.err
    assert "no domain" not in ended.out
    assert "nobody answers" not in ended.err
    assert "internal" not in ended.err


def test_nobody_answers(sites, run, serve):
    """Exit 3 and the command that starts the other site; nothing is written."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        for command in ("pull", "plan"):
            line = run("peer", command, "B", url, "--json").refusal(3)
            assert url in line
            assert "tidewarp peer serve" in line
    assert run("store", "stat", "B", "--json").done()["records"] == 0


@pytest.mark.parametrize(
    "url", ["", "7001", "127.0.0.1:7001", "ftp://127.0.0.1", "http://", "http://h:port", "https://127.0.0.1:1"]
)
def test_what_is_no_address_of_a_site_is_refused(sites, run, url):
    """Exit 2, before anything is asked."""
    run("peer", "pull", "B", url, "--json").refusal(2)


def test_a_port_that_is_taken(sites, run, serve):
    """Exit 2 with the port; so is an address of another machine, and a store that is none."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert str(port) in run("peer", "serve", "A", "--port", port, "--json").refusal(2)
    assert "loopback" in run("peer", "serve", "A", "--port", 0, "--host", "0.0.0.0", "--json").refusal(2)
    run("peer", "serve", "nowhere", "--port", 0, "--json").refusal(2)
    run("peer", "serve", "A", "--json").refusal(2)
    run("peer", "serve", "A", "--port", 65_536, "--json").refusal(2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_ends_with_its_first_signal(sites, run, serve, number):
    """In order, with 0: it has no end of its own. The store is free then."""
    site = serve("A")
    run("store", "put", "A", "nothing", "--json").refusal(2)
    ended = site.living.send(number)
    assert (ended.code, ended.err) == (0, "")
    put(run, "A", "a reading")


def test_a_server_beside_a_writer(sites, run, serve):
    """With --read-only another process may write; what it has written is served."""
    put(run, "A", "one")
    site = serve("A", "--read-only")
    assert run("peer", "pull", "B", site.url, "--json").done()["records"] == 1
    put(run, "A", "two")
    assert run("peer", "pull", "B", site.url, "--json").done()["records"] == 1
    site.stop()
    assert digest(run, "A") == digest(run, "B")


def test_the_address_as_an_object(sites, start):
    """One object when it is ready, and no second one at the end."""
    living = start("peer", "serve", "A", "--port", 0, "--json")
    line = living.process.stdout.readline()
    ended = living.send(signal.SIGINT)
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    assert line.startswith('{"serving": "http://127.0.0.1:')


def second_hash(place):
    """Of the second record of the store's own domain."""
    with open_store(place, read_only=True) as store:
        return store.hash_at(store.domain, 2).hex()


def test_two_copies_of_one_store_are_a_fork(sites, run, serve):
    """Both were written to, so there are two histories: exit 1, evidence is kept, and B freezes at what is common."""
    fork(run)
    site = serve("A")
    run("peer", "pull", "B", site.url, "--json").done()
    site.stop()
    site = serve("copy")
    found = run("peer", "pull", "B", site.url, "--json")
    assert (found.code, found.document["conflicts"]) == (1, 1)
    assert [one["outcome"] for one in found.document["domains"]] == ["forked"]
    again = run("peer", "pull", "B", site.url, "--json")
    said = run("peer", "pull", "B", site.url)
    site.stop()
    (listed,) = run("store", "conflicts", "B", "--json").done()["conflicts"]
    hashes = {name: second_hash(name) for name in ("A", "copy")}
    for document in (found.document, again.document):  # the second pull finds the domain frozen
        (one,) = document["contested"]
        assert (one["id"], one["kind"], one["state"], one["seq"]) == (listed["id"], "fork", "open", 2)
        assert one["evidence"] == listed["evidence"]
        assert {(each["hash"], each["held"]) for each in one["records"]} == {
            (hashes["A"], True),
            (hashes["copy"], False),
        }
        assert one["domain"] == listed["subject"]
        assert "tidewarp store conflicts DIR" in one["next"]
    assert said.code == 1
    for part in (f"fork {one['id']} open of domain {one['domain']} at record 2", *hashes.values(), one["evidence"]):
        assert part in said.out
    assert "tidewarp store conflicts DIR --resolve ID --choose HASH" in said.out
    verified = run("store", "verify", "B", "--json")
    assert verified.code == 1
    assert "two histories" in verified.document["first_bad"]["rule"]
    assert run("store", "stat", "B", "--json").done()["conflicts_open"] == 1
    assert run("store", "get", "B", put(run, "B", "still works")).out == "still works"


def test_a_store_that_finds_its_own_copy_says_so(sites, run, serve):
    """The owner of the key hears it from any peer that has the other history."""
    fork(run)
    site = serve("copy")
    line = run("peer", "pull", "A", site.url, "--json").refusal(1)
    site.stop()
    assert "two copies were written to" in line
    (one,) = run("store", "conflicts", "A", "--json").done()["conflicts"]
    for part in (one["id"], second_hash("A"), second_hash("copy"), one["evidence"], "tidewarp store conflicts DIR"):
        assert part in line


def test_an_old_copy_gets_its_own_tail_back(sites, run, serve):
    """A backup that was restored pulls what it lacks of its own records, and goes on behind them."""
    ref = put(run, "A", "one")
    shutil.copytree("A", "backup")
    lost = put(run, "A", "two")
    site = serve("A")
    run("peer", "pull", "B", site.url, "--json").done()
    site.stop()
    site = serve("B")
    assert run("peer", "pull", "backup", site.url, "--json").done()["records"] == 1
    site.stop()
    for one, text in ((ref, "one"), (lost, "two")):
        assert run("store", "get", "backup", one).out == text
    put(run, "backup", "three")
    assert run("store", "verify", "backup", "--json").done()["records"] == 3


def test_a_server_that_is_killed_while_it_is_asked(sites, run, serve):
    """What was kept is kept, and the next pull has the rest."""
    with open_store("A") as store:
        store.put_many([(b"%d" % n, None) for n in range(500)])
    site = serve("A")
    site.living.process.kill()
    site.living.process.wait()
    run("peer", "pull", "B", site.url, "--json").refusal(3)
    site = serve("A")
    assert run("peer", "pull", "B", site.url, "--json").done()["records"] == 500
    site.stop()
    assert digest(run, "A") == digest(run, "B")


def test_what_is_in_quarantine_is_said(sites, run):
    """Of whom it came, how much it is, and why it was refused."""

    class Liar(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "6")
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Liar) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}"
        try:
            assert run("peer", "pull", "B", url, "--json").code == 1
        finally:
            server.shutdown()
    (kept,) = run("peer", "status", "B", "--json").done()["quarantine"]
    assert (kept["peer"], kept["domain"], kept["bytes"]) == (url, None, 6)
    assert kept["reason"].startswith("payload_mismatch: 6 bytes of JSON: ")
    assert f"in quarantine 6 bytes from {url}: {kept['reason']}" in run("peer", "status", "B").out
    assert run("peer", "status", "A", "--json").done()["quarantine"] == []
