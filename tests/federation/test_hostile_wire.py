"""Every lie over HTTP, told to a store on disk: nothing is taken, what was said is kept, and the truth is taken afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lies import LIES, Lie, World
from node import Node
from sites import SOURCES

from tidewarp.codec import bodies
from tidewarp.codec.artifacts import Artifact
from tidewarp.codec.bodies import Body
from tidewarp.codec.edges import Edge
from tidewarp.codec.records import PUBLISHED
from tidewarp.federation.exchange import ledger_of
from tidewarp.federation.messages import (
    GetArtifact,
    GetConsistency,
    GetHeads,
    GetRecords,
    HttpRequest,
    HttpResponse,
    Question,
)
from tidewarp.federation.peer import PeerHandler
from tidewarp.federation.shell import pull, serve
from tidewarp.federation.shell.server import PeerServer
from tidewarp.federation.verify import Wanted
from tidewarp.store import SqliteStore, open_store
from tidewarp.store.contract import Entry
from tidewarp.store.damage import MISSING_BYTES

pytestmark = pytest.mark.proof("whatever a peer says, only the truth is taken, in bounded time and memory")

REQUESTS_MAX = 40
CUT_OFF = frozenset({"large artifact too long"})
ZERO = bytes(32)
NOTHING = Artifact(b"").reference()
QUESTIONS: dict[str, Question] = {
    "/v1/heads": GetHeads(),
    "/v1/records": GetRecords(ZERO, 0, 1),
    "/v1/artifacts": GetArtifact(ZERO, Wanted(1, NOTHING, None)),
    "/v1/proof/consistency": GetConsistency(ZERO, 1, 2),
}


class Liar(PeerHandler):
    """Serves a node, and lies."""

    def __init__(self, world: World, lie: Lie) -> None:
        super().__init__(world.a)
        self.requests = 0
        self._world = world
        self._lie = lie

    def handle(self, request: HttpRequest, *rest: object) -> HttpResponse:
        self.requests += 1
        answer = super().handle(request, *rest)
        for target, question in QUESTIONS.items():
            if request.target.startswith(target) and answer.status == 200:
                told = self._lie.tell(self._world, question, answer._replace(body=answer.whole))
                return told._replace(size=None)
        return answer


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with open_store(tmp_path / "B", create=True) as made:
        yield made


@pytest.fixture
def a() -> Iterator[Node]:
    node = Node("a")
    node.put(b"one")
    node.put(b"two", tag=9)
    node.put(bytes(70_000))
    node.journal.append([Entry(0x80, b"four", PUBLISHED)])
    yield node
    node.close()


@pytest.mark.parametrize("name", LIES)
def test_a_lie_over_http(a: Node, store: SqliteStore, name: str) -> None:
    """A conflict with what was said, or the reason why the pull ended; no record and no byte of it; then all of the truth."""
    c = Node("c")
    c.put(b"elsewhere")
    liar = Liar(World(a, store, c), LIES[name])
    with PeerServer(liar) as server:
        report = pull(store, server.url)
        url = server.url
    assert (report.records, store.journal.size) == (0, 0)
    assert liar.requests <= REQUESTS_MAX
    assert [one.id for one in store.domains()] == [store.domain]
    assert store.has([one.reference() for one in a.artifacts.values()]) == [False] * len(a.artifacts)
    ledger = ledger_of(store)
    if report.conflicts:
        assert [one.kind for one in ledger.conflicts()] == [LIES[name].kind]
        [kept] = ledger.quarantined()
        assert kept.reason.startswith(LIES[name].kind)
    else:  # it was cut off before it could be read, and so cannot be shown
        assert name in CUT_OFF
        assert report.incomplete
        assert ledger.last_errors()[url]
    with serve(a) as honest:
        assert pull(store, honest.url).records == 4
    assert [one.header for one in store.records(a.domain)] == [one.header for one in a.logs[a.domain]]
    assert store.fsck().clean
    c.close()


NAME = Artifact(b"nobody has it").reference()
HIGHEST = (1 << 64) - 1
EXTREMES: list[Body] = [
    bodies.ArtifactBody(NAME, None, HIGHEST),
    bodies.ArtifactBody(NAME, (1 << 32) - 1, 1 << 63),
    bodies.TombstoneBody(NAME, bodies.FEDERATION, 0xFF, "n", ((ZERO, HIGHEST),)),
    bodies.TombstoneBody(NAME, bodies.STICKY),
    bodies.LiftBody(NAME, bodies.FEDERATION),
    bodies.EraseBody(None, HIGHEST, 1),
    bodies.EraseBody(NAME, None, 1),
    bodies.BranchBody(ZERO, HIGHEST, ZERO, "b"),
    bodies.PointerBody("n" * 255, (ZERO,), NAME),
    bodies.PolicyBody(NAME),
    bodies.KeysBody((ZERO,)),
    bodies.ResolveBody(ZERO, ZERO),
    bodies.EvidenceBody(ZERO, NAME),
    bodies.VerdictBody(ZERO, (NAME,)),
    bodies.ReceiptBody(NAME, ZERO, (NAME,)),
    bodies.RequestBody(NAME),
    bodies.EdgeBody(Edge((1 << 32) - 1, (NAME, NAME), (NAME,))),
]


@pytest.mark.parametrize("body", EXTREMES, ids=lambda one: type(one).__name__)
def test_an_origin_that_signs_the_highest_numbers(tmp_path: Path, store: SqliteStore, body: Body) -> None:
    """Records of other people's things, of places that nobody has and of 2^64 - 1: taken, they mean nothing and harm nothing."""
    with open_store(tmp_path / "A", create=True) as origin, serve(origin) as server:
        origin.journal.append([Entry(body.kind, body.to_bytes(), PUBLISHED)])
        report = pull(store, server.url)
        assert (report.records, report.conflicts, report.incomplete) == (1, 0, "")
        assert store.state_hash() == origin.state_hash()
        assert pull(store, server.url).records == 0
    assert {one.kind for one in store.fsck().problems} <= {MISSING_BYTES}  # of artifacts that nobody has
    assert not store.has([NAME])[0]


