"""``tidewarp store keys``, as an owner uses it who keeps the root key elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from writing import put

from tidewarp.codec.ed25519 import public_key_of

SEEDS = [bytes([n]) * 32 for n in (7, 8)]
KEYS = [public_key_of(seed).hex() for seed in SEEDS]


@pytest.fixture(params=["A", "A.tw"])
def store(request, run):
    """A store in both forms, and two key files."""
    for n, seed in enumerate(SEEDS):
        Path(f"key{n}").write_bytes(seed)
    run("store", "init", request.param, "--json").done()
    return request.param


def signing_key(place):
    return Path(place, "keys/signing.key") if Path(place).is_dir() else Path(f"{place}.signing.key")


def root_key(place):
    return Path(place, "keys/root.key") if Path(place).is_dir() else Path(f"{place}.key")


def test_a_new_store_has_its_root_key(store, run):
    shown = run("store", "keys", store, "--json").done()
    assert [*shown] == ["domain", "root", "keys", "signer", "heads"]
    assert (shown["keys"], shown["signer"]) == ([], shown["root"])


def test_a_key_is_declared_and_replaced_and_others_follow(store, run, serve):
    """The root key is away meanwhile; a site that begins then has it all, and the domain stays what it was."""
    root = run("store", "keys", store, "--json").done()["root"]
    first = run("store", "keys", store, "--sign-with", "key0", "--json").done()
    assert (first["keys"], first["signer"], first["root"]) == ([KEYS[0]], KEYS[0], root)
    assert signing_key(store).stat().st_mode & 0o777 == 0o600
    root_key(store).rename("away")
    put(run, store, "by the first")
    second = run("store", "keys", store, "--sign-with", "key1", "--withdraw", KEYS[0], "--json").done()
    assert (second["keys"], second["signer"]) == ([KEYS[1]], KEYS[1])
    ref = put(run, store, "by the second")
    shown = run("store", "keys", store, "--json").done()
    assert len(shown["heads"]) == 3
    assert run("store", "verify", store, "--json").code == 0
    assert run("store", "fsck", store, "--json").done()["clean"]
    site = serve(store)
    run("store", "init", "B", "--json").done()
    pulled = run("peer", "pull", "B", site.url, "--json").done()
    assert pulled["conflicts"] == 0
    site.stop()
    assert run("store", "get", "B", ref).out == "by the second"
    assert run("store", "verify", "B", "--json").code == 0


def test_the_last_key_is_withdrawn(store, run):
    """Not while the root key is away; then it signs again, and nothing leans on what was."""
    run("store", "keys", store, "--sign-with", "key0", "--json").done()
    put(run, store, "x")
    root_key(store).rename("away")
    line = run("store", "keys", store, "--withdraw", KEYS[0], "--json").refusal(2)
    assert "it is missing" in line
    assert run("store", "keys", store, "--json").done()["keys"] == [KEYS[0]]
    Path("away").rename(root_key(store))
    shown = run("store", "keys", store, "--withdraw", KEYS[0], "--json").done()
    assert (shown["keys"], shown["signer"], len(shown["heads"])) == ([], shown["root"], 1)
    assert not signing_key(store).exists()


def test_a_key_may_be_added_that_is_used_later(store, run):
    """As one that lies in a safe; adding it twice writes nothing."""
    shown = run("store", "keys", store, "--add", KEYS[1], "--json").done()
    assert (shown["keys"], shown["signer"]) == ([KEYS[1]], shown["root"])
    assert run("store", "keys", store, "--add", KEYS[1], "--json").done() == shown
    text = run("store", "keys", store).out
    assert text.splitlines() == [f"root key {shown['root']}  signs", f"key      {KEYS[1]}"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--withdraw", KEYS[0]], "names it not"),
        (["--add", KEYS[0], "--withdraw", KEYS[0]], "added too"),
        (["--add", "00"], "64 lower-case"),
        (["--sign-with", "short"], "32 bytes"),
        (["--sign-with", "nowhere"], "nowhere"),
    ],
)
def test_what_makes_no_sense_is_refused(store, run, options, said):
    """Nothing is written."""
    Path("short").write_bytes(b"short")
    before = run("store", "keys", store, "--json").done()
    ended = run("store", "keys", store, *options)
    assert ended.code == 2
    assert said in ended.err
    assert run("store", "keys", store, "--json").done() == before


def test_no_private_key_is_shown(store, run):
    """In no form, in no answer."""
    for options in ([], ["--json"], ["--sign-with", "key0"], ["--withdraw", KEYS[0], "--json"]):
        ended = run("store", "keys", store, *options)
        for seed in (SEEDS[0], root_key(store).read_bytes()):
            assert seed.hex() not in ended.out + ended.err
