"""``tidewarp peer trust``, ``policy``, ``status`` and TLS, and ``tidewarp store conflicts``, as their users meet them."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest
from writing import put

from tidewarp.codec.bodies import POLICY, SnapshotBody
from tidewarp.codec.references import Reference
from tidewarp.federation.policy import Policy
from tidewarp.federation.shell.site import open_site
from tidewarp.store import open_store

ROOT_KEY = "keys/root.key"
POINT = "03" + "00" * 31


@pytest.fixture
def keys(run):
    """Three stores, and their public keys."""
    return {place: run("store", "init", place, "--json").done()["public_key"] for place in "ABC"}


def digest(run, place):
    return run("store", "digest", place, "--json").done()


def records_of(place, kind):
    with open_store(place, read_only=True) as store:
        return list(store.journal.read(kinds={kind}))


def test_a_policy_closes_the_store(run, keys, serve):
    """B has pulled C while it was open; once it trusts A alone, C neither counts nor is pulled any more."""
    put(run, "A", "from A")
    unwanted = put(run, "C", "from C")
    site = serve("C")
    run("peer", "pull", "B", site.url, "--json").done()
    site.stop()
    assert run("store", "get", "B", unwanted).code == 0
    trusted = run("peer", "trust", "B", "hall", "--key", keys["A"], "--json").done()
    assert trusted["domain"] == run("store", "digest", "A", "--json").done()["domains"].popitem()[0]
    policy = Policy.from_toml(Path("B/policy.toml").read_text())
    assert digest(run, "B")["policy_hash"] == trusted["policy_hash"] == policy.hash.hex()
    run("store", "get", "B", unwanted, "--json").refusal(2)
    put(run, "C", "more from C")
    site = serve("C")
    ended = run("peer", "pull", "B", site.url, "--json").done()
    assert (ended["records"], ended["ignored"]) == (0, 1)
    (stranger,) = digest(run, "C")["domains"]
    line = run("peer", "pull", "B", site.url, "--domain", stranger, "--json").refusal(2)
    assert "peer trust" in line
    site.stop()
    with open_store("B", read_only=True) as store:
        assert [one.size for one in store.domains()] == [2, 1]
    site = serve("A")
    assert run("peer", "pull", "B", site.url, "--json").done()["records"] == 1
    site.stop()


def test_one_file_is_one_policy(run, keys):
    """What A wrote, B adopts: one hash. To adopt it again is no news."""
    first = run(
        "peer", "trust", "A", "line", "--key", keys["B"], "--role", "produce", "--role", "audit", "--json"
    ).done()
    second = run("peer", "trust", "A", "press", "--key", keys["C"], "--json").done()
    assert first["policy_hash"] != second["policy_hash"]
    assert second["changes"] == [f"press ({second['domain'][:12]}): accepted, roles: execute, produce, publish"]
    adopted = run("peer", "policy", "B", "--use", "A/policy.toml", "--json").done()
    assert adopted["policy_hash"] == second["policy_hash"]
    assert adopted["changes"][0].startswith("closed")
    again = run("peer", "policy", "B", "--use", "A/policy.toml", "--json").done()
    assert again["changes"] == []
    assert len(records_of("B", POLICY)) == 1
    printed = run("peer", "policy", "B").out
    assert Policy.from_toml(printed).hash.hex() == second["policy_hash"]
    assert digest(run, "A")["policy_hash"] == digest(run, "B")["policy_hash"] == second["policy_hash"]


def test_an_open_store_says_so(run, keys):
    """No policy: no hash."""
    shown = run("peer", "policy", "A", "--json").done()
    assert (shown["policy_hash"], shown["policy"]) == (None, None)
    assert run("peer", "policy", "A").out.startswith("# no policy is in force")


def test_a_role_is_withdrawn_from_the_records_to_come(run, keys, serve):
    """The bound is what is here; by hand, the text has to say it."""
    put(run, "B", "one")
    site = serve("B")
    trust = ("peer", "trust", "A", "line", "--key", keys["B"])
    run(*trust, "--role", "produce", "--role", "audit", "--json").done()
    run("peer", "pull", "A", site.url, "--json").done()
    site.stop()
    withdrawn = run(*trust, "--role", "produce", "--json").done()
    assert withdrawn["changes"][0].endswith("accepted, roles: produce, audit up to record 1")
    text = Path("A/policy.toml").read_text()
    Path("hand.toml").write_text(text.replace("until = { audit = 1 }\n", ""))
    line = run("peer", "policy", "A", "--use", "hand.toml", "--json").refusal(2)
    assert "until = { audit = 1 }" in line


def test_a_policy_that_leaves_the_own_domain_out(run, keys):
    """It is refused, with what to do; who says the switch gets it, and is told why nothing is there any more."""
    ref = put(run, "B", "of B")
    (own,) = digest(run, "B")["domains"]
    run("peer", "trust", "A", "c", "--key", keys["C"], "--json").done()
    adopt = ("peer", "policy", "B", "--use", "A/policy.toml")
    line = run(*adopt, "--json").refusal(2)
    assert own in line
    assert f"tidewarp peer trust DIR NAME --key {keys['B']}" in line
    assert "--without-own-domain" in line
    assert run("peer", "policy", "B", "--json").done()["policy_hash"] is None
    assert not Path("B/policy.toml").exists()
    assert run("store", "get", "B", ref).out == "of B"
    run(*adopt, "--without-own-domain", "--json").done()
    for text in (ref, ref[:12]):
        line = run("store", "get", "B", text).refusal(2)
        assert f"record 1 of domain {own} names it, and the policy in force does not count domain {own}" in line
        assert "peer policy" in line
    line = run("store", "get", "B", "0001" + "0" * 64).refusal(2)
    assert "no record here names it" in line
    again = run("peer", "trust", "B", "b", "--key", keys["B"], "--json")  # what is so already is not refused again
    assert again.code == 0
    assert run("store", "get", "B", ref).out == "of B"


def test_a_record_that_a_role_keeps_out(run, keys):
    """The domain counts, the record does not: said so."""
    ref = put(run, "B", "of B")
    run("peer", "trust", "A", "b", "--key", keys["B"], "--role", "audit", "--json").done()
    run("peer", "policy", "B", "--use", "A/policy.toml", "--json").done()
    assert "the policy in force does not count that record" in run("store", "get", "B", ref).refusal(2)


def test_what_was_edited_is_not_written_over(run, keys):
    """policy.toml holds a change that nobody adopted: trust refuses, policy --use takes it."""
    run("peer", "trust", "A", "line", "--key", keys["B"], "--json").done()
    text = Path("A/policy.toml").read_text()
    Path("A/policy.toml").write_text(text.replace('"line"', '"press"'))
    line = run("peer", "trust", "A", "hall", "--key", keys["C"], "--json").refusal(2)
    assert "peer policy DIR --use" in line
    run("peer", "policy", "A", "--use", "A/policy.toml", "--json").done()
    run("peer", "trust", "A", "hall", "--key", keys["C"], "--json").done()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("hall", "--key", "ab"), "64 lower-case hexadecimal digits"),
        (("hall", "--key", "ff" * 32), "nobody's public key"),
        (("hall", "--key", POINT, "--tls-key", "00" * 32), "nobody's public key"),
        (("a b", "--key", POINT), "letters, digits"),
        (("hall", "--key", POINT, "--role", "produze"), "did you mean produce?"),
        (("hall", "--key", POINT, "--url", "ftp://x"), "http://HOST:PORT"),
        (("hall", "--key", POINT, "--url", "http://x:65536"), "1 to 65535"),
        (("hall",), "--key"),
    ],
)
def test_bad_words_are_refused(run, keys, options, said):
    """In one line, and nothing is written."""
    assert said in run("peer", "trust", "A", *options, "--json").refusal(2)
    assert not Path("A/policy.toml").exists()
    assert records_of("A", POLICY) == []


def test_a_pull_with_tls(run, keys, serve):
    """Both sides know the other's key: what was pulled is the same, and the private key has mode 0600."""
    ref = put(run, "A", "a reading\n")
    run("peer", "trust", "A", "b", "--key", keys["B"], "--json").done()
    site = serve("A", "--tls", "A/keys/tls.pem")
    assert site.url.startswith("https://127.0.0.1:")
    run("peer", "trust", "B", "a", "--key", keys["A"], "--url", site.url, "--json").done()
    pulled = run("peer", "pull", "B", site.url, "--json").done()
    assert pulled["records"] == 3
    assert run("store", "get", "B", ref).out == "a reading\n"
    status = run("peer", "status", "B", "--json").done()
    (peer,) = status["peers"]
    assert (peer["name"], peer["url"], peer["last_error"]) == ("a", site.url, None)
    assert peer["cursors"] == {peer["domain"]: 3}
    assert status["federation_log"][-1]["result"] == "committed"
    assert run("peer", "status", "B").out.count("up to record 3") == 1
    site.stop()
    for file in ("A/keys/tls.pem", "B/keys/tls.pem"):
        assert stat.S_IMODE(Path(file).stat().st_mode) == 0o600


