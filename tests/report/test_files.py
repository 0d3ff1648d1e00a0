"""The report's files: golden text, the page's rows, and the same bytes for the same bundle."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from exporter import stages
from report import BundleError, build, write
from report.absence import Missing
from report.figures import exact, figure
from report.files import file_name, json_text
from report.markdown import render
from report.page import MOCK, SYNTHETIC, TEMPLATE, Column, bullet
from report.row import row
from report.tables import inline, table
from tests.report.recording import (
    GIB,
    START,
    Recording,
    full,
    run,
    target,
    timing,
    turn,
    vanished,
    vram,
    warmup,
)

if TYPE_CHECKING:
    from report.files import Paths

FIXTURES = Path(__file__).parent / "fixtures"


def markdown(recording: Recording, tmp_path: Path) -> str:
    return render(build(recording.write(tmp_path / "bundle")))


def written(recording: Recording, tmp_path: Path) -> Paths:
    bundle = recording.write(tmp_path / "bundle")
    return write(build(bundle), tmp_path / "out", bundle)


def troubled() -> Recording:
    """A synthetic run that saw little and in which one turn vanished and one failed."""
    lost = vanished(3)
    broken = turn(
        4,
        outcome="failed",
        trace_id=None,
        error={"code": "SPEAK_FAILED", "message": "line one\nline | two <b>"},
    )
    return Recording(
        run_id="bench 2026-05-20T10:00",
        turns=[
            warmup(outcome="timeout", trace_id=None),
            turn(2, values={stages.TTFA.key: 427.6}, timing=None),
            lost,
            broken,
            turn(5, phase=None),
        ],
        sessions=[],
        run=run(
            **dict.fromkeys(
                ("technique", "weights", "audio", "opentalking_commit", "backend_commit"), None
            ),
            model="wav2lip",
            input="text",
            prompt="Say hello. " * 40,
            repeat=10,
            cold_start=None,
            gpu_index=None,
            synthetic=True,
            stand_ins=["language model", "speech synthesis", "avatar runtime"],
            notes="first try",
        ),
        target=target(
            accelerators=[],
            accelerators_absent="no NVIDIA driver on this machine",
            sources={
                "log": {"up": False, "reason": "no such file"},
                "sse": {"up": True, "reason": None, "dropped": 4},
            },
        ),
    )


# --- report.md -----------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "recording"), [("full", full()), ("troubled", troubled())])
def test_report_is_the_golden_one(name: str, recording: Recording, tmp_path: Path) -> None:
    """UPDATE_GOLDEN=1 writes the files anew; read the difference before you commit it."""
    golden = FIXTURES / f"report-{name}.md"
    text = markdown(recording, tmp_path)
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("recording", [full(), troubled(), Recording()])
def test_template_is_filled_in_the_pages_order(recording: Recording, tmp_path: Path) -> None:
    text = markdown(recording, tmp_path)
    start = text.index("\n### ")
    section = text[start : text.index("\n## ", start)]
    filled = [line for line in section.splitlines() if line.startswith("- ")]
    assert len(filled) == len(TEMPLATE)
    for line, wanted in zip(filled, map(bullet, TEMPLATE), strict=True):
        assert line.startswith(wanted)


def test_a_metric_says_of_how_many_turns_it_is(tmp_path: Path) -> None:
    text = markdown(full(), tmp_path)
    key = stages.LLM_FIRST_TOKEN_LATENCY.key
    assert f"\n- `{key}`: 203 (median of 3; min 201, max 219)\n" in text


def test_a_real_deployment_has_no_warning(tmp_path: Path) -> None:
    assert "\n> " not in markdown(full(), tmp_path)


@pytest.mark.parametrize(
    ("changes", "sentence", "named"),
    [
        ({"model": "mock"}, MOCK, "the model `mock`"),
        ({"model": "mock", "stand_ins": ["language model"]}, MOCK, "language model"),
        ({"synthetic": True}, SYNTHETIC, "model output, which is made up"),
        ({"synthetic": True, "stand_ins": ["LLM", "TTS"]}, SYNTHETIC, "LLM; TTS"),
        ({"stand_ins": ["LLM"]}, "Parts of this deployment are not real;", "LLM"),
    ],
)
def test_a_run_that_proves_nothing_says_so_on_top(
    tmp_path: Path, changes: dict[str, Any], sentence: str, named: str
) -> None:
    text = markdown(Recording(run=run(**changes)), tmp_path)
    assert text.splitlines()[2].startswith(f"> **{sentence}")
    assert text.splitlines()[3] == f"> Stand-ins: {named}."


@pytest.mark.parametrize(
    ("scope", "words"),
    [
        ("process", "VRAM: device 0, the target's processes\n"),
        (
            "device_delta",
            "VRAM: device 0, the whole device less its baseline. This is not per-process VRAM; "
            "This is the delta of full-GPU VRAM relative to baseline during the benchmark run; "
            "Do not run other CUDA programs during the benchmark.\n",
        ),
        (
            "device",
            "VRAM: device 0, the whole device, whoever uses it. This is not per-process VRAM; "
            "Do not run other CUDA programs during the benchmark.\n",
        ),
    ],
)
def test_memory_says_whose_it_is(tmp_path: Path, scope: str, words: str) -> None:
    recording = Recording(turns=[warmup(), turn(2)], samples=[vram(START + 21.0, 1.0, scope)])
    assert words in markdown(recording, tmp_path)


def test_foreign_text_stays_on_its_line_and_out_of_the_markup() -> None:
    assert inline("a\n| b\t<i>`x`\x1b[31m\u202e") == r"a \| b \<i>\`x\`�[31m�"


def test_tables_line_up() -> None:
    lines = table(("name", "n"), [("ttfa → x", "1"), ("y", "1000")], frozenset({"n"}))
    assert lines == [
        "| name     |    n |",
        "| -------- | ---: |",
        "| ttfa → x |    1 |",
        "| y        | 1000 |",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *[(0.0, "0"), (-0.0, "0"), (0.000421, "0.000421"), (0.5, "0.5"), (9.876, "9.88")],
        *[(25.0, "25"), (29.23, "29.2"), (203.4, "203"), (123456.7, "123457"), (-3.5, "-3.5")],
    ],
)
def test_figures_keep_three_digits_and_never_round_to_zero(value: float, text: str) -> None:
    assert figure(value) == text


def test_exact_figures_have_the_pages_three_decimals() -> None:
    assert [exact(v) for v in (1374.5071, 29.23, 1661.0, 0.00001)] == [
        *("1374.507", "29.23", "1661", "1e-05")
    ]


# --- the page's rows -----------------------------------------------------------------------


def published() -> list[dict[str, str]]:
    lines = (FIXTURES / "page-test-results.txt").read_text(encoding="utf-8").splitlines()
    header, _, *rows = ([cell.strip() for cell in line.strip("| ").split("|")] for line in lines)
    return [dict(zip(header, cells, strict=True)) for cells in rows]


@pytest.mark.parametrize("wanted", published(), ids=lambda r: f"{r['Hardware']}-{r['Model']}")
def test_a_bundle_with_a_published_rows_values_gives_that_row(
    wanted: dict[str, str], tmp_path: Path
) -> None:
    width, height = wanted["Resolution"].split("×")
    warmup_end = START - 100.0 + float(wanted["Warmup/s"])
    opentalking, backend = wanted["commit (opentalking + omnirt)"].split(" + ")
    recording = Recording(
        turns=[
            warmup(marks={stages.INPUT: START - 100.0, stages.SPEECH_TIMED: warmup_end}),
            turn(
                2,
                values={
                    stages.TTFA.key: float(wanted["TTFA/ms"]),
                    stages.TTFV.key: float(wanted["TTFV/ms"]),
                    stages.FIRST_TURN_TOTAL.key: float(wanted["First-turn total/ms"]),
                    stages.STEADY_FPS.key: float(wanted["Steady FPS"]),
                },
                timing=timing(
                    output_width=float(width),
                    output_height=float(height),
                    output_fps=float(wanted["FPS"]),
                    chunk_samples=float(wanted["Chunk size"].removesuffix("ms")) * 16.0,
                ),
            ),
        ],
        samples=[
            vram(START + 19.0, float(wanted["Idle VRAM/GB"])),
            vram(START + 21.0, float(wanted["Peak VRAM/GB"])),
        ],
        run=run(
            started_unix=START + 86400.0 * (int(wanted["Date"].split("/")[2]) - 20),
            model=wanted["Model"],
            backend=wanted["Backend"],
            technique=wanted["Technique"],
            input=wanted["Input"],
            opentalking_commit=opentalking,
            backend_commit=f"{backend}00112233",
            cold_start={"seconds": float(wanted["Cold start/s"])},
        ),
        target=target(
            host={"os": wanted["OS"]},
            accelerators=[
                {
                    "index": 0,
                    "name": wanted["Hardware"],
                    "driver": wanted["Driver"].removeprefix("driver "),
                }
            ],
        ),
    )
    paths = written(recording, tmp_path)
    line = f"\n| {' | '.join(wanted.values())} |\n"
    assert line in paths.report.read_text(encoding="utf-8")
    with paths.result_csv.open(encoding="utf-8", newline="") as stream:
        assert list(csv.DictReader(stream)) == [wanted]


def test_cells_that_were_not_measured_have_a_footnote_each(tmp_path: Path) -> None:
    result = build(troubled().write(tmp_path / "bundle"))
    text = render(result)
    notes = text[text.index("\nn/m, not measured:") : text.index("\n## Measured turns")]
    for column, cell in row(result).items():
        assert (column in notes) == isinstance(cell, Missing)
    assert (
        "\n- Hardware, Driver, Idle VRAM/GB, Peak VRAM/GB: no NVIDIA driver on this machine\n"
        in notes
    )


@pytest.mark.parametrize(
    ("opentalking", "backend", "cell"),
    [
        ("0123456789abcdef", "v1.2-dirty", "01234567 + v1.2-dirty"),
        (None, "89abcdef", "unknown + 89abcdef"),
        (None, None, Missing("not told to the benchmark")),
    ],
)
def test_both_commits_stand_in_one_cell(
    tmp_path: Path, opentalking: str | None, backend: str | None, cell: str | Missing
) -> None:
    versions = dict.fromkeys(("opentalking_version", "backend_version"))
    setup = run(**versions, opentalking_commit=opentalking, backend_commit=backend)
    result = build(Recording(run=setup).write(tmp_path / "bundle"))
    assert row(result)[Column.COMMIT] == cell


# --- result.csv, result.json, the archive --------------------------------------------------


def test_csv_is_the_pages_columns_and_one_row_by_rfc_4180(tmp_path: Path) -> None:
    recording = troubled()
    recording.run["technique"] = 'mouth, "inpainting"'
    text = written(recording, tmp_path).result_csv.read_bytes().decode()
    assert text.count("\r\n") == 2
    assert '"mouth, ""inpainting"""' in text
    header, cells = csv.reader(io.StringIO(text, newline=""))
    assert header == list(Column)
    by_name = dict(zip(header, cells, strict=True))
    assert by_name[Column.PEAK_VRAM] == by_name[Column.COLD_START] == ""
    assert by_name[Column.TTFA] == "427.6"


