"""Who still owes the target a DELETE."""

from __future__ import annotations

import asyncio

from loadgen.load.deletion import put_away
from loadgen.load.ledger import CLOSED, CREATED, REQUESTED, Ledger, read
from tests.loadgen.standin import SESSION, refusal, running

NOWHERE = "http://127.0.0.1:9"


def opened(ledger, worker="w", visit=1, session=SESSION):
    ledger.note(worker, visit, REQUESTED)
    ledger.note(worker, visit, CREATED, session=session)


def test_a_session_is_owed_from_its_request_to_its_deletion():
    ledger = Ledger()
    ledger.note("w", 1, REQUESTED)
    assert ledger.left_by("w") == [(1, None)]
    ledger.note("w", 1, CREATED, session="a")
    assert ledger.left_by("w") == [(1, "a")]
    assert ledger.left_by("other") == []
    ledger.note("w", 1, CLOSED)
    assert (ledger.open, ledger.orphans) == (0, [])


def test_a_deletion_in_vain_makes_an_orphan_with_its_id():
    ledger = Ledger()
    opened(ledger)
    ledger.note("w", 1, CLOSED, orphan="the target is gone")
    [orphan] = ledger.orphans
    assert (orphan.session, orphan.worker, orphan.reason) == (SESSION, "w", "the target is gone")


def test_a_ledger_survives_its_keeper(tmp_path):
    file = tmp_path / "ledger.jsonl"
    ledger = Ledger(file)
    opened(ledger, visit=1, session="a")
    opened(ledger, visit=2, session="b")
    ledger.note("w", 1, CLOSED)
    ledger.note("w", 3, REQUESTED)
    # Killed in the middle of a line.
    file.write_text(file.read_text() + '{"worker": "w", "vis')
    again = read(file)
    assert again.left_by("w") == [(2, "b"), (3, None)]


def test_what_a_lost_worker_left_is_deleted():
    ledger = Ledger()
    opened(ledger, "lost")
    opened(ledger, "alive", visit=7, session="other")
    with running() as standin:
        assert asyncio.run(put_away(standin.url, ledger, ["lost"], "lost")) == 1
    assert standin.deleted == 1
    assert ledger.workers() == {"alive"}
    assert ledger.orphans == []


def test_what_a_lost_worker_had_deleted_itself_is_let_be():
    """OpenTalking would show a session that is deleted twice as `closing` for ever."""
    ledger = Ledger()
    opened(ledger, "lost")
    with running(states=["closed"]) as standin:
        assert asyncio.run(put_away(standin.url, ledger, ["lost"], "lost")) == 0
    assert standin.deleted == 0
    assert ledger.orphans == []


def test_what_cannot_be_deleted_is_listed_with_both_reasons():
    ledger = Ledger()
    opened(ledger)
    ledger.note("w", 2, REQUESTED)
    with running(delete_answers=[refusal(500, "redis is gone")]) as standin:
        assert asyncio.run(put_away(standin.url, ledger, ["w"], "worker w was lost")) == 0
    known, unknown = ledger.orphans
    assert known.session == SESSION
    assert "worker w was lost" in known.reason
    assert "redis is gone" in known.reason
    assert unknown.session is None
    assert "id is not known" in unknown.reason
    assert ledger.open == 0


def test_a_target_that_is_gone_leaves_orphans_and_no_error():
    ledger = Ledger()
    opened(ledger)
    assert asyncio.run(put_away(NOWHERE, ledger, ["w"], "the run ended")) == 0
    assert "nothing answers" in ledger.orphans[0].reason