def test_hidden_bytes_wait_until_the_peer_knows(run, keys, serve):
    """B has what A hides: A keeps the bytes until B shows that it has the tombstone, or is no peer any more."""
    ref = put(run, "A", "to be hidden")
    first = serve("B", "--read-only")
    run("peer", "trust", "A", "b", "--key", keys["B"], "--url", first.url, "--json").done()
    run("peer", "policy", "B", "--use", "A/policy.toml", "--json").done()
    with open_store("A") as store:
        store.tombstone(Reference.parse(ref))
        store.signed_head()
    collect = ("store", "gc", "A", "--budget-s", 10, "--json")
    run("peer", "pull", "A", first.url, "--json").done()
    assert run(*collect).done()["kept"] == {"unacknowledged": 1}
    (peer,) = run("peer", "status", "A", "--json").done()["peers"]
    (own,) = set(digest(run, "A")["domains"]) - {peer["domain"]}
    assert own not in peer["acked"]
    second = serve("A", "--read-only")
    run("peer", "pull", "B", second.url, "--json").done()
    second.stop()
    before = Path("A/peers.toml").read_text()
    Path("A/peers.toml").write_text("")
    assert run(*collect, "--dry-run").done()["freed_artifacts"] == 1
    Path("A/peers.toml").write_text(before)
    assert run(*collect).done()["kept"] == {"unacknowledged": 1}
    run("peer", "pull", "A", first.url, "--json").done()
    first.stop()
    (peer,) = run("peer", "status", "A", "--json").done()["peers"]
    assert peer["acked"][own] == digest(run, "A")["domains"][own]["seq"]
    assert "holds 4 records" in run("peer", "status", "A").out
    assert run(*collect).done()["freed_artifacts"] == 1


