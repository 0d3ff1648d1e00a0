import json

import pytest

from exporter import stages, upstream
from exporter.observations import (
    BackendsSeen,
    BusGap,
    ClockBasis,
    LanguageModelSeen,
    LogLine,
    PipelineReported,
    ProcessReported,
    SessionSeen,
    TargetEvent,
    TargetStarted,
    TurnOpened,
    TurnReported,
)
from exporter.stages import InputKind, Outcome, Phase, ProcessRole, Source, Startup
from exporter.turns import (
    AGENT_GRACE_S,
    CLIENT_GRACE_S,
    GAP_GRACE_S,
    LOG_GRACE_S,
    TURN_LIMIT_S,
    TurnAssembler,
)
from tests.recordings import log_lines, sse_events

TIMING = {
    "model": "wav2lip",
    "api_enqueue_to_speak_enter_ms": 2.0,
    "ttfa_ms": 400.0,
    "ttfv_ms": 250.0,
    "e2e_first_response_ms": 653.0,
    "first_model_request_ms": 560.0,
    "first_model_return_ms": 640.0,
    "first_webrtc_queue_ms": 650.0,
    "chunk_latency_ms": [80.0, 60.0, 61.0, 59.0],
    "steady_fps": 400.0,
    "rtf": 0.06,
    "output_fps": 25.0,
    "chunk_samples": 17920,
    "sample_rate": 16000,
    "speak_wall_ms": 2000.0,
}


def event(at, name, session="s", source=Source.BUS, **data):
    return TargetEvent(at, source, session, name, data)


def opened(at, turn="1", session="s", *, phase="measured", kind="text", uncertainty=0.0):
    clock = ClockBasis(0.0, uncertainty)
    return TurnOpened(at, session, turn, at, InputKind(kind), Phase(phase), clock)


def reported(of, at, *, outcome="completed", marks=None, **rest):
    told = TurnOpened(at, of.session, of.turn, of.started, of.input, of.phase, of.clock)
    return TurnReported(told, marks=marks or {}, outcome=Outcome(outcome), **rest)


def speech(start, session="s", timing=TIMING):
    """The server's events of one whole turn whose pipeline is entered at `start` + 3 ms."""
    entered = start + 0.003
    return [
        event(start, upstream.SPEECH_STARTED, session, text="hi"),
        event(entered + 0.651, upstream.SPEECH_MEDIA_STARTED, session),
        event(entered + 2.001, upstream.SPEECH_TIMING, session, **timing),
        event(entered + 2.002, upstream.SPEECH_ENDED, session, text="there"),
    ]


def feed(assembler, *observations):
    return [turn for seen in observations for turn in assembler.feed(seen)]


class TestRecordings:
    def replay(self, name, **kwargs):
        assembler = TurnAssembler(**kwargs)
        turns = [
            turn
            for at, name, data in sse_events(name)
            for turn in assembler.feed(
                TargetEvent(at, Source.SSE, data.get("session_id", "-"), name, data)
            )
        ]
        return turns + assembler.finish()

    def test_a_spoken_answer_is_one_completed_turn(self):
        [turn] = self.replay("unified_wav2lip_synth.sse.txt")
        assert turn.outcome == "completed"
        assert turn.model == "wav2lip"
        assert turn.values[stages.TTFA.key] == 427.5850310000351
        assert turn.values[stages.TTFV.key] == 236.68709399998988
        assert turn.values[stages.FIRST_TURN_TOTAL.key] == 665.8177375793457
        assert turn.values[stages.AVATAR_FIRST_FRAME_LATENCY.key] == pytest.approx(
            664.1389269998399 - 593.1875309997849, abs=0.001
        )

    def test_render_fps_is_corrected_and_steady_fps_is_upstreams(self):
        [turn] = self.replay("unified_wav2lip_synth.sse.txt")
        assert turn.values[stages.STEADY_FPS.key] == 352.51212815318155
        assert turn.values[stages.RENDER_FPS.key] == pytest.approx(394.8, abs=0.1)

    def test_the_steady_chunk_is_the_median_without_the_first(self):
        [turn] = self.replay("unified_wav2lip_synth.sse.txt")
        assert turn.values[stages.STEADY_CHUNK.key] == pytest.approx(70.67231700001687)

    def test_every_turn_of_a_session_in_order(self):
        turns = self.replay("split_mock.sse.txt")
        assert [t.turn for t in turns] == list(range(1, len(turns) + 1))
        assert len(turns) == sum(
            name == upstream.SPEECH_STARTED for _, name, _ in sse_events("split_mock.sse.txt")
        )

    def test_an_interrupted_speech_is_told_from_a_completed_one(self):
        outcomes = [t.outcome for t in self.replay("split_mock.sse.txt")]
        assert "interrupted" in outcomes
        assert "completed" in outcomes

    def test_a_backend_failure_is_a_failed_turn_with_its_code(self):
        [turn] = self.replay("err_omnirt_fail.sse.txt")
        assert turn.outcome == "failed"
        assert turn.error == {
            "code": "SPEAK_FAILED",
            "message": "wav2lip generate error: synthetic inference failure",
        }

    def test_null_timings_become_no_value(self):
        """TTS down: every field of speech.timing is null or zero."""
        [turn] = self.replay("err_tts_down.sse.txt")
        for stage in (stages.TTFA, stages.TTFV, stages.FIRST_TURN_TOTAL, stages.RTF):
            assert stage.key not in turn.values
            assert turn.absent[stage.key]