@pytest.mark.parametrize("recording", [full(), troubled(), Recording()])
def test_json_has_a_reason_wherever_it_has_no_value(recording: Recording, tmp_path: Path) -> None:
    text = written(recording, tmp_path).result_json.read_text(encoding="utf-8")
    document = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert document["schema"] == 1
    assert set(document["row"]) == set(Column)

    def check(node: object) -> None:
        if isinstance(node, dict):
            if "value" in node and "reason" in node:
                assert (node["value"] is None) == bool(node["reason"])
            if "median" in node and "of" in node:
                assert (node["n"] < node["of"] or not node["n"]) == bool(node["reason"])
                assert (node["p95"] is None) == bool(node["p95_reason"])
                assert (node["p99"] is None) == bool(node["p99_reason"])
            for inner in node.values():
                check(inner)
        elif isinstance(node, list):
            for inner in node:
                check(inner)

    check(document)


def test_json_holds_the_numbers_with_their_units(tmp_path: Path) -> None:
    document = json.loads(json_text(build(full().write(tmp_path / "bundle"))))
    ttfa = document["turns"][stages.TTFA.key]
    assert (ttfa["median"], ttfa["unit"], ttfa["n"], ttfa["of"]) == (1551.773, "ms", 3, 3)
    peak = document["whole"][stages.PEAK_VRAM.key]
    assert peak["unit"] == "bytes"
    assert math.isclose(peak["value"], 1.662 * GIB)
    assert document["warmup"][0]["values"][stages.TTFA.key]["value"] == 9000.0
    assert document["verdict"] == {
        "status": "good",
        "exit_status": 0,
        "reason": "3 of 3 measured turns completed",
    }