def test_what_a_command_wrote_is_signed_when_it_ends(run, keys):
    """Who opens the store read-only, and signs nothing, shows all of it."""
    for n in (1, 2):
        put(run, "A", f"text {n}")
        with open_store("A", read_only=True) as store:
            assert store.signed_head().size == store.journal.size == n


def test_an_auditor_reads_what_is_internal(run, keys, serve):
    """B may audit, C may not: both know that there is a record, one of them what it says."""
    Path("file").write_text("internal")
    ref = run("store", "put", "A", "file", "--internal", "--json").done()["ref"]
    run("peer", "trust", "A", "b", "--key", keys["B"], "--role", "audit", "--json").done()
    run("peer", "trust", "A", "c", "--key", keys["C"], "--json").done()
    site = serve("A", "--tls", "A/keys/tls.pem")
    for place in "BC":
        run("peer", "trust", place, "a", "--key", keys["A"], "--url", site.url, "--json").done()
        run("peer", "pull", place, site.url, "--json").done()
    site.stop()
    assert run("store", "get", "B", ref, "--include-hidden").out == "internal"
    run("store", "get", "C", ref, "--include-hidden", "--json").refusal(2)
    assert run("store", "verify", "B", "--json").done()["ok"]


def test_a_stranger_is_refused_by_the_server(run, keys, serve):
    """C is not known to A: it is told what to do, and has nothing."""
    put(run, "A", "secret")
    run("peer", "trust", "A", "b", "--key", keys["B"], "--json").done()
    site = serve("A", "--tls", "A/keys/tls.pem")
    run("peer", "trust", "C", "a", "--key", keys["A"], "--url", site.url, "--json").done()
    line = run("peer", "pull", "C", site.url, "--json").refusal(1)
    assert f"--key {keys['C']}" in line
    site.stop()
    with open_store("C", read_only=True) as store:
        assert [one.id for one in store.domains()] == [store.domain]