class TestServerMarks:
    def test_the_pipelines_entry_is_placed_by_the_tightest_bound(self):
        [turn] = feed(TurnAssembler(), *speech(1000.0))
        # media started was seen 1 ms late, timing 1 ms late: the entry is at most 1 ms late.
        assert turn.marks[stages.SPEAK_ENTERED] == pytest.approx(1000.004, abs=1e-6)
        assert turn.marks[stages.INPUT_ENQUEUED] == pytest.approx(1000.002, abs=1e-6)
        assert turn.marks[stages.MEDIA_QUEUED] == pytest.approx(1000.654, abs=1e-6)

    def test_a_timing_event_with_foreign_values_loses_only_those(self):
        odd = TIMING | {"ttfa_ms": "soon", "rtf": float("nan"), "chunk_latency_ms": [60.0, None]}
        [turn] = feed(TurnAssembler(), *speech(1000.0, timing=odd))
        assert stages.TTFA.key not in turn.values
        assert stages.RTF.key not in turn.values
        assert turn.values[stages.TTFV.key] == 250.0
        assert turn.timing["chunk_latency_ms"] == [60.0]
        json.dumps(turn.to_json(), allow_nan=False)

    def test_without_timing_the_entry_is_only_estimated(self):
        events = [e for e in speech(1000.0) if e.name != upstream.SPEECH_TIMING]
        [turn] = feed(TurnAssembler(), *events)
        assert turn.mark_sources[stages.SPEAK_ENTERED] == "estimated"
        assert stages.TTFA.key not in turn.values
        assert "OPENTALKING_BENCHMARK_TIMING" in turn.absent[stages.TTFA.key]

    def test_values_of_upstream_are_taken_over_exactly(self):
        [turn] = feed(TurnAssembler(), *speech(1000.0))
        assert turn.values[stages.TTFA.key] == 400.0
        assert turn.values[stages.TTFV.key] == 250.0
        assert turn.values[stages.FIRST_TURN_TOTAL.key] == 653.0
        assert turn.values[stages.RENDER_FPS.key] == pytest.approx(28 / 0.065)