def test_a_stranger_hides_nothing(tmp_path: Path, store: SqliteStore) -> None:
    """A tombstone for what another domain has shown is stored, and has no effect on it."""
    ref = store.put(b"mine")
    with open_store(tmp_path / "A", create=True) as stranger, serve(stranger) as server:
        stranger.journal.append(
            [Entry(bodies.TombstoneBody.kind, bodies.TombstoneBody(ref, bodies.DOMAIN).to_bytes(), PUBLISHED)]
        )
        assert pull(store, server.url).records == 1
    assert store.view().is_visible(ref)
    assert store.get(ref) == b"mine"


ALL = """
import tempfile
from pathlib import Path

from lies import LIES, World
from node import Node
from test_hostile_wire import Liar
from tidewarp.federation.shell import pull
from tidewarp.federation.shell.server import PeerServer
from tidewarp.store import open_store

a, c = Node("a"), Node("c")
for data in (b"one", b"two", bytes(70_000)):
    a.put(data)
c.put(b"elsewhere")
with tempfile.TemporaryDirectory() as folder, open_store(Path(folder, "B"), create=True) as store:
    for lie in LIES.values():
        with PeerServer(Liar(World(a, store, c), lie)) as server:
            pull(store, server.url)
for line in Path("/proc/self/status").read_text().splitlines():
    if line.startswith("VmHWM:"):  # what this program has had at most; that of getrusage() counts its parent's too
        print(line.split()[1])
"""


def test_all_lies_together_cost_no_memory() -> None:
    """A process that hears them one after another stays below 256 MiB, the liar's own share included."""
    here = Path(__file__).parent
    process = subprocess.run(
        [sys.executable, "-c", ALL],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([SOURCES, str(here), str(here.parent)])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(process.stdout) < 256 << 10  # KiB
