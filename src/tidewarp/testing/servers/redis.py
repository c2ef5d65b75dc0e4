"""Redis as a child process. It keeps what it has acknowledged over a SIGKILL when it is started with ``always=True``."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from tidewarp.testing.servers.base import HOST, Server, program

__all__ = ["RedisServer"]

_REMEDY = "apt-get install redis-server"
_ANSWER_S = 1.0
_ANSWER_BYTES_MAX = 1 << 16


class RedisServer(Server):
    """A Redis with an append-only file in ``folder``.

    Args:
        folder: of its files; made if it is not there.
        always: fsync before each answer, and not once a second.
        password: of the default user; "" for none.
    """

    name = "redis"

    def __init__(self, folder: Path, *, always: bool = False, password: str = "") -> None:
        super().__init__(folder)
        self._always, self._password = always, password

    @property
    def url(self) -> str:
        """``redis://…``, with the password."""
        user = f":{quote(self._password, safe='')}@" if self._password else ""
        return f"redis://{user}{HOST}:{self.port}/0"

    def command(self) -> Sequence[str]:
        """No snapshots: what it keeps is the append-only file."""
        options = {
            "bind": HOST,
            "port": str(self.port),
            "dir": str(self.folder),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always" if self._always else "everysec",
        }
        if self._password:
            options["requirepass"] = self._password
        return [
            program("redis-server", _REMEDY),
            *(word for name, text in options.items() for word in (f"--{name}", text)),
        ]

    def answers(self) -> bool:
        """Its INFO names our child's process id, and says that it has read its file: until then it refuses the rest."""
        with socket.create_connection((HOST, self.port), _ANSWER_S) as peer:
            login = f'AUTH "{self._password}"\r\n' if self._password else ""
            peer.sendall(f"{login}INFO server\r\nINFO persistence\r\nQUIT\r\n".encode())
            answer = b""
            while len(answer) < _ANSWER_BYTES_MAX and (part := peer.recv(4096)):
                answer += part
        return f"\r\nprocess_id:{self.pid}\r\n".encode() in answer and b"\r\nloading:0\r\n" in answer