class TestJoiningTheClient:
    def test_the_client_speaks_first(self):
        assembler = TurnAssembler()
        ask = opened(999.99)
        assert feed(assembler, ask, *speech(1000.0)) == []
        [turn] = feed(assembler, reported(ask, 1005.0, marks={stages.CLIENT_FIRST_AUDIO: 1000.8}))
        assert turn.client_turn == "1"
        assert turn.values[stages.PERCEIVED_TTFA.key] == pytest.approx(810.0)
        assert turn.outcome == "completed"

    def test_the_bus_speaks_first(self):
        assembler = TurnAssembler()
        started, *rest = speech(1000.0)
        ask = opened(999.99)
        feed(assembler, started, ask, *rest)
        [turn] = feed(assembler, reported(ask, 1005.0))
        assert turn.client_turn == "1"
        assert turn.timing is not None

    def test_a_vanished_speech_does_not_take_the_next_turns_events(self):
        assembler = TurnAssembler()
        lost, found = opened(990.0, "1"), opened(999.99, "2")
        [first] = feed(assembler, lost, reported(lost, 998.0, outcome="vanished"))
        assert first.outcome == "vanished"
        assert first.timing is None
        feed(assembler, found, *speech(1000.0))
        [second] = feed(assembler, reported(found, 1005.0))
        assert (second.client_turn, second.outcome, second.turn) == ("2", "completed", 2)

    def test_two_sessions_at_once_do_not_mix(self):
        assembler = TurnAssembler()
        asks = [opened(999.99, "1", name) for name in ("a", "b")]
        other = {**TIMING, "ttfa_ms": 900.0}
        mixed = [
            seen
            for pair in zip(speech(1000.0, "a"), speech(1000.0, "b", other), strict=True)
            for seen in pair
        ]
        feed(assembler, *asks, *mixed)
        turns = {t.session: t for ask in asks for t in feed(assembler, reported(ask, 1005.0))}
        assert turns["a"].values[stages.TTFA.key] == 400.0
        assert turns["b"].values[stages.TTFA.key] == 900.0

    def test_a_turn_waits_for_the_client_while_it_plays(self):
        assembler = TurnAssembler()
        ask = opened(999.99)
        feed(assembler, ask, *speech(1000.0))
        assert assembler.tick(1002.0 + CLIENT_GRACE_S) == []
        [turn] = assembler.tick(1003.0 + CLIENT_GRACE_S)
        assert turn.absent[stages.PERCEIVED_TTFA.key] == "no client reported this turn"

    def test_reasons_of_the_client_are_kept(self):
        assembler = TurnAssembler()
        ask = opened(999.99)
        feed(assembler, ask, *speech(1000.0))
        why = {stages.CLIENT_FIRST_TALKING_FRAME: "no barcode in the picture"}
        [turn] = feed(assembler, reported(ask, 1005.0, absent=why))
        assert turn.absent[stages.PERCEIVED_TTFV.key] == "no barcode in the picture"
        assert turn.absent[stages.MEDIA_DELIVERY.key] == "no barcode in the picture"

    def test_marks_out_of_order_give_no_negative_stage(self):
        assembler = TurnAssembler()
        ask = opened(999.99)
        feed(assembler, ask, *speech(1000.0))
        early = {stages.CLIENT_FIRST_TALKING_FRAME: 1000.5}
        [turn] = feed(assembler, reported(ask, 1005.0, marks=early))
        assert stages.MEDIA_DELIVERY.key not in turn.values
        assert "out of order" in turn.absent[stages.MEDIA_DELIVERY.key]