def test_a_server_with_another_key_is_refused_by_the_client(run, keys, serve):
    """C answers at the address of A: its key is not the one that B has pinned."""
    run("peer", "trust", "C", "b", "--key", keys["B"], "--json").done()
    site = serve("C", "--tls", "C/keys/tls.pem")
    run("peer", "trust", "B", "a", "--key", keys["A"], "--url", site.url, "--json").done()
    assert "not the one pinned" in run("peer", "pull", "B", site.url, "--json").refusal(1)
    site.stop()


def test_tls_that_cannot_be(run, keys):
    """No peers, no known address, a file that others may read."""
    assert "no peer's key is known" in run("peer", "serve", "A", "--port", 0, "--tls", "x.pem", "--json").refusal(2)
    url = "https://127.0.0.1:1"
    assert "peer trust" in run("peer", "pull", "A", url, "--json").refusal(2)
    run("peer", "trust", "A", "b", "--key", keys["B"], "--url", url, "--json").done()
    assert "nobody answers" in run("peer", "pull", "A", url, "--json").refusal(3)
    Path("A/keys/tls.pem").chmod(0o644)
    assert "chmod 600" in run("peer", "pull", "A", url, "--json").refusal(2)
    assert "without TLS only loopback" in run(
        "peer", "serve", "A", "--port", 0, "--host", "192.0.2.1", "--json"
    ).refusal(2)


def test_stores_of_one_file(run, serve):
    """What is a site's own affair stands beside the file, under its name."""
    keys = {place: run("store", "init", place, "--json").done()["public_key"] for place in ("a.tw", "b.tw")}
    put(run, "a.tw", "a reading")
    run("peer", "trust", "a.tw", "b", "--key", keys["b.tw"], "--json").done()
    site = serve("a.tw", "--tls", "a.tw.tls.pem")
    run("peer", "trust", "b.tw", "a", "--key", keys["a.tw"], "--url", site.url, "--json").done()
    assert run("peer", "pull", "b.tw", site.url, "--json").done()["records"] == 3
    site.stop()
    assert sorted(one.name for one in Path().glob("b.tw.*")) == [
        "b.tw.key",
        "b.tw.lock",
        "b.tw.peers.toml",
        "b.tw.policy.toml",
        "b.tw.tls.pem",
    ]


