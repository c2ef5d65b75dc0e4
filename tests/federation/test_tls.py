"""TLS between sites: exactly the keys that are pinned, on both sides, and no secret in anything that is shown."""

from __future__ import annotations

import contextlib
import http.client
import logging
import socket
import ssl
import stat
import traceback

import pytest
from node import Node, seed_of

from tidewarp.codec.ed25519 import public_key_of
from tidewarp.errors import OperatorError, PeerRefused
from tidewarp.federation.messages import GetHeads
from tidewarp.federation.policy import NEWCOMER_ROLES
from tidewarp.federation.shell import PeerClient, pull, serve
from tidewarp.federation.shell import tls as module
from tidewarp.federation.shell.tls import Tls, make_identity, public_key_in
from tidewarp.store.admission import Role

SITE, PEER, STRANGER = (public_key_of(seed_of(name)) for name in ("a", "b", "stranger"))
SECONDS = 10  # of a socket that should have been closed: a hang ends, no speed is asserted


@pytest.fixture
def identity(tmp_path):
    """``identity("a")``: the PEM file of a site."""

    def made(name):
        file = tmp_path / f"{name}.pem"
        make_identity(file, seed_of(name))
        return file

    return made


@pytest.fixture
def nodes():
    made = [Node("a"), Node("b")]
    made[0].put(b"a reading")
    yield made
    for one in made:
        one.close()


@pytest.fixture
def site(nodes, identity):
    """The site "a" over TLS, which knows "b"."""
    with serve(nodes[0], tls=Tls(identity("a"), [PEER])) as server:
        yield server


def address_of(server):
    host, _, port = server.url.removeprefix("https://").rpartition(":")
    return host, int(port)


# --- who is let in


def test_a_pull_between_two_that_know_each_other(nodes, site, identity):
    """All of the exchange goes through."""
    report = pull(nodes[1], site.url, tls=Tls(identity("b"), [SITE]))
    assert (report.records, report.conflicts, report.incomplete) == (1, 0, "")


def test_several_peers_each_with_its_key(nodes, identity):
    """A server with two pinned keys lets both in, and neither in the other's place."""
    with serve(nodes[0], tls=Tls(identity("a"), [PEER, STRANGER])) as server:
        for name in ("b", "stranger"):
            with PeerClient(server.url, tls=Tls(identity(name), [SITE])) as client:
                assert client.ask(GetHeads()).status == 200


def test_an_auditor_sees_what_is_withheld_from_others(nodes, identity):
    """By the key of its certificate; nobody gets it over a connection that tells no key."""
    secret = nodes[0].put(b"internal", publish=False)
    roles = {PEER: frozenset({Role.AUDIT}), STRANGER: NEWCOMER_ROLES}
    with serve(nodes[0], tls=Tls(identity("a"), [PEER, STRANGER]), roles=roles) as server:
        for name, is_shown in (("b", True), ("stranger", False)):
            node = Node(name)
            with contextlib.closing(node):
                pull(node, server.url, tls=Tls(identity(name), [SITE]))
                assert (node.logs[nodes[0].domain][-1].body is not None) is is_shown
                assert (secret in node.artifacts) is is_shown
    with serve(nodes[0], roles=roles) as server:
        pull(nodes[1], server.url)
        assert secret not in nodes[1].artifacts


def test_a_client_that_the_server_does_not_know(nodes, site, identity):
    """It is told so, with the command for the other side; it has seen nothing."""
    with pytest.raises(PeerRefused, match=f"--key {STRANGER.hex()}"):
        pull(nodes[1], site.url, tls=Tls(identity("stranger"), [SITE]))
    assert nodes[0].domain not in nodes[1].logs


def test_a_server_that_the_client_does_not_know(nodes, site, identity):
    """The client ends it before it has said anything."""
    with pytest.raises(PeerRefused, match="not the one pinned"):
        pull(nodes[1], site.url, tls=Tls(identity("b"), [STRANGER]))
    assert nodes[0].domain not in nodes[1].logs


def without_certificate(version):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = version
    return context


def answer_to(server, context):
    """What a client gets that asks for the heads in its own way; raises what it meets."""
    with socket.create_connection(address_of(server), SECONDS) as plain, context.wrap_socket(plain) as connection:
        connection.sendall(b"GET /v1/heads HTTP/1.1\r\nhost: x\r\n\r\n")
        return connection.recv(1_000)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2])
def test_a_client_without_a_certificate(site, version):
    """Whatever it speaks: no answer."""
    answer = b""
    with contextlib.suppress(OSError):
        answer = answer_to(site, without_certificate(version))
    assert answer == b""


