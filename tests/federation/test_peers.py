"""What a site knows of its peers: text that leads back, and nothing wrong that is taken in silence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidewarp.errors import OperatorError
from tidewarp.federation.peers import Peer, Peers

hashes = st.binary(min_size=32, max_size=32)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
A, B, KEY = bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32

TEXT = f"""
[peers.hall]
domain = "{A.hex()}"
key = "{KEY.hex()}"
url = "https://192.0.2.7:7001"

[quotas]
{A.hex()} = 1000
"""


@st.composite
def all_peers(draw):
    made = draw(st.lists(st.tuples(names, hashes, hashes), max_size=4, unique_by=lambda one: one[0]))
    peers = tuple(
        Peer(name, domain, key, draw(st.sampled_from(["", f"https://host-{n}:70"])))
        for n, (name, domain, key) in enumerate(made)
    )
    return Peers(peers, draw(st.dictionaries(hashes, st.integers(0, (1 << 63) - 1), max_size=3)))


@given(all_peers())
def test_the_text_leads_back(peers):
    """All of it, also names with dots in them."""
    again = Peers.from_toml(peers.to_toml())
    assert (again.peers, again.quotas) == (peers.peers, peers.quotas)


def test_what_the_text_says():
    """By address, by domain, and the keys that are pinned."""
    peers = Peers.from_toml(TEXT)
    (hall,) = peers.peers
    assert hall == Peer("hall", A, KEY, "https://192.0.2.7:7001")
    assert peers.at("https://192.0.2.7:7001/") == hall
    assert peers.at("https://192.0.2.7:7002") is None
    assert (peers.of(A), peers.of(B)) == (hall, None)
    assert peers.keys() == {KEY}
    assert peers.quotas == {A: 1000}
    assert Peers.from_toml("").peers == ()


def test_a_peer_takes_the_place_of_its_name_and_of_its_domain():
    """A site that is named anew is not there twice."""
    peers = Peers.from_toml(TEXT)
    assert peers.including(Peer("hall", B, KEY)).peers == (Peer("hall", B, KEY),)
    assert peers.including(Peer("press", A, KEY)).peers == (Peer("press", A, KEY),)
    both = peers.including(Peer("press", B, KEY))
    assert [one.name for one in both.peers] == ["hall", "press"]
    assert both.quotas == peers.quotas


@pytest.mark.parametrize(
    ("wrong", "right", "said"),
    [
        ("url =", "ulr =", "did you mean url?"),
        ("[quotas]", "[quota]", "did you mean quotas?"),
        ("https://192.0.2.7:7001", "ftp://192.0.2.7", "http://HOST:PORT"),
        ("https://192.0.2.7:7001", "https://u@192.0.2.7", "http://HOST:PORT"),
        ("https://192.0.2.7:7001", "https://192.0.2.7/x", "http://HOST:PORT"),
        ("192.0.2.7:7001", "192.0.2.7:65536", "1 to 65535"),
        ("192.0.2.7:7001", "192.0.2.7:0", "1 to 65535"),
        ("192.0.2.7:7001", "192.0.2.7:http", "http://HOST:PORT"),
        ("192.0.2.7:7001", "192.0.2.7:7001:1", "http://HOST:PORT"),
        ("192.0.2.7:7001", "[::1", "http://HOST:PORT"),
        (KEY.hex(), KEY.hex()[:60], "64 lower-case"),
        ("= 1000", "= -1", "number of bytes"),
        ("= 1000", '= "1000"', "number of bytes"),
        ("= 1000", "= true", "number of bytes"),
        ("[peers.hall]", '[peers."a b"]', "letters, digits"),
        ("[peers.hall]", "[peers.hall", "no TOML"),
        ("[peers.hall]", "x = " + "[" * 100_000, "no TOML: it is nested too deeply"),
        ('url = "https://192.0.2.7:7001"', "url = 7001", "it is text"),
        ("[peers.hall]", '[peers.x]\nurl = "https://192.0.2.7:7001"\n[peers.hall]', "peer 'x': domain None"),
        (f'domain = "{A.hex()}"', "domain = 5", "peer 'hall': domain 5"),
        (f'key = "{KEY.hex()}"', "key = 5", "peer 'hall': key 5"),
        ("https://192.0.2.7:7001", "nonsense", "peer hall: url 'nonsense'"),
        (f"{A.hex()} = 1000", "x = 1", "quota of domain 'x'"),
    ],
)
def test_what_breaks_a_rule_is_refused(wrong, right, said):
    """The error says which."""
    assert wrong in TEXT
    with pytest.raises(OperatorError) as refused:
        Peers.from_toml(TEXT.replace(wrong, right))
    assert said in str(refused.value)


@pytest.mark.parametrize("url", ["http://h", "http://h:1/", "https://[2001:db8::7]:65535", "http://h-1.example:80"])
def test_what_is_an_address(url):
    """A name or a number, with a port or without."""
    (peer,) = Peers((Peer("a", A, KEY, url),)).peers
    assert peer.url == url


def test_one_address_is_one_peers():
    """Else it would not be known whose key to compare."""
    with pytest.raises(OperatorError, match="two peers have it"):
        Peers((Peer("a", A, KEY, "http://h:1"), Peer("b", B, KEY, "http://h:1")))
