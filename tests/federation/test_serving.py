"""A site that is served: bounds of the real server, what it says of itself, and that what is adopted meanwhile counts."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from node import Node
from test_peer_http import SAFETY_S, get, rest_of, said, wire

from tidewarp.codec.ed25519 import public_key_of
from tidewarp.errors import PeerRefused
from tidewarp.federation.exposition import exposition
from tidewarp.federation.messages import GetHeads, GetRecords
from tidewarp.federation.peer import PeerHandler
from tidewarp.federation.peers import Peers
from tidewarp.federation.shell import PeerClient, pull, push, serve, serve_site
from tidewarp.federation.shell.server import CONNECTIONS_MAX, CONNECTIONS_PER_PEER, PeerServer
from tidewarp.federation.shell.site import Site, open_site
from tidewarp.federation.shell.tls import Tls, make_identity
from tidewarp.store import open_store
from tidewarp.store.admission import Role

SEEDS = {name: name.encode() * 32 for name in "abc"}
KEYS = {name: public_key_of(seed) for name, seed in SEEDS.items()}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the store "a" lies, with a record."""
    where = tmp_path / "A"
    where.mkdir()
    with open_store(where, create=True, key=SEEDS["a"]) as store:
        store.put(b"a reading")
        store.signed_head()
    return where


@pytest.fixture
def site(place: Path) -> Iterator[Site]:
    with open_site(place) as opened:
        yield opened


def fetched(url: str) -> str:
    with urllib.request.urlopen(url, timeout=SAFETY_S) as answer:
        text: str = answer.read().decode()
        return text


# --- bounds