def test_the_same_bundle_gives_the_same_bytes_again_and_from_its_archive(tmp_path: Path) -> None:
    bundle = full().write(tmp_path / "bundle")
    first = write(build(bundle), tmp_path / "first", bundle)
    again = write(build(bundle), tmp_path / "again", bundle)
    packed = write(build(first.archive), tmp_path / "packed", first.archive)
    for name in ("report", "html", "result_json", "result_csv", "archive"):
        data = getattr(first, name).read_bytes()
        assert getattr(again, name).read_bytes() == data
        assert getattr(packed, name).read_bytes() == data


def test_the_archive_tells_nothing_of_who_packed_it(tmp_path: Path) -> None:
    with tarfile.open(written(full(), tmp_path).archive) as tar:
        members = tar.getmembers()
    names = ["events", "manifest", "run", "samples", "sessions", "target", "turns"]
    assert [Path(member.name).stem for member in members] == names
    for member in members:
        assert (member.mtime, member.uid, member.gid, member.uname, member.mode) == (
            *(0, 0, 0, "", 0o644),
        )


def test_a_report_may_lie_in_its_own_bundle(tmp_path: Path) -> None:
    bundle = full().write(tmp_path / "bundle")
    first = write(build(bundle), bundle, bundle).archive.read_bytes()
    assert write(build(bundle), bundle, bundle).archive.read_bytes() == first