def test_a_certificate_that_a_pinned_key_made_for_another(nodes, site, identity, tmp_path):
    """The chain is right and the key is not the one pinned: the second comparison refuses, on both sides."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    def lent(name, issuer):
        """The PEM file of ``name`` with a certificate that ``issuer`` has signed."""
        private = Ed25519PrivateKey.from_private_bytes(seed_of(name))
        signer = Ed25519PrivateKey.from_private_bytes(seed_of(issuer))
        certificate = module._signed(signer, private.public_key(), "lent", is_root=False)
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file = tmp_path / f"{name}-by-{issuer}.pem"
        file.touch(0o600)
        file.write_bytes(pem + certificate.public_bytes(serialization.Encoding.PEM))
        return file

    with PeerClient(site.url, tls=Tls(lent("stranger", "b"), [SITE])) as client, pytest.raises(PeerRefused):
        client.ask(GetHeads())
    with (
        serve(nodes[0], tls=Tls(lent("stranger", "a"), [PEER])) as server,
        pytest.raises(PeerRefused, match=f"its key is {STRANGER.hex()}"),
    ):
        pull(nodes[1], server.url, tls=Tls(identity("b"), [SITE]))


def test_plain_http_to_a_site_with_tls(site):
    """No answer, and the site goes on."""
    host, port = address_of(site)
    connection = http.client.HTTPConnection(host, port, timeout=SECONDS)
    with contextlib.closing(connection):
        connection.request("GET", "/v1/heads")
        with pytest.raises((http.client.HTTPException, OSError)):
            connection.getresponse()


def test_a_client_that_never_shakes_hands_does_not_hold_the_server(nodes, identity):
    """To close the server ends the connection."""
    server = serve(nodes[0], tls=Tls(identity("a"), [PEER]))
    with socket.create_connection(address_of(server), SECONDS) as silent:
        with PeerClient(server.url, tls=Tls(identity("b"), [SITE])) as client:
            assert client.ask(GetHeads()).status == 200
            server.close()
        assert silent.recv(1) == b""


@pytest.mark.parametrize(("url", "is_known"), [("http://127.0.0.1:1", True), ("https://127.0.0.1:1", False)])
def test_address_and_tls_go_together(identity, url, is_known):
    """An https address without a key, or a key for an http one, is a mistake of whoever wrote it."""
    with pytest.raises(OperatorError, match=r"https goes with TLS|http goes without TLS"):
        PeerClient(url, tls=Tls(identity("b"), [SITE]) if is_known else None)


def test_beyond_this_machine_with_tls_alone(nodes, identity):
    """All addresses may be bound once only known keys are answered."""
    with pytest.raises(OperatorError, match="without TLS"):
        serve(nodes[0], "0.0.0.0")
    with serve(nodes[0], "0.0.0.0", tls=Tls(identity("a"), [PEER])) as server:
        _, port = address_of(server)
        with PeerClient(f"https://127.0.0.1:{port}", tls=Tls(identity("b"), [SITE])) as client:
            assert client.ask(GetHeads()).status == 200


# --- the file


def test_the_identity_is_a_function_of_the_seed(tmp_path):
    """Mode 0600, made once, equal for equal seeds; a file that is there is left alone."""
    one, other = tmp_path / "one.pem", tmp_path / "other.pem"
    for file in (one, other):
        make_identity(file, seed_of("a"))
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert one.read_bytes() == other.read_bytes()
    assert public_key_in(one) == SITE
    make_identity(one, seed_of("b"))
    assert public_key_in(one) == SITE


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_private_key_that_others_may_read(identity, mode):
    """Refused, with the command that mends it."""
    file = identity("a")
    file.chmod(mode)
    with pytest.raises(OperatorError, match=f"chmod 600 {file}"):
        Tls(file, [PEER])


def test_files_that_are_no_identity(tmp_path, identity):
    """Missing, empty, a certificate alone, another's key."""
    with pytest.raises(OperatorError, match="cannot be read"):
        Tls(tmp_path / "missing.pem", [PEER])
    text = identity("a").read_text()
    certificate = text[text.index("-----BEGIN CERTIFICATE") :]
    for wrong in ("", "hello", certificate):
        file = tmp_path / "wrong.pem"
        file.touch(0o600)
        file.write_text(wrong)
        with pytest.raises(OperatorError, match="no Ed25519 private key"):
            Tls(file, [PEER])
    mixed = tmp_path / "mixed.pem"
    mixed.touch(0o600)
    mixed.write_text(identity("b").read_text().split("-----BEGIN CERTIFICATE")[0] + certificate)
    with pytest.raises(OperatorError, match="not that of its certificate"):
        Tls(mixed, [PEER]).server()


def test_nobody_pinned_is_nobody_served(identity):
    """There is no mode that trusts anybody."""
    with pytest.raises(OperatorError, match="no peer's key"):
        Tls(identity("a"), [])


# --- secrets


def test_no_secret_is_shown(nodes, identity, caplog, capfd):
    """Canary keys: their seeds and PEM bodies appear in no text, error, traceback or log of all that can go wrong."""
    caplog.set_level(logging.DEBUG)
    secrets = [seed_of(name).hex() for name in ("a", "b", "stranger")]
    secrets += [identity(name).read_text().splitlines()[1] for name in ("a", "b", "stranger")]
    secrets += [repr(seed_of(name)) for name in ("a", "b", "stranger")]
    shown = [repr(Tls(identity("a"), [PEER])), str(Tls(identity("a"), [PEER]))]
    cases = [("a", [PEER], "stranger", [SITE]), ("a", [PEER], "b", [STRANGER]), ("stranger", [PEER], "b", [SITE])]
    for server_name, server_pins, client_name, client_pins in cases:
        server_tls = Tls(identity(server_name), server_pins)
        with serve(nodes[0], tls=server_tls) as server:
            shown.append(server.url)
            try:
                pull(nodes[1], server.url, tls=Tls(identity(client_name), client_pins))
            except PeerRefused as error:
                shown += [str(error), repr(error)]
                shown += frames_of(error)
            else:
                pytest.fail("it was not refused")
    identity("a").chmod(0o644)
    with pytest.raises(OperatorError) as refused:
        Tls(identity("a"), [PEER])
    shown += frames_of(refused.value)
    shown += [caplog.text, *capfd.readouterr()]
    for node in nodes:
        shown += [repr(record.body) for record in node.logs[node.domain]]
        shown += [str(row) for table in ("peer", "log", "conflict", "quarantine") for row in rows(node, table)]
    everything = "\n".join(shown)
    assert len(everything) > 1_000
    assert [secret for secret in secrets if secret in everything] == []


def frames_of(error):
    """The traceback with the values of all variables, but for those of the test itself, which knows the secrets."""
    return traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__.tb_next), capture_locals=True).format()


def rows(node, table):
    return node.tables.execute(f"SELECT * FROM federation_{table}").fetchall() if node._made else []
