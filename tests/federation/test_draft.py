"""The names of the published draft are there, and mean what the store means."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histories import MEMBERS
from query_sites import HISTORIES, Sites
from tidewarp import codec, federation
from tidewarp.codec import PUBLISHED
from tidewarp.codec.bodies import ARTIFACT, EDGE, RECEIPT, TOMBSTONE
from tidewarp.codec.references import Reference
from tidewarp.errors import OperatorError
from tidewarp.federation import ApplyArtifact, ApplyTGKEdge, ApplyTombstone, FederationReplay, SnapshotRange
from tidewarp.store.fold import Fold

APPLY = {ARTIFACT: ApplyArtifact, RECEIPT: ApplyArtifact, EDGE: ApplyTGKEdge, TOMBSTONE: ApplyTombstone}


@settings(deadline=None)
@given(HISTORIES, st.randoms(use_true_random=False))
def test_records_that_are_applied_by_name_come_to_the_replayed_state(history, random):
    """Whatever domain's record comes next: a tombstone may be applied before what it hides."""
    logs = [author.records for author in Sites(history).authors]
    turns = [number for number, records in enumerate(logs) for _ in records]
    random.shuffle(turns)
    fold, nexts = Fold(MEMBERS), [iter(records) for records in logs]
    for number in turns:
        record = next(nexts[number])
        if record.kind in APPLY and record.header.flags == PUBLISHED:
            APPLY[record.kind](fold, record)
        else:
            fold.add(record.header, record.body)
    replayed = FederationReplay([one for log in logs for one in log], SnapshotRange(99), admission=MEMBERS)
    assert fold.state_hash() == replayed.state_hash()


@pytest.mark.parametrize("kind", APPLY)
def test_a_record_of_another_kind_is_refused(kind):
    """And leaves the fold as it was."""
    sites = Sites([(0, ("add", 0, None)), (0, ("edge", [0], [1], 1)), (0, ("hide", 0, False)), (0, ("claim", 0))])
    fold = Fold(MEMBERS)
    (wrong, *_) = [one for one in sites.authors[0].records if APPLY[one.kind] is not APPLY[kind]]
    with pytest.raises(OperatorError, match=rf"it is of kind {wrong.kind:#04x}"):
        APPLY[kind](fold, wrong)
    assert fold.heads() == []


def test_other_words_for_what_there_is():
    (record,) = Sites([(0, ("add", 0, None))]).authors[0].records
    assert record.logseq == record.seq == 1
    assert federation.ArtifactKey is Reference
    assert isinstance(Fold(MEMBERS).snapshot().id(), federation.SnapshotID)


def test_the_page_lists_them():
    page = (Path(__file__).parents[2] / "docs" / "reference" / "names.md").read_text(encoding="utf-8")
    (section,) = re.findall(r"^## Names of the published draft\n(.*?)(?=^## )", page, re.DOTALL | re.MULTILINE)
    cells = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    names = {name for cell in cells for name in re.findall("`(.+?)`", cell)}
    assert {name for name in names if "." not in name} == set(federation.__all__) - {"ForkEvidence", "fork_evidence"}
    assert all(hasattr(codec.Record, name.removeprefix("Record.")) for name in names if "." in name)
