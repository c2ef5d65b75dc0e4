"""Without their packages Redis and PostgreSQL connectors can be built and described, and say what to install when opened."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tidewarp.connect import sinks, sources
from tidewarp.errors import MissingExtra
from tidewarp.testing.sinks import RUN
from tidewarp.testing.suites import perform

URL, DSN = "redis://:canary@127.0.0.1:1/0", "postgresql://u:canary@127.0.0.1:1/d"


@pytest.mark.parametrize(
    ("package", "create", "told"),
    [
        ("redis", lambda: sources.redis_stream(URL, "s", group="g"), {}),
        ("redis", lambda: sources.redis_pubsub(URL, "s"), {}),
        ("redis", lambda: sinks.redis_stream(URL), RUN),
        ("psycopg", lambda: sources.postgres(DSN), {}),
        ("psycopg", lambda: sinks.postgres(DSN), RUN),
    ],
)
def test_a_missing_package_is_named_when_it_is_opened(
    monkeypatch: pytest.MonkeyPatch, package: str, create: Callable[[], Any], told: Any
) -> None:
    """MissingExtra with the command, no ImportError; nothing of the secret in what it says of itself."""
    for name in [package, *(name for name in sys.modules if name.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    connector = create()
    with pytest.raises(MissingExtra, match="pip install 'tidewarp"):
        perform(connector.open(told))
    perform(connector.close())
    assert "canary" not in f"{connector!r}{connector.name}{getattr(connector, 'describe', dict)()}"


def test_the_factories_load_no_driver() -> None:
    """``import tidewarp.connect`` and building a connector need none of them."""
    program = f"""
import sys
from tidewarp.connect import sinks, sources
sources.redis_stream({URL!r}, 's', group='g'), sources.postgres({DSN!r}), sinks.redis_stream({URL!r}), sinks.postgres({DSN!r})
sys.exit(any(name in sys.modules for name in ('redis', 'psycopg')))
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
