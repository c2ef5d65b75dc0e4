"""`tidewarp peer serve`: let other sites read a store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tidewarp.cli.frame import emit, json_option
from tidewarp.cli.signals import StopSignals
from tidewarp.cli.store.places import STORE, store_argument
from tidewarp.federation.shell import serve_site
from tidewarp.federation.shell.site import open_site

__all__ = ["command"]


@click.command()
@store_argument
@click.option("--port", metavar="P", type=click.IntRange(0, 65_535), required=True, help="0: any that is free.")
@click.option(
    "--host",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="Where to answer. Without --tls an address of this machine alone.",
)
@click.option(
    "--tls",
    "tls_file",
    metavar="CERT.pem",
    type=STORE,
    help="Speak TLS with this key and certificate, made if missing, to the peers that are trusted.",
)
@click.option(
    "--read-only", is_flag=True, help="Take no lock: another process may write the store. Served is what it has signed."
)
@json_option
def command(place: Path, port: int, host: str, tls_file: Path | None, read_only: bool, as_json: bool) -> int:
    """Answer other sites over HTTP from the store DIR, until SIGINT or SIGTERM, and then end with 0.

    The address is printed when it answers. Private keys do not leave, nor does what is internal; over TLS that does, to
    who has the role audit. Without encryption no other machine is answered. With --tls who holds a key of peers.toml is,
    and nobody else: see tidewarp peer trust. What the policy and peers.toml say at each request counts; who has the role
    federate may push.

    To this machine, and to auditors, /healthz, /readyz and /metrics say how it is.
    """
    with open_site(place, read_only=read_only) as site:
        store = site.store
        store.signed_head()  # now, and not when somebody waits for it; a store that cannot be served says so
        with serve_site(site, place, host, port, tls_file=tls_file) as server, StopSignals() as signals:
            emit({"serving": server.url, "domain": store.domain}, as_json, _render)
            signals.wait()
    return 0


def _render(document: Mapping[str, Any]) -> str:
    return f"serving {document['serving']}"
