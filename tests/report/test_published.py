"""Published rows and external figures stand beside ours, and say in what they differ."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from exporter import stages
from report import build, external, published
from report.errors import InputError
from report.extras import Extras
from report.files import csv_text, json_text
from report.markdown import render
from report.page import Column, UpstreamColumn
from report.slo import check, read
from tests.report.recording import Recording, full, run
from tests.report.test_files import troubled

FIXTURES = Path(__file__).parent / "fixtures"
SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "result.schema.json").read_text())


# --- published rows ------------------------------------------------------------------------


def test_the_results_table_is_the_pages_word_for_word() -> None:
    lines = (FIXTURES / "page-test-results.txt").read_text(encoding="utf-8").splitlines()
    rows = [one for one in published.published() if one.section == "Test Results"]
    ours = [f"| {' | '.join(one.cells.values())} |" for one in rows]
    assert ours == [line if line.endswith(" |") else f"{line} |" for line in lines[2:]]
    assert len(ours) == 11


def test_the_other_two_tables_are_the_pages_word_for_word() -> None:
    page = (FIXTURES / "page-other-tables.txt").read_text(encoding="utf-8").replace("\n", " ")
    document = json.loads(Path(published.__file__).with_name("published.json").read_text("utf-8"))
    tables = {table["section"]: table["rows"] for table in document["tables"]}
    assert [
        len(tables[name]) for name in ("Tested Combinations", "Benchmark Results Reference")
    ] == [*(4, 9)]
    for rows in (tables["Tested Combinations"], tables["Benchmark Results Reference"]):
        for row in rows:
            assert f"| {' | '.join(row)} |" in page


def test_every_row_can_be_asked_for_by_its_name() -> None:
    assert len(published.published()) == 4 + 1 + 11
    for one in published.published():
        assert published.find(one.name) == one


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("RTX 4090/quicktalk", "RTX 4090/quicktalk/540×900"),
        ("rtx 4090/QuickTalk", "RTX 4090/quicktalk/540×900"),
        ("910B2/musetalk", "NPU 910B2/musetalk/512×512"),
        ("RTX 3050 Laptop/quicktalk/306×512", "RTX 3050 Laptop/quicktalk/306×512"),
        ("3050 Laptop Reference", "RTX 3050 Laptop Reference/quicktalk"),
        ("steady chunk", "Ascend 910B2 x8, warm chunk/FlashTalk steady chunk"),
    ],
)
def test_a_row_is_found_by_hardware_and_model(words: str, name: str) -> None:
    assert published.find(words).name == name


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("RTX 3050 Laptop/quicktalk", 'means 2 published rows; choose of: "RTX 3050 Laptop/quick'),
        ("RTX 5090/quicktalk", 'means no published row; choose of: "NVIDIA 3090 path/Wav2Lip'),
    ],
)
def test_words_that_mean_no_single_row_list_the_choices(words: str, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        published.find(words)
    assert problem in str(caught.value)


def test_figures_stand_side_by_side_and_settings_that_differ_are_said(tmp_path: Path) -> None:
    result = build(full().write(tmp_path / "b"))
    found = published.beside(result, published.find("RTX 4090/quicktalk"))
    figures = {column: (theirs, ours) for column, theirs, ours in found.figures}
    assert figures[Column.TTFV] == ("1064.825", "1800.524")
    assert set(figures) == set(Column) & set(figures)
    assert "Hardware: published RTX 4090, ours RTX 3090" in found.mismatches
    assert not any(text.startswith(("Resolution", "Chunk", "Backend")) for text in found.mismatches)
    text = render(result, Extras(references=(found,)))
    section = text[text.index("## Beside the published RTX 4090/quicktalk/540×900") :]
    assert "| TTFV/ms " in section
    assert "**The settings differ:**" in section
    assert "- Hardware: published RTX 4090, ours RTX 3090" in section


def test_a_run_in_the_published_setting_differs_in_nothing_but_what_it_lacks(
    tmp_path: Path,
) -> None:
    result = build(full().write(tmp_path / "b"))
    found = published.beside(result, published.find("RTX 3090/quicktalk"))
    assert found.mismatches == ()
    other = build(Recording(run=run(backend="local")).write(tmp_path / "c"))
    told = published.beside(other, published.find("RTX 3090/quicktalk")).mismatches
    assert "Backend: published omnirt, ours local" in told
    assert any(text.startswith("Resolution: published 540×900, ours unknown (") for text in told)


def test_the_guide_row_keeps_what_has_no_column(tmp_path: Path) -> None:
    found = published.find("RTX 3050 Laptop Reference")
    assert found.cells[Column.RESOLUTION] == "540×900"
    assert found.cells[Column.TTFA] == "1661"
    assert found.words.startswith("RTF 1.17")
    assert render(
        build(full().write(tmp_path / "b")),
        Extras(references=(published.beside(build(tmp_path / "b"), found),)),
    ).count("RTF 1.17")


# --- external figures ----------------------------------------------------------------------

QUICKTALK = {
    "init_seconds": 3.2,
    "audio_feature_seconds": 0.4,
    "first_frame_seconds": 0.06,
    "render_seconds": 5.1,
    "render_fps": 35.2,
    "mux_seconds": 0.7,
}
OMNIRT = {
    "throughput_rps": 1.7,
    "latency_ms": {"p50": 810.0, "p95": 990.0, "p99": 1010.0},
    "peak_vram": 1.7e9,
    "ok": True,
    "name": "x",
}
FLASHTALK = {"hot": {"steady_chunk_core_ms_avg": 891.002, "chunk_copy_ms_avg": 33.339}}


@pytest.mark.parametrize(
    ("content", "tool", "figure"),
    [
        (QUICKTALK, "QuickTalk local adapter (quicktalk_bench.py)", ("render_fps", 35.2)),
        (OMNIRT, "OmniRT (omnirt bench)", ("latency_ms.p95", 990.0)),
        (
            FLASHTALK,
            "FlashTalk / FlashHead (their own benchmark)",
            ("hot.steady_chunk_core_ms_avg", 891.002),
        ),
    ],
)
def test_a_backends_own_result_is_imported_with_its_source(
    tmp_path: Path, content: dict[str, Any], tool: str, figure: tuple[str, float]
) -> None:
    (tmp_path / "bench.json").write_text(json.dumps(content))
    found = external.read(tmp_path / "bench.json")
    assert (found.tool, found.file) == (tool, "bench.json")
    assert figure in found.figures
    assert all(not isinstance(value, bool) for _, value in found.figures)


def test_external_figures_are_shown_and_in_no_figure_of_ours(tmp_path: Path) -> None:
    (tmp_path / "q.json").write_text(json.dumps({**QUICKTALK, "render_fps": 999.0}))
    result = build(full().write(tmp_path / "b"))
    extras = Extras(externals=(external.read(tmp_path / "q.json"),))
    text = render(result, extras)
    assert "## External: QuickTalk local adapter (quicktalk_bench.py)" in text
    assert "| render\\_fps " in text or "| render_fps " in text
    document = json.loads(json_text(result, extras))
    assert document["turns"][stages.RENDER_FPS.key]["max"] == 29.787
    assert document["external"][0]["figures"]["render_fps"] == 999.0


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"{", "is not JSON ("),
        (b"[1]", "is no JSON object"),
        (b'{"fps": 3}', "is of no tool that is known; there are: QuickTalk"),
        (b'{"init_seconds": NaN}', "holds NaN, which is not a number"),
        (None, "cannot be read (No such file or directory)"),
    ],
)
def test_an_external_file_that_is_none_is_told(
    tmp_path: Path, content: bytes | None, problem: str
) -> None:
    if content is not None:
        (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(InputError) as caught:
        external.read(tmp_path / "x.json")
    assert problem in str(caught.value)


# --- upstream's CSV and the schema ---------------------------------------------------------


def test_upstreams_csv_has_its_22_headings_and_the_same_figures(tmp_path: Path) -> None:
    result = build(full().write(tmp_path / "b"))
    header, cells = csv.reader(io.StringIO(csv_text(result, upstream=True), newline=""))
    assert header == (
        "测试日期 测试人 模型 技术路线 backend 硬件 OS 驱动环境 commit 输入类型 输出分辨率 "
        "输出_FPS chunk_size 冷启动时间 预热时间 TTFA TTFV 首轮总延迟 稳态_FPS RTF idle_显存 "
        "推理峰值显存"
    ).replace(" ", "|").replace("_", " ").split("|")
    told = dict(zip(header, cells, strict=True))
    assert told[UpstreamColumn.TESTER] == "someone"
    assert told[UpstreamColumn.RTF] == "0.000421"
    assert told[UpstreamColumn.TTFV] == "1800.524"


def known_members(schema: dict[str, Any]) -> set[str]:
    return set(schema["properties"])


@pytest.mark.parametrize("recording", [full(), troubled(), Recording()])
def test_result_json_keeps_to_the_published_schema(recording: Recording, tmp_path: Path) -> None:
    result = build(recording.write(tmp_path / "b"))
    extras = Extras(
        references=(published.beside(result, published.find("RTX 4090/quicktalk")),),
        checks=tuple(
            check(result, read({"objectives": [{"metric": stages.TTFA.key, "at_most": 1}]}))
        ),
    )
    document = json.loads(json_text(result, extras))
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    # What is written is also described.
    assert set(document) == known_members(SCHEMA)
    assert set(document["run"]) == known_members(SCHEMA["properties"]["run"])
    stage = document["turns"][stages.TTFA.key]
    assert set(stage) == known_members(SCHEMA["$defs"]["stage"])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("verdict", "status"), "fine"),
        (("run", "synthetic"), "no"),
        (("turns", stages.TTFA.key, "n"), -1),
        (("facts", "model", "reason"), 7),
        (("row", Column.TTFA, "value"), 3.0),
    ],
)
def test_the_schema_refuses_what_is_wrong(
    path: tuple[str, ...], value: object, tmp_path: Path
) -> None:
    document = json.loads(json_text(build(full().write(tmp_path / "b"))))
    node = document
    for name in path[:-1]:
        node = node[name]
    node[path[-1]] = value
    assert not jsonschema.Draft202012Validator(SCHEMA).is_valid(document)
