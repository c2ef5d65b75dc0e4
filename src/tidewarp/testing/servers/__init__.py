"""Real servers for the tests of connectors, as child processes: on loopback, on free ports, stopped by pid.

    with RedisServer(tmp_path) as server:
        sink = sinks.redis_stream(server.url)

base      Server: start, kill, stop, pause
One module per server. Each says in a MissingExtra how to install what is missing.
"""

from __future__ import annotations

from tidewarp.testing.servers.base import HOST, Server, free_port, program

__all__ = ["HOST", "Server", "free_port", "program"]