def test_nothing_but_the_five_files_is_left(tmp_path: Path) -> None:
    written(full(), tmp_path)
    names = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert names == ["report.html", "report.md", "result.csv", "result.json", "run-1.tar.gz"]


def test_a_failed_write_leaves_the_old_file_and_no_partial_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = full().write(tmp_path / "bundle")
    paths = write(build(bundle), tmp_path / "out", bundle)
    before = {file: file.read_bytes() for file in (tmp_path / "out").iterdir()}

    def full_disk(_: Path, __: Path) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write(build(bundle), tmp_path / "out", bundle)
    assert {file: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before
    assert paths.report in before


def test_a_result_is_not_written_beside_another_bundle(tmp_path: Path) -> None:
    one, other = full().write(tmp_path / "one"), troubled().write(tmp_path / "other")
    with pytest.raises(BundleError, match=r"is not the bundle of this result \(run run-1\)"):
        write(build(one), tmp_path / "out", other)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("run_id", "name"),
    [
        ("bench 2026-05-20T10:00", "bench-2026-05-20T10-00"),
        ("../../etc", "etc"),
        ("..", "bundle"),
        ("", "bundle"),
        ("x" * 200, "x" * 64),
    ],
)
def test_an_archive_is_named_after_its_run(run_id: str, name: str) -> None:
    assert file_name(run_id) == name