def test_sixty_four_connections() -> None:
    """Of eight peers with eight each; the next is told to come again, from wherever it comes; when one ends there is room."""
    node = Node("a")
    with serve(node) as server, contextlib.ExitStack() as stack:
        port = int(server.url.rpartition(":")[2])

        def connected(host: str) -> socket.socket:
            made = socket.create_connection(("127.0.0.1", port), timeout=SAFETY_S, source_address=(host, 0))
            return stack.enter_context(made)

        held = []
        for n in range(CONNECTIONS_MAX // CONNECTIONS_PER_PEER):
            for _ in range(CONNECTIONS_PER_PEER):
                held.append(connected(f"127.0.0.{n + 2}"))
                held[-1].sendall(get("/healthz"))
                assert held[-1].recv(65_536).startswith(b"HTTP/1.1 200")
        assert rest_of(connected("127.0.0.99")).startswith(b"HTTP/1.1 503")
        assert server.metrics.counts()["peer_limits_total", 'limit="connections"'] == 1
        held[0].sendall(get("/healthz", "connection: close"))
        rest_of(held[0])
        while True:  # until the server has noticed
            tenth = connected("127.0.0.99")
            tenth.sendall(get("/healthz", "connection: close"))
            if rest_of(tenth).startswith(b"HTTP/1.1 200"):
                break
    node.close()


def test_limits_are_counted() -> None:
    """What was cut off, by why; a body above its bound is read by nobody, and the refusal is."""
    node = Node("a")
    with PeerServer(PeerHandler(node)) as server:
        with wire(server.url) as connection:
            connection.sendall(get("/v1/artifacts/missing", "content-length: 9000000", method="POST"))
            with contextlib.suppress(OSError):  # it may have been cut off
                connection.sendall(bytes(9_000_000))
                connection.shutdown(socket.SHUT_WR)
            assert rest_of(connection).startswith(b"HTTP/1.1 413 ")
        with contextlib.suppress(OSError):  # as well
            said(server, b"GET /" + b"a" * 20_000)
        counts = server.metrics.counts()
    assert counts["peer_limits_total", 'limit="body"'] == 1
    assert counts["peer_limits_total", 'limit="head"'] == 1
    assert counts["peer_requests_total", 'status="413"'] == 1
    assert ("peer_received_bytes_total", "") not in counts or counts["peer_received_bytes_total", ""] < 9_000_000
    node.close()


# --- what it says of itself


def test_metrics(site: Site, place: Path, tmp_path: Path) -> None:
    """As Prometheus reads them: of the store and of what was answered; no name of an artifact, no key, nothing that a peer sent."""
    secret = site.store.put(b"internal", publish=False)
    with serve_site(site, place) as server, open_store(tmp_path / "B", create=True) as other:
        assert pull(other, server.url).records == 2
        with contextlib.suppress(urllib.error.HTTPError):
            fetched(f"{server.url}/v1/hash?domain=made-up-by-a-peer&seq=1")
        text = fetched(f"{server.url}/metrics")
        assert fetched(f"{server.url}/healthz") == fetched(f"{server.url}/readyz") == "ok\n"
    for line in text.splitlines():
        assert re.fullmatch(
            r'# TYPE tidewarp_[a-z_]+ (counter|gauge)|tidewarp_[a-z_]+(\{[a-z]+="[a-z0-9]+"\})? \d+', line
        )
    assert "tidewarp_peer_records_sent_total 2\n" in text
    assert 'tidewarp_peer_requests_total{status="400"} 1\n' in text
    assert "tidewarp_peer_connections 1\n" in text
    assert "tidewarp_store_conflicts_open 0\n" in text
    assert "tidewarp_store_quarantine_bytes 0\n" in text
    for hidden in (secret.hex(), SEEDS["a"].hex(), KEYS["a"].hex(), site.store.domain.hex(), "made-up"):
        assert hidden not in text


def test_the_text_of_counts() -> None:
    """Names ascend, each with its type once."""
    counts = {("b_total", 'x="2"'): 3, ("b_total", 'x="1"'): 1, ("a_total", ""): 2}
    assert exposition(counts, {("c", ""): 0}).decode() == (
        "# TYPE tidewarp_a_total counter\ntidewarp_a_total 2\n"
        '# TYPE tidewarp_b_total counter\ntidewarp_b_total{x="1"} 1\ntidewarp_b_total{x="2"} 3\n'
        "# TYPE tidewarp_c gauge\ntidewarp_c 0\n"
    )


@pytest.mark.parametrize("how", ["moved", "deleted", "replaced"])
def test_a_store_that_is_gone(site: Site, place: Path, how: str) -> None:
    """503 to everything, with the reason; the process that serves still lives."""
    with serve_site(site, place) as server:
        assert b" 200 " in said(server, get("/v1/heads"))
        database = place / "store.db"
        if how == "moved":
            place.rename(place.with_name("elsewhere"))
        elif how == "deleted":
            database.unlink()
        else:
            database.with_name("copy").write_bytes(database.read_bytes())
            os.replace(database.with_name("copy"), database)
        for target in ("/v1/heads", "/v1/contract", f"/v1/records?domain={site.store.domain.hex()}", "/readyz"):
            answer = said(server, get(target))
            assert answer.startswith(b"HTTP/1.1 503 "), target
            document = json.loads(answer.rpartition(b"\r\n\r\n")[2])
            assert "moved, removed or replaced" in document["rule"]
            assert str(place).encode() not in answer
        assert b" 200 " in said(server, get("/healthz"))
        if how == "moved":
            place.with_name("elsewhere").rename(place)
            assert b" 200 " in said(server, get("/v1/heads"))


# --- what is adopted while it serves


@pytest.fixture
def others(tmp_path: Path) -> Iterator[dict[str, Path]]:
    """The stores "b" and "c", and what each speaks TLS with."""
    places = {}
    for name in "bc":
        places[name] = tmp_path / name
        with open_store(places[name], create=True, key=SEEDS[name]) as store:
            store.put(name.encode())
            store.signed_head()
        make_identity(tmp_path / f"{name}.pem", SEEDS[name])
    return places


def tls_of(name: str, tmp_path: Path) -> Tls:
    return Tls(tmp_path / f"{name}.pem", [KEYS["a"]])


def test_roles_and_keys_that_come_while_it_serves(
    site: Site, place: Path, others: dict[str, Path], tmp_path: Path
) -> None:
    """A role counts from the next request on the same connection, a key from the next connection; who is taken out goes at once."""
    secret = site.store.put(b"internal", publish=False)
    site.trust("b", KEYS["b"], "", None)
    with (
        serve_site(site, place, tls_file=tmp_path / "a.pem") as server,
        PeerClient(server.url, tls=tls_of("b", tmp_path)) as client,
    ):
        ask = GetRecords(site.store.domain, 0, 10)
        assert secret not in site_refs(client.ask(ask).whole)
        site.trust("b", KEYS["b"], "", [Role.AUDIT])
        assert secret in site_refs(client.ask(ask).whole)
        with pytest.raises((PeerRefused, OSError)), PeerClient(server.url, tls=tls_of("c", tmp_path)) as stranger:
            stranger.ask(GetHeads())
        site.trust("c", KEYS["c"], "", None)
        with PeerClient(server.url, tls=tls_of("c", tmp_path)) as known:
            assert known.ask(GetHeads()).status == 200
            alone = Peers(tuple(one for one in site.peers().peers if one.name == "c"))
            (place / "peers.toml").write_text(alone.to_toml())
            with pytest.raises((PeerRefused, OSError)):
                client.ask(ask)
            (place / "peers.toml").write_text("this is no toml [")
            assert known.ask(GetHeads()).status == 200
            assert server.metrics.counts()["peer_settings_unread_total", ""] == 1


def site_refs(batch: bytes) -> list[object]:
    from tidewarp.codec.batches import decode_batch
    from tidewarp.codec.bodies import ArtifactBody, decode_body

    said_of = [decode_body(one.header.kind, one.body) for one in decode_batch(batch) if one.body is not None]
    return [one.ref for one in said_of if isinstance(one, ArtifactBody)]


def test_a_policy_that_another_process_adopts(place: Path, others: dict[str, Path], tmp_path: Path) -> None:
    """Beside a writer: what it has adopted counts from the next request."""
    with open_site(place) as writer:
        writer.trust("b", KEYS["b"], "", None)
        secret = writer.store.put(b"internal", publish=False)
        writer.store.signed_head()
        with (
            open_site(place, read_only=True) as reader,
            serve_site(reader, place, tls_file=tmp_path / "a.pem") as server,
            PeerClient(server.url, tls=tls_of("b", tmp_path)) as client,
        ):
            ask = GetRecords(writer.store.domain, 0, 10)
            assert secret not in site_refs(client.ask(ask).whole)
            writer.trust("b", KEYS["b"], "", [Role.AUDIT])
            assert secret in site_refs(client.ask(ask).whole)


# --- pushes over the wire


@pytest.mark.parametrize("has_zstd", [True, False])
def test_a_push_over_tls(
    site: Site, place: Path, others: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_zstd: bool
) -> None:
    """Records and large bytes, packed or not; equal state; then nothing more; and nothing without the role."""
    if not has_zstd:
        for module in ("peer", "shell.server", "shell.client"):
            monkeypatch.setattr(f"tidewarp.federation.{module}.is_available", lambda: False)
    site.trust("b", KEYS["b"], "", [Role.PRODUCE])
    with (
        serve_site(site, place, tls_file=tmp_path / "a.pem") as server,
        open_store(others["b"]) as store,
    ):
        large = store.put(bytes(range(256)) * 80_000)
        tls = tls_of("b", tmp_path)
        refused = push(store, server.url, tls=tls)
        assert (refused.records, {one.outcome for one in refused.domains}) == (0, {"refused"})
        assert "role federate" in refused.domains[0].reason
        site.trust("b", KEYS["b"], "", [Role.PRODUCE, Role.FEDERATE])
        pull(store, server.url, tls=tls)
        report = push(store, server.url, tls=tls)
        assert (report.records, report.conflicts, report.absent, report.incomplete) == (2, 0, 0, "")
        assert report.bytes > 20_480_000
        assert site.store.has([large]) == [True]
        assert push(store, server.url, tls=tls).records == 0
        received = server.metrics.counts()["peer_received_bytes_total", ""]
        assert received > 20_480_000
        assert server.metrics.counts()["peer_records_taken_total", ""] == 2
        heads = {one.id: one.head for one in store.domains()}
        assert {one.id: one.head for one in site.store.domains() if one.id == store.domain} == {
            store.domain: heads[store.domain]
        }


def test_a_push_without_tls_is_nobodys(site: Site, place: Path, tmp_path: Path) -> None:
    """Who it is that pushes is not known there: 403, whoever it says it is; a long body does not hide the answer."""
    with serve_site(site, place) as server, open_store(tmp_path / "C", create=True) as store:
        for n in range(3):
            store.put(os.urandom(60_000) + bytes([n]))
        report = push(store, server.url)
        assert (report.records, report.domains[0].outcome) == (0, "refused")
        assert "403" in report.domains[0].reason
        answer = said(server, get("/v1/records", "content-length: 100", method="POST") + bytes(100))
        assert answer.startswith(b"HTTP/1.1 403 ")


def test_one_push_at_a_time(site: Site, place: Path, others: dict[str, Path], tmp_path: Path) -> None:
    """The second is told to come again."""
    site.trust("b", KEYS["b"], "", [Role.FEDERATE, Role.PRODUCE])
    with serve_site(site, place, tls_file=tmp_path / "a.pem") as server, open_store(others["b"]) as store:
        served = server._listener.handler._site
        with served._taking:
            report = push(store, server.url, tls=tls_of("b", tmp_path))
            assert report.records == 0
            assert "another is being taken" in report.incomplete + "".join(one.reason for one in report.domains)
        assert push(store, server.url, tls=tls_of("b", tmp_path)).records == 1


@pytest.mark.parametrize("whose", ["its domain", "this site"])
def test_a_quota_is_asked_before_the_bytes_of_an_artifact_are_read(
    site: Site, place: Path, others: dict[str, Path], tmp_path: Path, whose: str
) -> None:
    """What its record declares is compared: a body that has no room takes none, not even of a temporary file."""
    site.trust("b", KEYS["b"], "", [Role.FEDERATE, Role.PRODUCE])
    peers = site.peers()
    with serve_site(site, place, tls_file=tmp_path / "a.pem") as server, open_store(others["b"]) as store:
        large = store.put(bytes(range(256)) * 8_000)

        def allow(size: int) -> None:
            """Payload bytes, by the quota that is asked about."""
            if whose == "this site":
                site.store.set_quota(size)
            else:
                (place / "peers.toml").write_text(Peers(peers.peers, {store.domain: size}).to_toml())

        allow(1_000_000)
        report = push(store, server.url, tls=tls_of("b", tmp_path))
        assert report.records == 2
        assert "507" in report.incomplete
        assert f"the quota of {whose} leaves 99" in report.incomplete
        assert server.metrics.counts()["peer_received_bytes_total", ""] < 100_000
        allow(3_000_000)
        assert push(store, server.url, tls=tls_of("b", tmp_path)).incomplete == ""
        assert site.store.has([large]) == [True]


def test_what_a_reader_serves_takes_nothing(place: Path, others: dict[str, Path], tmp_path: Path) -> None:
    """A store that is open read-only refuses what is pushed, and says why."""
    with open_site(place) as writer:
        writer.trust("b", KEYS["b"], "", [Role.FEDERATE])
        writer.store.signed_head()
    with (
        open_site(place, read_only=True) as reader,
        serve_site(reader, place, tls_file=tmp_path / "a.pem") as server,
        open_store(others["b"]) as store,
    ):
        report = push(store, server.url, tls=tls_of("b", tmp_path))
        assert report.records == 0
        reasons = report.incomplete + "".join(one.reason for one in report.domains)
        assert "read-only" in reasons
        assert str(place) not in reasons
