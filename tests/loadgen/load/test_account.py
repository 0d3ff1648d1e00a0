"""The run's account: nothing lost silently, and what the end says to the shell."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from exporter import stages
from exporter.stages import Outcome
from loadgen.load import progress
from loadgen.load.account import ACCOUNT, TURNS, Account, End
from loadgen.load.ledger import Ledger
from loadgen.media.onset import Basis
from tests.loadgen.load.test_verdict import BAD, GOOD

TTFA = stages.PERCEIVED_TTFA.key
DRIFT = stages.AV_DRIFT.key


def turn(outcome=Outcome.COMPLETED, message=None, **values):
    return {
        "kind": "turn",
        "visit": 1,
        "scenario": "chat",
        "session": "s",
        "turn": "1",
        "outcome": outcome,
        "error": {"code": "X", "message": message} if message else None,
        "values": values,
        "bases": {DRIFT: Basis.AGENT} if DRIFT in values else {},
        "absent": {},
    }


def window(of=GOOD):
    return {"kind": "window", **of.to_json()}


def session(state, visit=1, **more):
    return {"kind": "session", "visit": visit, "scenario": "chat", "state": state, **more}


@pytest.fixture
def account(tmp_path):
    account = Account(tmp_path, Ledger())
    account.hello("a", "host", 1)
    account.hello("b", "host", 2)
    return account


def report(account, worker, sequence, *entries, **more):
    message = {"worker": worker, "sequence": sequence, "entries": list(entries)}
    account.report({**message, "sessions": 0, "speaking": 0, **more})


def finish(account, worker, sequence, *entries, cut_off=0, never_begun=0, marks_lost=0):
    message = {"worker": worker, "sequence": sequence, "entries": list(entries)}
    told = {"sessions": 0, "speaking": 0, "cut_off": cut_off, "never_begun": never_begun}
    told["marks_lost"] = marks_lost
    account.finished(message | told)


def test_turns_of_all_workers_are_kept_as_they_were_and_summed_up(account, tmp_path):
    report(account, "a", 0, turn(**{TTFA: 500.0, DRIFT: -3.0}), turn(**{TTFA: 700.123}))
    finish(account, "b", 0, turn(Outcome.INTERRUPTED, **{TTFA: 600.0}), cut_off=2)
    finish(account, "a", 2)
    content = account.write({"target": "t"})
    kept = [json.loads(line) for line in (tmp_path / TURNS).read_text().splitlines()]
    assert [(k["worker"], k["values"][TTFA]) for k in kept] == [
        ("a", 500.0),
        ("a", 700.123),
        ("b", 600.0),
    ]
    assert content["turns"] == {"completed": 2, "interrupted": 1}
    assert content["turns_cut_off"] == 2
    assert content["stages"][TTFA] == {
        "n": 3,
        "p50": 600.0,
        "p95": 700.123,
        "p99": 700.123,
        "max": 700.123,
    }
    assert json.loads((tmp_path / ACCOUNT).read_text()) == content
    assert content["losses"] == []


def test_entries_that_did_not_arrive_are_counted(account):
    report(account, "a", 0, turn())
    report(account, "a", 4, turn())
    finish(account, "a", 5)
    assert account.losses == ["3 entries of workers did not arrive"]
    assert account.end is End.FAILED


def test_a_lost_worker_and_lost_marks_are_stated(account):
    finish(account, "a", 0, turn(), marks_lost=7)
    account.lost("b", "was lost; last heard of at noon")
    assert account.losses == [
        "worker b was lost; last heard of at noon",
        "7 records did not reach the exporter",
    ]


def test_viewers_who_were_due_and_never_came_are_stated(account):
    account.unplaced = 1
    finish(account, "a", 0, turn(), never_begun=4)
    assert account.losses == ["5 viewers were due and had not begun when the run ended"]
    assert account.end is End.FAILED


def test_sessions_reach_the_ledger(account):
    report(account, "a", 0, session("requested"), session("created", session="s1"))
    assert account.ledger.left_by("a") == [(1, "s1")]
    report(account, "a", 2, session("closed", orphan="gone"))
    assert account.ledger.open == 0
    assert account.to_json()["orphans"] == [{"session": "s1", "worker": "a", "reason": "gone"}]


def test_an_entry_nobody_knows_is_an_error_and_not_dropped(account):
    with pytest.raises(ValueError, match="'news'"):
        report(account, "a", 0, {"kind": "news"})


FAILED_VISIT = {"kind": "failed", "visit": 1, "scenario": "c", "cause": "timeout", "message": "m"}


@pytest.mark.parametrize(
    ("entries", "end"),
    [
        ([], End.NOT_ENOUGH_DATA),
        ([turn()], End.GOOD),
        ([turn(Outcome.INTERRUPTED)], End.GOOD),
        ([turn(), turn(Outcome.VANISHED, "no event")], End.FAILED),
        ([turn(), FAILED_VISIT], End.FAILED),
        ([turn(), session("requested"), session("closed", orphan="x")], End.FAILED),
        ([turn(), window(), window()], End.GOOD),
        ([turn(), window(BAD), window(BAD)], End.INVALID),
        # Nothing else counts when no figure can be believed.
        ([turn(), FAILED_VISIT, window(BAD)], End.INVALID),
    ],
)
def test_what_the_end_says_to_the_shell(account, entries, end):
    report(account, "a", 0, *entries)
    assert account.end is end


def test_the_live_line_shows_what_is_asked_of_it(account):
    report(
        account,
        "a",
        0,
        turn(**{TTFA: 500.0, DRIFT: -3.0}),
        turn(Outcome.FAILED, "the LLM is down"),
        window(),
        sessions=4,
        speaking=2,
    )
    line = progress.live(account, 65.0)
    assert line.startswith("[   65 s] 4 sessions, 2 speaking, 2 turns, TTFA p50 500 p95 500 ms")
    assert "TTFV -" in line
    assert "drift -3.0 ms" in line
    assert "freezes -" in line
    assert "errors 1" in line
    assert line.endswith("generator ok")
    report(account, "b", 0, window(replace(GOOD, udp_drops=1)))
    assert progress.live(account, 66.0).endswith("late: datagrams dropped by this machine")


def test_the_closing_lines_name_failures_losses_orphans_and_advice(account):
    report(account, "a", 0, turn(Outcome.FAILED, "the LLM is down"), window(BAD), window(BAD))
    report(account, "a", 3, session("requested"), session("closed", orphan="target gone"))
    account.lost("b", "was lost")
    text = "\n".join(progress.closing(account, account.to_json()))
    assert "1 × the LLM is down" in text
    assert "lost: worker b was lost" in text
    assert "orphan: session of unknown id may still be on the target: target gone" in text
    assert "verdict: invalid: generator saturated" in text
    assert "advice: add 1 worker" in text


def test_how_a_figure_was_found_and_why_it_was_not_are_told(account):
    still = turn() | {"absent": {DRIFT: "the picture stands still"}}
    failed = turn(Outcome.FAILED, "down") | {"absent": {DRIFT: "the turn ended as failed"}}
    report(account, "a", 0, turn(**{DRIFT: 1.0}), still, still, failed)
    told = account.to_json()
    assert told["bases"] == {DRIFT: {Basis.AGENT: 1}}
    assert told["absent"] == {DRIFT: {"the picture stands still": 2}}
    lines = progress.closing(account, told)
    assert "    by: agent's RTP timestamps (1)" in lines
    assert "    not measured in 2 turns: the picture stands still" in lines