class TestLogLines:
    def pipeline(self, at, session="s", **fields):
        line = upstream.PipelineTimingLine(session, {"llm_first_token_ms": 150.0, **fields})
        return LogLine(at, line, stamped=True)

    def sentence(self, at, ms, *, stamped=True):
        return LogLine(at, upstream.SentenceLine(ms), stamped=stamped)

    def asked(self, at):
        return LogLine(at, upstream.LlmStartedLine(), stamped=True)

    def test_a_turn_takes_its_lines(self):
        assembler = TurnAssembler(expect_log=True)
        lines = [self.asked(1000.010), self.sentence(1000.9, 120.0), self.sentence(1001.4, 99.0)]
        [turn] = feed(assembler, *speech(1000.0)[:3], *lines, self.pipeline(1002.0)) + feed(
            assembler, speech(1000.0)[3]
        )
        assert turn.values[stages.LLM_FIRST_TOKEN_LATENCY.key] == 150.0
        assert turn.values[stages.TTS_FIRST_PCM_LATENCY.key] == 120.0
        assert turn.values[stages.TURN_PREPARE.key] == pytest.approx(6.0, abs=0.01)
        # first PCM at entry + 400, sentence submitted 120 before, token at 10.010 + 150
        assert turn.values[stages.SENTENCE_READY.key] == pytest.approx(
            4.0 + 400.0 - 120.0 - 10.0 - 150.0, abs=0.01
        )

    def test_the_instant_of_the_llm_request_bounds_the_entry(self):
        """It follows the entry, so an entry dated later (events seen late) is pulled before it."""
        assembler = TurnAssembler(expect_log=True)
        late = [
            TargetEvent(e.at + 0.05 * (i > 0), e.source, e.session, e.name, e.data)
            for i, e in enumerate(speech(1000.0))
        ]
        feed(assembler, *late[:3], self.asked(1000.005), self.pipeline(1002.1))
        [turn] = feed(assembler, late[3])
        assert turn.marks[stages.SPEAK_ENTERED] == 1000.005
        assert turn.values[stages.TURN_PREPARE.key] == 0.0

    def test_the_entry_is_the_instant_of_its_own_line(self):
        """Late events place it too late; the log line before the pipeline's clock does not."""
        assembler = TurnAssembler(expect_log=True)
        entered = LogLine(1000.003, upstream.EnteredLine("s"), stamped=True)
        [turn] = feed(
            assembler,
            entered,
            self.asked(1000.008),
            *speech(1000.0)[:3],
            self.pipeline(1002.0),
            speech(1000.0)[3],
        )
        assert turn.marks[stages.SPEAK_ENTERED] == 1000.003
        assert turn.values[stages.TURN_PREPARE.key] == pytest.approx(5.0, abs=0.01)

    def test_the_log_may_be_read_after_the_events(self):
        assembler = TurnAssembler(expect_log=True)
        assert feed(assembler, *speech(1000.0)) == []
        [turn] = feed(assembler, self.pipeline(1002.3))
        assert turn.values[stages.LLM_FIRST_TOKEN_LATENCY.key] == 150.0

    def test_a_clients_clock_that_is_a_little_off_loses_no_line(self):
        """Within what the client itself says of its clock, the input may seem later than it was."""
        assembler = TurnAssembler(expect_log=True)
        ask = opened(1000.020, uncertainty=0.022)
        feed(assembler, ask, self.asked(1000.004), *speech(1000.0)[:3], self.pipeline(1002.0))
        feed(assembler, speech(1000.0)[3])
        [turn] = feed(assembler, reported(ask, 1005.0))
        assert turn.marks[stages.LLM_REQUESTED] == 1000.004

    def test_the_log_may_be_read_before_the_events(self):
        assembler = TurnAssembler(expect_log=True)
        assert feed(assembler, self.pipeline(1002.0), *speech(1000.0)) == []
        [turn] = assembler.tick(1002.1 + LOG_GRACE_S)
        assert turn.values[stages.LLM_FIRST_TOKEN_LATENCY.key] == 150.0

    def test_a_turn_does_not_wait_for_a_line_for_ever(self):
        assembler = TurnAssembler(expect_log=True)
        feed(assembler, *speech(1000.0))
        [turn] = assembler.tick(1002.1 + LOG_GRACE_S)
        assert "log" in turn.absent[stages.LLM_FIRST_TOKEN_LATENCY.key]

    def test_lines_without_a_session_belong_to_nobody_while_two_speak(self):
        assembler = TurnAssembler(expect_log=True)
        both = [
            e for pair in zip(speech(1000.0, "a"), speech(1000.1, "b"), strict=True) for e in pair
        ]
        feed(assembler, *both[:6], self.sentence(1000.9, 120.0))
        turns = feed(assembler, *both[6:], self.pipeline(1002.2, "a"), self.pipeline(1002.2, "b"))
        assert len(turns) == 2
        assert all(stages.TTS_FIRST_PCM_LATENCY.key not in t.values for t in turns)
        assert all(t.values[stages.LLM_FIRST_TOKEN_LATENCY.key] == 150.0 for t in turns)
        assembler.tick(1002.0 + 2 * TURN_LIMIT_S)
        assert assembler.log_lines_unattributed == 1

    def test_a_failed_turn_does_not_block_later_lines(self):
        assembler = TurnAssembler(expect_log=True)
        [failed] = feed(
            assembler,
            event(1000.0, upstream.SPEECH_STARTED, text="x"),
            event(1000.5, upstream.ERROR, code="SPEAK_FAILED", message="boom"),
        )
        assert failed.outcome == "failed"
        feed(assembler, *speech(1100.0)[:3], self.sentence(1100.9, 120.0), self.pipeline(1102.0))
        [turn] = feed(assembler, speech(1100.0)[3])
        assert turn.values[stages.TTS_FIRST_PCM_LATENCY.key] == 120.0

    def test_lines_of_a_recorded_log_agree_with_it(self):
        """Replayed without events, the recorded log gives nothing to a turn and loses nothing."""
        assembler = TurnAssembler(expect_log=True)
        count = 0
        for text in log_lines("split_mock.worker.log"):
            line, at = upstream.parse_line(text), upstream.line_time(text)
            if line is not None and at is not None:
                assembler.feed(LogLine(at, line, stamped=True))
                count += 1
        assembler.tick(4e9)
        assert assembler.log_lines_unattributed == count > 10