def test_no_secret_in_what_commands_say(run, keys, serve):
    """The private keys, as bytes, digits or PEM, appear in no answer, error or record; nor with TIDEWARP_LOG=debug."""
    secrets = [Path(place, ROOT_KEY).read_bytes() for place in "AB"]
    run("peer", "trust", "A", "b", "--key", keys["B"], "--json").done()
    site = serve("A", "--tls", "A/keys/tls.pem")
    said = [run("peer", "trust", "B", "a", "--key", keys["A"], "--url", site.url, "--json")]
    said += [
        run("peer", *words)
        for words in (("pull", "B", site.url), ("status", "B"), ("policy", "B"), ("plan", "B", site.url))
    ]
    site.stop()
    Path("B/keys/tls.pem").chmod(0o644)
    said += [run("peer", "pull", "B", site.url), run("store", "log", "B", "--json"), run("store", "conflicts", "B")]
    pem = [Path(place, "keys/tls.pem").read_text().splitlines()[1] for place in "AB"]
    everything = "\n".join(one.out + one.err for one in said)
    everything += "".join(Path("B", name).read_text() for name in ("policy.toml", "peers.toml"))
    assert len(everything) > 2_000
    forms = [*pem, *(secret.hex() for secret in secrets), *(repr(secret) for secret in secrets)]
    assert [form for form in forms if form in everything] == []
    database = Path("B/store.db").read_bytes()
    assert [secret for secret in (*secrets, *(form.encode() for form in forms)) if secret in database] == []


def test_a_quota_of_a_domain(run, keys, serve):
    """What was taken before stays; the error names the next record."""
    put(run, "A", "small")
    site = serve("A")
    run("peer", "trust", "B", "a", "--key", keys["A"], "--url", site.url, "--json").done()
    assert run("peer", "pull", "B", site.url, "--json").done()["records"] == 1
    site.stop()
    put(run, "A", "x" * 2_000)
    (domain,) = digest(run, "A")["domains"]
    with Path("B/peers.toml").open("a") as peers:
        peers.write(f"[quotas]\n{domain} = 1000\n")
    site = serve("A")
    ended = run("peer", "pull", "B", site.url, "--json")
    site.stop()
    assert ended.code == 1
    (one,) = ended.document["domains"]
    assert (one["id"], one["before"], one["after"], one["outcome"]) == (domain, 1, 1, "full")
    assert "record 2 of" in one["reason"]
    assert "its quota is 1000" in one["reason"]
    assert "peers.toml" in one["reason"]
    assert run("store", "log", "B", "--domain", domain, "--json").done()["records"] is not None


def test_a_full_store_is_no_dead_end(run, keys, serve):
    """A pull lists what it took; a peer can still be named, and the quota raised as the message says."""
    put(run, "A", "x" * 500)
    put(run, "A", "y" * 70_000)
    (domain,) = digest(run, "A")["domains"]
    run("peer", "trust", "B", "a", "--key", keys["A"], "--json").done()
    held = run("store", "stat", "B", "--json").done()["bytes"]
    run("store", "quota", "B", held, "--json").done()
    site = serve("A")
    ended = run("peer", "pull", "B", site.url, "--json")
    assert ended.code == 1
    assert ended.err == ""
    (one,) = ended.document["domains"]
    assert (one["id"], one["outcome"], one["after"]) == (domain, "full", one["after"])
    assert "tidewarp store quota DIR BYTES" in one["reason"]
    assert ended.document["incomplete"]
    assert run("store", "verify", "B", "--json").done()["ok"]
    shown = run("peer", "pull", "B", site.url)
    assert shown.code == 1
    assert f"domain {domain[:12]} full" in shown.out
    run("peer", "trust", "B", "c", "--key", keys["C"], "--json").done()
    assert "store quota" in put_refused(run, "B")
    assert run("store", "quota", "B", 1_000_000, "--json").done() == {"quota_bytes": 1_000_000}
    assert run("peer", "pull", "B", site.url, "--json").done()["records"] == 2 - one["after"]
    site.stop()


def put_refused(run, place):
    Path("file").write_text("no room")
    return run("store", "put", place, "file", "--json").refusal(1)


# --- conflicts


