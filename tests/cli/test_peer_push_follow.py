"""``tidewarp peer push`` and ``peer pull --follow``: sites in processes of their own, over loopback, at ports that the system chose."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from writing import fork, put

from tidewarp.store import open_store

pytestmark = pytest.mark.proof("two sites that exchange their records agree")


def key(run, place):
    return run("peer", "status", place, "--json").done()["public_key"]


def test_a_site_that_nobody_can_reach_pushes(sites, run, serve):
    """Over TLS, with the role federate: what it has is there, large bytes too; a second push brings nothing."""
    ref = put(run, "A", "a reading\n")
    large = put(run, "A", "x" * 300_000)
    run("peer", "trust", "B", "a", "--key", key(run, "A"), "--role", "produce", "--json").done()
    site = serve("B", "--tls", "B/keys/tls.pem")
    run("peer", "trust", "A", "b", "--key", key(run, "B"), "--url", site.url, "--json").done()
    refused = run("peer", "push", "A", site.url, "--json")
    assert refused.code == 1
    assert "federate" in "".join(one["reason"] for one in refused.document["domains"])
    site.stop()
    run("peer", "trust", "B", "a", "--key", key(run, "A"), "--role", "produce", "--role", "federate", "--json").done()
    site = serve("B", "--tls", "B/keys/tls.pem")
    run("peer", "trust", "A", "b", "--key", key(run, "B"), "--url", site.url, "--json").done()
    pushed = run("peer", "push", "A", site.url, "--json").done()
    assert {*pushed} == {
        "records",
        "conflicts",
        "bytes",
        "domains",
        "absent",
        "incomplete",
        "contested",
        "contested_more",
        "seconds",
    }
    assert (pushed["conflicts"], pushed["absent"], pushed["incomplete"]) == (0, 0, None)
    assert pushed["records"] >= 2
    assert run("peer", "push", "A", site.url, "--json").done()["records"] == 0
    assert "0 records" in run("peer", "push", "A", site.url).out
    site.stop()
    assert run("store", "get", "B", ref).out == "a reading\n"
    assert run("store", "get", "B", large).out == "x" * 300_000
    run("store", "verify", "B", "--json").done()


def test_a_push_to_who_holds_another_history(sites, run, serve):
    """The reason names the command that brings the proof; once it is here, the push shows it."""
    fork(run)
    site = serve("A")
    run("peer", "pull", "B", site.url, "--json").done()
    site.stop()
    site = serve("B")
    first = run("peer", "push", "copy", site.url, "--json")
    assert (first.code, first.document["contested"]) == (1, [])
    (told,) = [one for one in first.document["domains"] if one["outcome"] == "forked"]
    assert "tidewarp peer pull DIR URL" in told["reason"]
    run("peer", "pull", "copy", site.url, "--json").refusal(1)
    second = run("peer", "push", "copy", site.url, "--json")
    (one,) = second.document["contested"]
    (known,) = run("store", "conflicts", "copy", "--json").done()["conflicts"]
    assert (one["id"], one["seq"], one["evidence"]) == (known["id"], 2, known["evidence"])
    assert f"  proof  {one['evidence']}\n" in run("peer", "push", "copy", site.url).out
    site.stop()


def test_nobody_answers_a_push(sites, run, serve):
    """3, with the command that starts it; 2 for an address that is none."""
    site = serve("B")
    site.stop()
    assert "tidewarp peer serve" in run("peer", "push", "A", site.url).refusal(3)
    run("peer", "push", "A", "http://127.0.0.1:99999").refusal(2)


def test_a_site_that_follows_another(sites, run, serve, start):
    """Whatever the other writes is here soon, without a further command; SIGTERM ends it with the report of all pulls."""
    put(run, "A", "the first")
    site = serve("A", "--read-only")
    following = start("peer", "pull", "B", site.url, "--follow", "--json")

    def holds(number):
        def has_come():
            with open_store(Path("B"), read_only=True) as store:
                return sum(one.size for one in store.domains()) >= number

        return has_come

    following.wait_for(holds(1))
    put(run, "A", "the second")
    following.wait_for(holds(2))
    following.wait_for(
        lambda: run("store", "put", "B", "file", "--json").code == 0
    )  # the store is free between two pulls
    ended = following.send(signal.SIGTERM).done()
    assert (ended["records"], ended["conflicts"], ended["incomplete"], ended["interrupted"]) == (2, 0, None, True)
    assert ended["pulls"] >= 2
    (one,) = ended["domains"]
    assert (one["before"], one["after"], one["outcome"]) == (0, 2, "pulled")
    site.stop()
    with open_store(Path("A")) as a, open_store(Path("B")) as b:
        assert list(b.records(a.domain)) == list(a.records(a.domain))


def test_who_follows_a_site_that_is_away_waits_for_it(sites, run, serve, start):
    """It does not end; SIGINT ends it at once, with the report of nothing."""
    site = serve("A")
    site.stop()
    following = start("peer", "pull", "B", site.url, "--follow", "--json")
    status = Path(f"/proc/{following.process.pid}/status")

    def catches_sigterm():
        (caught,) = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("SigCgt:")]
        return int(caught, 16) >> signal.SIGTERM - 1 & 1

    following.wait_for(catches_sigterm)
    ended = following.send(signal.SIGINT)
    assert ended.code == 0
    assert (ended.document["records"], ended.document["interrupted"]) == (0, True)


def test_a_bound_and_follow(sites, run):
    """They contradict each other."""
    run("peer", "pull", "B", "http://127.0.0.1:1", "--follow", "--until", "3").refusal(2)
    run("peer", "pull", "B", "http://127.0.0.1:1", "--follow", "--max-records", "3").refusal(2)