class TestABusThatWasAway:
    def gap(self, began=1001.0, ended=1004.0):
        return BusGap(began, ended)

    def test_a_turn_whose_end_was_missed_is_incomplete_and_says_why(self):
        assembler = TurnAssembler()
        feed(assembler, *speech(1000.0)[:2], self.gap())
        assert feed(assembler, SessionSeen(1004.1, "s", state="ready")) == []
        [turn] = assembler.tick(1004.2 + GAP_GRACE_S)
        assert turn.outcome == "incomplete"
        assert turn.error["code"] == "BUS_GAP"
        assert stages.SPEECH_ENDED not in turn.marks

    def test_a_relay_that_saw_the_end_is_believed_even_after_the_session_was_looked_up(self):
        assembler = TurnAssembler()
        *begun, timing, ended = speech(1000.0)
        feed(assembler, *begun, self.gap(), SessionSeen(1004.1, "s", state="ready"))
        relayed = [TargetEvent(e.at, Source.SSE, "s", e.name, e.data) for e in (timing, ended)]
        [turn] = feed(assembler, *relayed)
        assert (turn.outcome, turn.error) == ("completed", None)
        assert turn.timing is not None
        assert turn.mark_sources[stages.SPEECH_ENDED] == "sse"

    def test_the_late_end_of_a_missed_turn_does_not_end_the_next(self):
        assembler = TurnAssembler()
        ended = speech(1000.0)[3]
        feed(assembler, *speech(1000.0)[:2], self.gap(), SessionSeen(1004.1, "s", state="ready"))
        feed(assembler, *speech(1004.5)[:2])
        late = TargetEvent(ended.at, Source.SSE, "s", ended.name, ended.data)
        [first] = feed(assembler, late)
        [second] = feed(assembler, *speech(1004.5)[2:])
        assert [t.outcome for t in (first, second)] == ["completed", "completed"]

    def test_a_turn_that_begins_after_a_missed_end_interrupts_nothing(self):
        assembler = TurnAssembler()
        feed(assembler, *speech(1000.0)[:2], self.gap(), SessionSeen(1004.1, "s", state="ready"))
        turns = feed(assembler, *speech(1004.5)) + assembler.tick(1010.0)
        assert sorted(t.outcome for t in turns) == ["completed", "incomplete"]

    def test_the_agents_account_of_a_turn_whose_end_was_missed_is_believed(self):
        assembler = TurnAssembler()
        feed(assembler, *speech(1000.0)[:2], self.gap(), SessionSeen(1004.1, "s", state="ready"))
        marks = {stages.SPEAK_ENTERED: 1000.003, stages.SPEECH_GENERATED: 1002.0}
        account = PipelineReported(1004.3, "s", 1000.003, marks, Outcome.COMPLETED)
        [turn] = feed(assembler, account)
        assert (turn.outcome, turn.error) == ("completed", None)

    def test_a_turn_that_still_speaks_goes_on(self):
        assembler = TurnAssembler()
        events = speech(1000.0)
        feed(assembler, *events[:2], self.gap())
        assert feed(assembler, SessionSeen(1001.9, "s", state="speaking")) == []
        [turn] = feed(assembler, *events[2:])
        assert turn.outcome == "completed"

    def test_a_client_that_saw_the_whole_turn_is_believed(self):
        assembler = TurnAssembler()
        ask = opened(999.99)
        feed(assembler, ask, *speech(1000.0)[:2], self.gap())
        feed(assembler, SessionSeen(1004.1, "s", state="ready"))
        [turn] = feed(assembler, reported(ask, 1005.0))
        assert (turn.outcome, turn.error) == ("completed", None)

    def test_a_finished_turn_is_not_touched(self):
        assembler = TurnAssembler()
        [turn] = feed(assembler, *speech(1000.0))
        assert feed(assembler, self.gap(), SessionSeen(1004.1, "s", state="ready")) == []
        assert turn.outcome == "completed"