@pytest.fixture
def forked(run, keys, serve):
    """A and its copy D have both been written to; C has pulled from A, and then met D. B may resolve."""
    put(run, "A", "both have this")
    shutil.copytree("A", "D")
    put(run, "A", "only A has this")
    put(run, "D", "only D has this")
    run("peer", "trust", "B", "resolver", "--key", keys["B"], "--role", "resolve", "--json").done()
    run("peer", "trust", "B", "a", "--key", keys["A"], "--json").done()
    run("peer", "trust", "B", "c", "--key", keys["C"], "--json").done()
    run("peer", "policy", "C", "--use", "B/policy.toml", "--json").done()
    site = serve("A")
    run("peer", "pull", "C", site.url, "--json").done()
    site.stop()
    site = serve("D")
    ended = run("peer", "pull", "C", site.url, "--json")
    assert ended.code == 1
    assert ended.document["conflicts"] == 1
    site.stop()
    return digest(run, "A")["domains"].popitem()


def listed(run, place, *options):
    return run("store", "conflicts", place, *options, "--json").done()["conflicts"]


def test_a_fork_is_listed_and_the_domain_stands_still(forked, run):
    """Both records are named, with the one that is here; the domain counts up to what both copies have."""
    domain, _ = forked
    (one,) = listed(run, "C")
    assert (one["kind"], one["subject"], one["state"], one["chosen"]) == ("fork", domain, "open", None)
    assert sorted(choice["held"] for choice in one["choices"]) == [False, True]
    assert digest(run, "C")["domains"][domain]["seq"] == 1
    assert digest(run, "C")["domains"][domain]["status"] == "frozen"
    assert one["id"] in run("store", "conflicts", "C").out


def test_a_fork_is_resolved_by_the_resolver_and_by_nobody_else(forked, run, serve):
    """C may not. B learns of the fork, chooses, and C follows once it has pulled the word of B."""
    domain, _ = forked
    (one,) = listed(run, "C")
    (held,) = (choice["hash"] for choice in one["choices"] if choice["held"])
    line = run("store", "conflicts", "C", "--resolve", one["id"], "--choose", held, "--json").refusal(2)
    assert "role resolve" in line
    site = serve("A")
    run("peer", "pull", "B", site.url, "--json").done()
    site.stop()
    site = serve("C")
    assert run("peer", "pull", "B", site.url, "--json").code == 1
    site.stop()
    chosen = listed(run, "B", "--resolve", one["id"][:12], "--choose", held[:12])
    assert [(each["id"], each["state"], each["chosen"]) for each in chosen] == [(one["id"], "resolved", held)]
    assert listed(run, "B") == []
    assert [each["state"] for each in listed(run, "B", "--all")] == ["resolved"]
    site = serve("B")
    settled = run("peer", "pull", "C", site.url, "--json").done()
    assert {one["id"]: one["outcome"] for one in settled["domains"]}[domain] == "settled"
    site.stop()
    assert listed(run, "C") == []
    assert digest(run, "C")["domains"][domain] == digest(run, "B")["domains"][domain]
    assert digest(run, "C")["domains"][domain]["status"] == "resolved"
    assert digest(run, "C")["domains"][domain]["seq"] == 2
    assert digest(run, "C")["state_hash"] == digest(run, "B")["state_hash"]
    put(run, "A", "A goes on")
    site = serve("A")
    assert run("peer", "pull", "C", site.url, "--json").done()["records"] == 1
    site.stop()


def test_the_branch_that_was_chosen_takes_the_place_of_the_other(forked, run, serve):
    """C holds what A wrote, B chooses what D wrote: C pulls that, its store is whole, and A has to begin anew."""
    domain, _ = forked
    site = serve("C")
    assert run("peer", "pull", "B", site.url, "--json").code == 1
    site.stop()
    (one,) = listed(run, "C")
    (other,) = (choice["hash"] for choice in one["choices"] if not choice["held"])
    listed(run, "B", "--resolve", one["id"], "--choose", other)
    site = serve("B")
    run("peer", "pull", "C", site.url, "--json")
    site.stop()
    assert digest(run, "C")["domains"][domain]["seq"] == 1
    site = serve("D")
    for place in "CB":
        assert run("peer", "pull", place, site.url, "--json").done()["records"] == 1
    site.stop()
    site = serve("A")
    (refused,) = run("peer", "pull", "C", site.url, "--json").done()["domains"]
    assert (refused["outcome"], refused["reason"]) == ("unchanged", "the peer holds a branch that was not chosen")
    site.stop()
    for place in "CB":
        assert digest(run, place)["domains"][domain] == {**digest(run, "D")["domains"][domain], "status": "resolved"}
        assert run("store", "verify", place, "--json").done()["ok"]
    site = serve("B")
    assert run("peer", "pull", "A", site.url, "--json").code == 1
    site.stop()
    assert "--successor" in run("store", "put", "A", "file", "--json").refusal(1)


