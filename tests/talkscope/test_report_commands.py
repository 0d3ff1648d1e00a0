"""`talkscope report`, `compare` and `history` as a release manager runs them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from exporter import stages
from talkscope.arguments import instant, min_change
from talkscope.cli import main
from tests.processes import free_port
from tests.report.example import good_run
from tests.report.recording import START, Recording, full, run, vanished

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Three runs: one, an equal one, and one whose avatar became 700 ms slower."""
    for name, seed, slower in (("one", 1, 0.0), ("equal", 2, 0.0), ("slower", 3, 700.0)):
        recording = good_run(seed=seed, slower_ms=slower)
        recording.run_id = name
        recording.write(tmp_path / "runs" / name)
    return tmp_path / "runs"


def test_compare_names_a_regression_and_its_stage(runs: Path, capsys: Any) -> None:
    assert main(["compare", str(runs / "one"), str(runs / "slower")]) == 1
    text = capsys.readouterr().out
    assert text.startswith(f"Verdict: regression ({stages.PERCEIVED_TTFV.key})\n")
    assert f"`{stages.AVATAR_FIRST_FRAME_LATENCY.key}` explains" in text


def test_compare_of_a_run_with_itself_is_no_regression(runs: Path, capsys: Any) -> None:
    assert main(["compare", str(runs / "one"), str(runs / "one")]) == 0
    assert capsys.readouterr().out.startswith("Verdict: no regression")


def test_compare_with_too_little_says_how_many_turns_it_takes(tmp_path: Path, capsys: Any) -> None:
    small = str(full().write(tmp_path / "small"))
    assert main(["compare", small, small]) == 2
    text = capsys.readouterr().out
    assert "3 and 3 values; fewer than 8 a side prove nothing" in text


def test_compare_of_an_invalid_run_ends_with_3(runs: Path, capsys: Any) -> None:
    recording = good_run()
    recording.run["invalid"] = "sends were 300 ms late"
    bad = str(recording.write(runs / "bad"))
    assert main(["compare", str(runs / "one"), bad]) == 3
    assert "measured its load generator: sends were 300 ms late" in capsys.readouterr().out
    assert main(["report", bad]) == 3


def test_a_step_summary_is_markdown(runs: Path, capsys: Any) -> None:
    one = str(runs / "one")
    assert main(["compare", one, one, "--github-summary"]) == 0
    assert capsys.readouterr().out.startswith("## Verdict: no regression")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["compare", "x"], 64, "the following arguments are required: B"),
        (["compare", "x", "y"], 2, "x: there is no such folder or archive"),
        (["compare", "x", "y", "--metric", "speed"], 64, "--metric 'speed' is none of: session"),
        (["compare", "x", "y", "--min-change", "0%"], 64, "'0%' is neither a share such as 5%"),
        (["compare", "x", "y", "--prometheus", "http://h"], 64, "'x' is no window FROM/TO"),
        (["report"], 64, "give either a BUNDLE or --prometheus URL"),
        (["report", "x", "--prometheus", "http://h"], 64, "give either a BUNDLE or --prometheus"),
        (["report", "x", "--from", "0"], 64, "--from and --to go with --prometheus"),
        (["report", "--prometheus", "http://h"], 64, "--prometheus needs --from and --to"),
        (
            ["report", "--prometheus", "http://h", "--from", "noon", "--to", "1"],
            64,
            "'noon' is no time: give 2026-05-20T10:00Z",
        ),
        (["history", "nowhere"], 64, "nowhere: is no folder"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: list[str], status: int, message: str, capsys: Any
) -> None:
    assert main(arguments) == status
    told = capsys.readouterr().err
    assert message in told
    assert len(told.splitlines()) == 1


