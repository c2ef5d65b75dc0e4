"""`tidewarp peer serve`: let other sites read a store."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

import click

from tidewarp.cli.frame import EXIT_INTERRUPTED, emit, json_option
from tidewarp.cli.store.places import STORE, store_argument
from tidewarp.federation.shell import serve
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
    and nobody else: see tidewarp peer trust.
    """
    with open_site(place, read_only=read_only) as site:
        store, tls = site.store, None if tls_file is None else site.tls(tls_file)
        store.signed_head()  # now, and not when somebody waits for it; a store that cannot be served says so
        with serve(store, host, port, tls=tls, roles=site.roles()) as server, _Signals() as signals:
            emit({"serving": server.url, "domain": store.domain}, as_json, _render)
            signals.wait()
    return 0


class _Signals:
    """The first SIGINT or SIGTERM ends :meth:`wait`; a second ends the process at once."""

    def __init__(self) -> None:
        self._came = threading.Event()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def wait(self) -> None:
        """Until a signal has come."""
        self._came.wait()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._came.is_set():
            os._exit(EXIT_INTERRUPTED)
        self._came.set()


def _render(document: Mapping[str, Any]) -> str:
    return f"serving {document['serving']}"