class TestBounds:
    def test_sessions_are_bounded_by_count(self, monkeypatch):
        monkeypatch.setattr("exporter.turns.SESSIONS_LIMIT", 10)
        assembler = TurnAssembler()
        for number in range(15):
            feed(assembler, event(1000.0, upstream.SPEECH_STARTED, f"s{number}", text="x"))
        assert assembler.open_turns == 10
        assert (assembler.sessions_dropped, assembler.turns_dropped) == (5, 5)

    def test_open_turns_of_a_session_are_bounded(self, monkeypatch):
        monkeypatch.setattr("exporter.turns.DRAFTS_LIMIT", 5)
        assembler = TurnAssembler()
        turns = [t for n in range(8) for t in feed(assembler, opened(1000.0 + n, str(n)))]
        assert [t.client_turn for t in turns] == ["0", "1", "2"]
        assert assembler.open_turns == 5

    def test_a_line_that_nobody_can_take_still_counts_as_a_value(self):
        assembler = TurnAssembler(expect_log=True)
        feed(
            assembler,
            LogLine(1000.0, upstream.SentenceLine(120.0), stamped=True),
            LogLine(1000.0, upstream.PipelineTimingLine("s", {"llm_first_token_ms": 90.0}), True),
        )
        assembler.tick(1001.0 + TURN_LIMIT_S)
        assert sorted((s.key, v) for s, v in assembler.take_values_of_nobody()) == [
            (stages.LLM_FIRST_TOKEN_LATENCY.key, 90.0),
            (stages.TTS_FIRST_PCM_LATENCY.key, 120.0),
        ]
        assert assembler.take_values_of_nobody() == []