def test_a_prometheus_that_is_down_is_one_line(capsys: Any) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert main(["report", "--prometheus", url, "--from", "0", "--to", "60"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"talkscope report: {url}: cannot be reached (")
    assert len(told.splitlines()) == 1
    windows = ["2026-05-19T10:00Z/2026-05-19T11:00Z", "2026-05-20T10:00Z/2026-05-20T11:00Z"]
    assert main(["compare", "--prometheus", url, *windows]) == 2


def test_objectives_decide_the_status(runs: Path, tmp_path: Path, capsys: Any) -> None:
    def judged(at_most: int) -> int:
        slo = tmp_path / "slo.yaml"
        slo.write_text(
            f"objectives:\n  - metric: {stages.PERCEIVED_TTFV.key}\n    at_most: {at_most}\n"
        )
        return main(["report", str(runs / "one"), "--slo", str(slo)])

    assert judged(5000) == 0
    assert "| pass " in capsys.readouterr().out
    assert judged(1000) == 1
    assert "| fail " in capsys.readouterr().out
    assert judged(2750) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("objectives: [", "is not YAML ("),
        ("objectives:\n- {metric: x, at_most: 1}", "objectives[0].metric is 'x', which is none of"),
        ("", "is null where an object is expected"),
    ],
)
def test_a_bad_threshold_file_is_wrong_usage(
    runs: Path, tmp_path: Path, content: str, message: str, capsys: Any
) -> None:
    (tmp_path / "slo.yaml").write_text(content)
    assert main(["report", str(runs / "one"), "--slo", str(tmp_path / "slo.yaml")]) == 64
    told = capsys.readouterr().err
    assert message in told
    assert len(told.splitlines()) == 1


def test_the_example_of_the_docs_is_a_threshold_file(runs: Path, capsys: Any) -> None:
    from tests.processes import ROOT

    example = str(ROOT / "docs" / "slo.example.yaml")
    assert main(["report", str(runs / "one"), "--slo", example]) in {0, 1, 2}
    assert "## Objectives" in capsys.readouterr().out


def test_report_writes_all_files_and_upstreams_headings_on_request(
    runs: Path, tmp_path: Path, capsys: Any
) -> None:
    bench = tmp_path / "bench.json"
    bench.write_text(json.dumps({"init_seconds": 1.0, "audio_feature_seconds": 0.2}))
    out = tmp_path / "out"
    asked = ["--reference", "RTX 4090/quicktalk", "--external", str(bench), "--upstream-csv"]
    assert main(["report", str(runs / "one"), "--out", str(out), *asked]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        *("one.tar.gz", "report.html", "report.md", "result.csv", "result.json")
    ]
    assert (out / "result.csv").read_text(encoding="utf-8").startswith("测试日期,测试人,")
    text = capsys.readouterr().out
    assert "## Beside the published RTX 4090/quicktalk/540×900" in text
    assert "## External: QuickTalk" in text
    assert main(["report", str(runs / "one"), "--reference", "RTX 9/x"]) == 64


def test_history_prints_the_table_and_writes_the_page(
    runs: Path, tmp_path: Path, capsys: Any
) -> None:
    page = tmp_path / "history.html"
    assert main(["history", str(runs), "--out", str(page)]) == 0
    assert capsys.readouterr().out.count("| quicktalk |") == 3
    assert page.read_text(encoding="utf-8").count("<svg") >= 4
    (runs / "cut").mkdir()
    (runs / "cut" / "manifest.json").write_text("{")
    assert main(["history", str(runs)]) == 2


def test_a_run_that_failed_ends_with_1(tmp_path: Path, capsys: Any) -> None:
    lost = Recording(turns=[vanished(1)], run=run())
    assert main(["report", str(lost.write(tmp_path / "b"))]) == 1
    capsys.readouterr()


def test_times_and_changes_are_read_as_people_write_them() -> None:
    assert instant("2026-05-20T10:00Z") == instant("2026-05-20T12:00+02:00") == START
    assert instant("2026-05-20T10:00") == START
    assert instant(str(START)) == START
    assert min_change("5%") == (0.05, True)
    assert min_change("50ms") == min_change("50") == (50.0, False)