def test_the_copy_that_was_chosen_goes_on(forked, run, serve):
    """A has met D and adds nothing; the resolver chooses A, and A hears of it."""
    run("peer", "policy", "A", "--use", "B/policy.toml", "--json").done()
    site = serve("D")
    assert run("peer", "pull", "A", site.url, "--json").code == 1
    site.stop()
    assert "--successor" in run("store", "put", "A", "file", "--json").refusal(1)
    (one,) = listed(run, "A")
    (held,) = (choice["hash"] for choice in one["choices"] if choice["held"])
    site = serve("C")
    run("peer", "pull", "B", site.url, "--json")
    site.stop()
    listed(run, "B", "--resolve", one["id"], "--choose", held)
    site = serve("B")
    run("peer", "pull", "A", site.url, "--json")
    site.stop()
    put(run, "A", "A goes on")
    site = serve("D")
    assert run("peer", "pull", "A", site.url, "--json").code == 0
    site.stop()
    put(run, "A", "and on")


def test_two_copies_that_meet_add_nothing_more(forked, run, serve):
    """The own domain is forked: to pull from the other copy says so, and so does every put from then on."""
    site = serve("D")
    assert run("peer", "pull", "A", site.url, "--json").code == 1
    site.stop()
    Path("file").write_text("more")
    assert "--successor" in run("store", "put", "A", "file", "--json").refusal(1)
    domain, _ = forked
    run("store", "init", "E", "--successor", "A", "--json").done()
    with open_store("E", read_only=True) as store, open_store("A", read_only=True) as old:
        (first,) = store.journal.read()
        body = SnapshotBody.from_bytes(first.body)
        assert body.name == f"successor of {domain}"
        assert body.snapshot.vector == ((old.domain, 1, old.hash_at(old.domain, 1)),)
    put(run, "E", "more")
    assert "go on with it" in run("store", "init", "F", "--successor", "E", "--json").refusal(2)
    assert not Path("F").exists()


def test_a_restored_backup_gets_its_tail_back(run, keys, serve):
    """Until it has, nothing is added: what a pull that broke off has shown is not forgotten."""
    put(run, "A", "before the backup")
    shutil.copytree("A", "backup")
    put(run, "A", "after it")
    site = serve("A")
    run("peer", "pull", "B", site.url, "--json").done()
    site.stop()
    shutil.rmtree("A")
    shutil.copytree("backup", "A")
    with open_site(Path("A")) as old, old.store.transaction():
        old.ledger.note_own(2)
    Path("file").write_text("too early")
    assert "peer pull" in run("store", "put", "A", "file", "--json").refusal(1)
    site = serve("B")
    assert run("peer", "pull", "A", site.url, "--json").done()["records"] == 1
    site.stop()
    put(run, "A", "in its place")
    with open_store("A", read_only=True) as store:
        assert store.journal.size == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--resolve", "0" * 12), "they go together"),
        (("--resolve", "0" * 12, "--choose", "0" * 12), "no conflict has this id"),
        (("--resolve", "0", "--choose", "0" * 12), "at least 12 digits"),
    ],
)
def test_what_cannot_be_resolved(run, keys, options, said):
    """Nothing is written."""
    assert said in run("store", "conflicts", "A", *options, "--json").refusal(2)