class TestTheAgent:
    """What the agent tells from inside the pipeline is exact and takes the place of estimates."""

    MARKS = {  # noqa: RUF012 (never changed)
        stages.INPUT_ENQUEUED: 1000.001,
        stages.SPEAK_ENTERED: 1000.003,
        stages.LLM_REQUESTED: 1000.008,
        stages.LLM_FIRST_TOKEN: 1000.1584,
        stages.TTS_REQUESTED: 1000.250,
        stages.TTS_FIRST_PCM: 1000.403,
        stages.AVATAR_REQUESTED: 1000.563,
        stages.AVATAR_FIRST_FRAME: 1000.643,
        stages.MEDIA_QUEUED: 1000.653,
        stages.SPEECH_GENERATED: 1002.003,
    }

    def account(self, at=1002.5, **changes):
        told = {"outcome": Outcome.COMPLETED, "marks": self.MARKS, **changes}
        return PipelineReported(at, "s", 1000.003, **told)

    def test_its_instants_replace_the_estimates(self):
        assembler = TurnAssembler()
        account = self.account(chunks=((1000.563, 1000.643),), first_video=90_000, first_audio=960)
        [turn] = feed(assembler, *speech(1000.0)[:3], account)
        for name, at in self.MARKS.items():
            assert turn.marks[name] == at
            assert turn.mark_sources[name] == "agent"
        assert turn.values[stages.TURN_PREPARE.key] == pytest.approx(5.0, abs=0.001)
        assert turn.values[stages.LLM_FIRST_TOKEN_LATENCY.key] == pytest.approx(150.4, abs=0.001)
        assert turn.values[stages.SENTENCE_READY.key] == pytest.approx(91.6, abs=0.001)
        assert turn.values[stages.TTS_FIRST_PCM_LATENCY.key] == pytest.approx(153.0, abs=0.001)
        assert turn.chunks == [(1000.563, 1000.643)]
        assert turn.first_timestamps == {"video": 90_000, "audio": 960}

    def test_what_upstream_computed_itself_stays(self):
        assembler = TurnAssembler()
        [turn] = feed(assembler, *speech(1000.0)[:3], self.account())
        assert turn.values[stages.TTFA.key] == TIMING["ttfa_ms"]
        assert turn.value_sources[stages.TTFA.key] == "speech.timing"

    def test_without_a_timing_event_its_marks_give_the_composites(self):
        assembler = TurnAssembler()
        [turn] = feed(assembler, *speech(1000.0)[:2], self.account())
        assert turn.values[stages.TTFA.key] == pytest.approx(400.0)
        assert turn.values[stages.TTFV.key] == pytest.approx(250.0)
        assert turn.value_sources[stages.TTFA.key] == "marks"

    def test_a_turn_that_nobody_else_saw_is_a_turn(self):
        [turn] = feed(TurnAssembler(), self.account())
        assert turn.outcome == "completed"
        assert turn.values[stages.TTFV.key] == pytest.approx(250.0)

    def test_it_tells_the_trace_the_language_model_and_speech_recognition(self):
        heard = {stages.STT_REQUESTED: 999.5, stages.STT_TRANSCRIBED: 999.7}
        account = self.account(
            marks=self.MARKS | heard,
            llm_model="qwen-max",
            traceparent="00-…",
            samples={stages.RENDER_FPS.key: 100.0},
        )
        assembler = TurnAssembler()
        feed(assembler, LanguageModelSeen(1.0, "qwen-turbo", "openai_compatible"))
        [turn] = feed(assembler, account)
        assert (turn.llm_model, turn.llm_provider) == ("qwen-max", "openai_compatible")
        assert turn.traceparent == "00-…"
        assert turn.values[stages.STT.key] == pytest.approx(200.0)
        assert turn.value_sources[stages.RENDER_FPS.key] == "agent"

    def test_without_it_the_language_model_is_the_one_the_target_names(self):
        assembler = TurnAssembler()
        feed(assembler, LanguageModelSeen(1.0, "qwen-turbo", None))
        [turn] = feed(assembler, *speech(1000.0))
        assert (turn.llm_model, turn.llm_provider, turn.traceparent) == ("qwen-turbo", None, None)

    def test_its_failures_are_failures(self):
        error = {"code": "SPEAK_FAILED", "message": "boom"}
        [turn] = feed(TurnAssembler(), self.account(outcome=Outcome.FAILED, error=error))
        assert (turn.outcome, turn.error) == ("failed", error)

    def test_once_known_it_is_waited_for(self):
        assembler = TurnAssembler()
        feed(assembler, self.account())
        assert feed(assembler, *speech(1010.0)) == []
        [turn] = assembler.tick(1012.1 + AGENT_GRACE_S)
        assert turn.timing is not None
        assert turn.mark_sources[stages.SPEAK_ENTERED] == "bus"

    @pytest.mark.parametrize(
        "sign",
        [
            ProcessReported(999.0, "agent-1", ProcessRole.WORKER),
            TargetEvent(999.0, Source.AGENT, "s", "session.queued", {}),
        ],
        ids=["its process", "its events"],
    )
    def test_any_sign_of_it_makes_the_first_turn_wait(self, sign):
        assembler = TurnAssembler()
        feed(assembler, sign)
        bus = Source.AGENT if isinstance(sign, TargetEvent) else Source.BUS
        events = [TargetEvent(e.at, bus, e.session, e.name, e.data) for e in speech(1000.0)]
        assert feed(assembler, *events) == []
        [turn] = feed(assembler, self.account())
        assert turn.values[stages.LLM_FIRST_TOKEN_LATENCY.key] == pytest.approx(150.4, abs=0.001)

    def test_the_apis_own_agent_tells_of_no_speech_and_is_not_waited_for(self):
        assembler = TurnAssembler()
        feed(assembler, ProcessReported(999.0, "agent-2", ProcessRole.API))
        [turn] = feed(assembler, *speech(1000.0))
        assert turn.outcome == "completed"


class TestOutcomes:
    def test_news_after_a_failure_does_not_touch_the_next_turn(self):
        assembler = TurnAssembler()
        feed(
            assembler,
            event(1000.0, upstream.SPEECH_STARTED, text="x"),
            event(1000.5, upstream.ERROR, code="SPEAK_FAILED", message="boom"),
            event(1012.0, upstream.SPEECH_ENDED),
        )
        assert assembler.events_ignored == 1
        [turn] = feed(assembler, *speech(1020.0))
        assert (turn.turn, turn.outcome) == (2, "completed")

    def test_a_speech_that_begins_over_another_interrupts_it(self):
        assembler = TurnAssembler()
        turns = feed(assembler, event(1000.0, upstream.SPEECH_STARTED, text="x"), *speech(1001.0))
        assert [t.outcome for t in turns] == ["interrupted", "completed"]

    def test_a_turn_without_an_end_is_closed_in_the_end(self):
        assembler = TurnAssembler()
        feed(assembler, event(1000.0, upstream.SPEECH_STARTED, text="x"))
        assert assembler.open_turns == 1
        [turn] = assembler.tick(1001.0 + TURN_LIMIT_S)
        assert turn.outcome == "incomplete"
        assert assembler.open_turns == 0

    def test_stopping_closes_what_is_open(self):
        assembler = TurnAssembler()
        feed(assembler, opened(1000.0), event(1000.1, upstream.SPEECH_STARTED, text="x"))
        [turn] = assembler.finish()
        assert turn.outcome == "incomplete"

    def test_memory_of_sessions_is_bounded_by_time(self):
        assembler = TurnAssembler()
        for number in range(100):
            feed(assembler, *speech(1000.0 + number, f"s{number}"))
        assembler.tick(1e5)
        assert assembler._sessions == {}


