"""No answer of a server tells where its store lies: of a real store, damaged at any page, whatever is asked."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from tidewarp.clocks.wall import WallClock
from tidewarp.codec.references import encode_references
from tidewarp.errors import TidewarpError
from tidewarp.federation.messages import GetHeads, HttpRequest
from tidewarp.federation.peer import PeerHandler
from tidewarp.federation.shell import pull, serve
from tidewarp.federation.shell.metrics import Metrics
from tidewarp.federation.shell.serving import ServedSite
from tidewarp.federation.shell.site import open_site
from tidewarp.store import open_store
from tidewarp.store.admission import Role

ALL_ROLES = frozenset(Role)
SECRET = "where-it-lies"
PAGE = 4_096


class Whole(NamedTuple):
    """A store, and one question of each kind about what it holds."""

    place: Path
    questions: list[HttpRequest]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """With records of two domains, of which one came in part, and artifacts in rows and in blocks."""
    place = tmp_path_factory.mktemp(SECRET) / "store"
    place.mkdir()
    with open_store(place.with_name("other.tw"), create=True) as other, open_store(place, create=True) as store:
        other.signed_head()
        refs = [other.put(b"theirs %d" % n) for n in range(20)][:1]
        with serve(other) as server:
            pull(store, server.url, until=15)
        refs += [store.put(b"ours %d" % n) for n in range(20)][:1]
        refs.append(store.put(os.urandom(300_000)))
        store.signed_head()
        domains = [store.domain.hex(), other.domain.hex()]
    targets = [
        "/v1/contract",
        "/v1/heads",
        "/v1/evidence",
        "/v1/changes",
        "/v1/artifacts/missing",
        "/readyz",
        "/metrics",
    ]
    for domain in domains:
        targets += [
            f"/v1/records?domain={domain}",
            f"/v1/hash?domain={domain}&seq=7",
            f"/v1/proof/inclusion?domain={domain}&seq=7&size=15",
            f"/v1/proof/consistency?domain={domain}&from=7&to=15",
        ]
    targets += [f"/v1/artifacts/{one.hex()}" for one in refs]
    asked = [HttpRequest("GET", one, GetHeads().headers, roles=ALL_ROLES, is_local=True) for one in targets]
    asked.append(HttpRequest("POST", "/v1/artifacts/missing", {}, encode_references(refs), ALL_ROLES))
    return Whole(place, asked)


def answers(place: Path, whole: Whole) -> list[tuple[int, bytes]]:
    """Status, and all that is sent, of each question that is answered at all."""
    found = []
    with open_site(place, read_only=True) as site:
        served = ServedSite(site, place, None, None, Metrics(), WallClock())
        handler = PeerHandler(site.store, served)
        for question in whole.questions:
            answer = handler.handle(question)
            sent = [repr(answer.headers).encode()]
            try:
                sent += [answer.body] if isinstance(answer.body, bytes) else answer.body
            except TidewarpError:
                pass  # it is found while it is sent, and the connection is cut
            found.append((answer.status, b"".join(sent)))
    return found


def test_a_whole_store_answers_each(whole):
    assert {status for status, _ in answers(whole.place, whole)} == {200}


@pytest.mark.parametrize("step", [3, 7])
def test_no_answer_tells_a_path(whole, tmp_path, step):
    """Each page in its turn is other bytes: what is wrong is said, and not where."""
    place = tmp_path / SECRET
    shutil.copytree(whole.place, place)
    database = place / "store.db"
    data = database.read_bytes()
    statuses: set[int] = set()
    opened = 0
    for page in range(step, len(data) // PAGE, step):
        start = page * PAGE
        database.write_bytes(
            data[:start] + bytes(255 - one for one in data[start : start + PAGE]) + data[start + PAGE :]
        )
        try:
            found = answers(place, whole)
        except TidewarpError:
            continue  # it cannot even be opened
        opened += 1
        for status, sent in found:
            statuses.add(status)
            for word in (SECRET, "store.db", str(tmp_path)):
                assert word.encode() not in sent, (page, status)
    assert opened > 5
    assert {200, 500} <= statuses
