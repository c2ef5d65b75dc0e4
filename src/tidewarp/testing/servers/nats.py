"""A NATS server with JetStream."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tidewarp.testing.servers.base import HOST, Server, program

__all__ = ["NatsServer"]


class NatsServer(Server):
    """``nats-server`` 2.9 or later with JetStream in files.

    What it keeps: JetStream hands a message to the operating system before it acknowledges it, so :meth:`kill` loses no
    acknowledged one. It syncs every two minutes (2.10 and later can be told to do it always), so a power cut may.

    Args:
        folder: of its own.
        user: what a client has to say; None: nothing.
        password: likewise.
        max_payload: bytes that a message may have, headers included.
    """

    name = "nats-server"

    def __init__(
        self, folder: Path, *, user: str | None = None, password: str | None = None, max_payload: int = 1 << 20
    ) -> None:
        super().__init__(folder)
        self._user, self._password, self._max_payload = user, password, max_payload

    @property
    def url(self) -> str:
        """Where it is, credentials included."""
        login = f"{self._user}:{self._password}@" if self._user is not None else ""
        return f"nats://{login}{HOST}:{self.port}"

    def command(self) -> Sequence[str]:
        """Its configuration is written at each start: the port may have changed."""
        lines = [f"max_payload: {self._max_payload}"]
        if self._user is not None:
            lines.append(f"authorization {{ user: {json.dumps(self._user)}, password: {json.dumps(self._password)} }}")
        config = self.folder / "nats.conf"
        config.write_text("\n".join(lines) + "\n")
        place = ["-a", HOST, "-p", str(self.port), "-sd", str(self.folder), "--ports_file_dir", str(self.folder)]
        return [program("nats-server", "apt-get install nats-server"), "-c", str(config), "-js", *place]

    def answers(self) -> bool:
        """The file of ports, which it writes when it listens, bears its process id."""
        ports = self.folder / f"nats-server_{self.pid}.ports"
        if not ports.exists():
            return False
        try:
            listens = json.loads(ports.read_text()).get("nats", [])
        except ValueError:  # it is being written
            return False
        return f"nats://{HOST}:{self.port}" in listens