class TestStartup:
    def test_cold_is_the_first_turn_after_the_target_started(self):
        assembler = TurnAssembler()
        turns = feed(
            assembler,
            TargetStarted(900.0),
            *speech(1000.0, "a"),
            *speech(1010.0, "a"),
            *speech(1020.0, "b"),
            *speech(1030.0, "b"),
        )
        assert [t.startup for t in turns] == [
            Startup.COLD,
            Startup.STEADY,
            Startup.WARM,
            Startup.STEADY,
        ]

    def test_a_target_that_was_there_before_is_never_cold(self):
        turns = feed(TurnAssembler(), *speech(1000.0), *speech(1010.0))
        assert [t.startup for t in turns] == [Startup.WARM, Startup.STEADY]


class TestWarmup:
    def test_it_runs_from_the_request_to_the_timing_event(self):
        assembler = TurnAssembler()
        ask = opened(999.5, phase="warmup")
        feed(assembler, ask, *speech(1000.0))
        [turn] = feed(assembler, reported(ask, 1005.0))
        assert turn.values[stages.WARMUP.key] == pytest.approx(1002.004 - 999.5)

    def test_a_measured_turn_has_none(self):
        assembler = TurnAssembler()
        ask = opened(999.5)
        feed(assembler, ask, *speech(1000.0))
        [turn] = feed(assembler, reported(ask, 1005.0))
        assert stages.WARMUP.key not in turn.values


class TestSessions:
    def test_marks_are_merged_and_values_told_once(self):
        assembler = TurnAssembler()
        feed(assembler, BackendsSeen(1.0, {"wav2lip": "omnirt"}))
        made = {stages.SESSION_REQUESTED: 10.0, stages.SESSION_CREATED: 10.04}
        feed(assembler, SessionSeen(11.0, "s", model="wav2lip", marks=made))
        [(record, fresh)] = assembler.take_sessions()
        assert fresh == {stages.SESSION_CREATE.key}
        assert record.values[stages.SESSION_CREATE.key] == pytest.approx(40.0)
        assert record.backend == "omnirt"
        shown = {stages.OFFER_STARTED: 10.1, stages.CLIENT_FIRST_FRAME: 10.3}
        feed(assembler, SessionSeen(12.0, "s", marks=shown))
        [(record, fresh)] = assembler.take_sessions()
        assert fresh == {stages.WEBRTC_FIRST_FRAME.key}
        assert assembler.take_sessions() == []

    def test_a_turn_carries_its_sessions_model_and_backend(self):
        assembler = TurnAssembler()
        feed(assembler, BackendsSeen(1.0, {"wav2lip": "omnirt"}))
        feed(assembler, SessionSeen(2.0, "s", model="wav2lip", avatar="demo"))
        [turn] = feed(assembler, *speech(1000.0))
        assert (turn.model, turn.backend, turn.avatar) == ("wav2lip", "omnirt", "demo")


@pytest.mark.parametrize(
    "stage", [s for s in stages.STAGES.values() if s.scope is stages.Scope.TURN]
)
def test_every_stage_of_a_turn_has_a_value_or_a_reason(stage):
    [turn] = feed(TurnAssembler(), *speech(1000.0))
    assert (stage.key in turn.values) != (stage.key in turn.absent)


def test_a_sessions_creation_is_told_by_one_clock_alone():
    """By whoever tells first: the agent's instants and a client's are not mixed."""
    assembler = TurnAssembler()
    names = (stages.SESSION_REQUESTED, stages.SESSION_CREATED)
    for began, took in ((1000.0, 0.08), (1000.5, 0.02)):
        marks = dict(zip(names, (began, began + took), strict=True))
        assembler.feed(SessionSeen(1001.0, "s", marks=marks))
    [(record, _)] = assembler.take_sessions()
    assert record.values[stages.SESSION_CREATE.key] == pytest.approx(80.0)
