"""A bundle is read whole and true, or refused with one line that says where and what to do."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter import stages
from report import BundleError, archive, lines
from report.archive import LIMIT_BYTES, Region, pack
from report.bundle import Bundle, read
from report.decode import DecodeError, decode, parse
from report.files import csv_text, json_text
from report.markdown import render
from report.records import Turn
from report.result import summarise_bundle
from report.turn_lines import TURN_STAGES, read_line
from report.turn_table import TurnTable
from tests.exporter import example
from tests.report.example import good_run
from tests.report.recording import Recording, full, run, seal, session, target, timing, turn

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return full().write(tmp_path / "run-1")


def refusal(path: Path) -> str:
    with pytest.raises(BundleError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    assert caught.value.fix in message
    return message.removeprefix(str(path))


def tarball(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def packed(bundle: Path, path: Path, root: str = "run-1") -> Path:
    files = {file.name: Region(file, 0, file.stat().st_size) for file in bundle.iterdir()}
    with path.open("wb") as stream:
        pack(root, files, stream)
    return path


def same(one: Bundle, other: Bundle) -> bool:
    """Whether all that a report shows of two bundles is the same."""
    first, second = (json_text(summarise_bundle(bundle)) for bundle in (one, other))
    return first == second and one.sha256 == other.sha256


def reseal(bundle: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    """Change a file and let the manifest vouch for it: a fault of the writer."""
    (bundle / name).write_bytes(change((bundle / name).read_bytes()))
    seal(bundle)


# --- whole bundles -------------------------------------------------------------------------


def test_a_folder_and_its_archive_read_the_same(bundle: Path, tmp_path: Path) -> None:
    from_folder = read(bundle)
    assert sorted(from_folder.turns.column(stages.TTFA.key)) == [1500.0, 1551.773, 1600.0]
    assert same(read(packed(bundle, tmp_path / "a.tar.gz")), from_folder)


def test_an_archive_may_hold_the_files_at_its_top(bundle: Path, tmp_path: Path) -> None:
    members = [(tarfile.TarInfo(f"./{f.name}"), f.read_bytes()) for f in bundle.iterdir()]
    assert same(read(tarball(tmp_path / "a.tgz", *members)), read(bundle))


def test_an_archive_that_someone_else_packed_reads_the_same(bundle: Path, tmp_path: Path) -> None:
    # With an entry for the folder, owners and dates, as tar makes it.
    made = shutil.make_archive(str(tmp_path / "a"), "gztar", bundle.parent, bundle.name)
    assert same(read(Path(made)), read(bundle))


def test_what_a_newer_writer_adds_is_ignored(tmp_path: Path) -> None:
    recording = full()
    recording.turns[1]["mood"] = {"deep": [1, None]}
    recording.run["colour"] = "blue"
    (recording.write(tmp_path / "b", novelty=1) / "notes.txt").write_text("mine")
    found = read(tmp_path / "b")
    assert found.turns.completed == 3
    assert "notes.txt" not in found.manifest.files


def test_a_run_without_any_turn_is_a_bundle(tmp_path: Path) -> None:
    assert read(Recording().write(tmp_path / "b")).turns.outcomes == {}


def test_what_the_benchmark_was_not_told_may_be_null(tmp_path: Path) -> None:
    unknown = dict.fromkeys(run())
    recording = Recording(run={**unknown, "schema": 1, "started_unix": 0})
    assert read(recording.write(tmp_path / "b")).run.model is None


# --- where the bundle is not there, or not whole -------------------------------------------


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere") == (
        ": there is no such folder or archive; "
        "give the folder or the .tar.gz that the benchmark wrote"
    )


def test_a_folder_of_something_else_is_told(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("hello")
    assert "is not a bundle: it has neither manifest.json nor turns.jsonl" in refusal(tmp_path)


def test_a_bundle_without_a_manifest_was_cut_off(bundle: Path) -> None:
    (bundle / "manifest.json").unlink()
    assert refusal(bundle) == (
        "/manifest.json: is missing: the run was cut off before it was written; "
        "run the benchmark again"
    )


def test_an_incomplete_manifest_was_cut_off(bundle: Path) -> None:
    seal(bundle, complete=False)
    assert "complete is false: the run was cut off before its end" in refusal(bundle)


def test_a_cut_manifest_is_told(bundle: Path) -> None:
    manifest = bundle / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:100])
    assert refusal(bundle).startswith("/manifest.json: is not JSON (")


def test_a_manifest_of_any_size_is_not_read(bundle: Path) -> None:
    (bundle / "manifest.json").write_bytes(b" " * (2**20 + 1))
    assert refusal(bundle).startswith("/manifest.json: is larger than 1 MiB")


def test_a_file_that_the_manifest_lacks_is_told(bundle: Path) -> None:
    (bundle / "samples.jsonl").unlink()
    seal(bundle)
    assert refusal(bundle).startswith("/manifest.json: files: samples.jsonl is missing")


def test_a_file_that_is_gone_is_told(bundle: Path) -> None:
    (bundle / "events.jsonl").unlink()
    assert refusal(bundle).startswith("/events.jsonl: is missing, though manifest.json names it")


def test_a_last_line_that_is_cut_off_is_named(bundle: Path) -> None:
    turns = bundle / "turns.jsonl"
    turns.write_bytes(turns.read_bytes()[:-20])
    assert refusal(bundle).startswith("/turns.jsonl:4: this last line is cut off: of ")


def test_lines_that_are_gone_are_told(bundle: Path) -> None:
    turns = bundle / "turns.jsonl"
    turns.write_bytes(b"".join(turns.read_bytes().splitlines(keepends=True)[:-1]))
    assert refusal(bundle).startswith("/turns.jsonl: is cut off: of ")


@pytest.mark.parametrize("name", ["turns.jsonl", "events.jsonl", "run.json"])
@pytest.mark.parametrize("change", [lambda b: b.replace(b"s", b"z", 1), lambda b: b + b"\n"])
def test_a_changed_file_is_told(bundle: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    (bundle / name).write_bytes(change((bundle / name).read_bytes()))
    assert refusal(bundle).startswith(
        f"/{name}: was changed after the run: not the hash in manifest.json; copy the bundle again"
    )


@pytest.mark.parametrize("name", ["manifest.json", "run.json", "target.json"])
def test_another_schema_is_told(bundle: Path, name: str) -> None:
    document = json.loads((bundle / name).read_text())
    # A newer schema may have another shape altogether.
    changed = {**document, "schema": 2, "files": [], "accelerators": 7}
    (bundle / name).write_text(json.dumps(changed))
    if name != "manifest.json":
        seal(bundle)
    assert refusal(bundle).startswith(f"/{name}: schema is 2, this version reads 1; make the")


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "a/b", ".hidden", "", "manifest.json"]
)
def test_a_manifest_cannot_name_what_is_not_the_bundles(bundle: Path, name: str) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    entry = manifest["files"]["run.json"]
    seal(bundle, files={**manifest["files"], name: entry})
    assert "is no name of a bundle's file" in refusal(bundle)


def test_a_manifest_cannot_ask_for_more_than_fits(bundle: Path) -> None:
    files = json.loads((bundle / "manifest.json").read_text())["files"]
    files["events.jsonl"]["bytes"] = 2**40
    seal(bundle, files=files)
    assert f"bytes in all, a bundle has 0 to {LIMIT_BYTES}" in refusal(bundle)


def test_an_unreadable_file_is_told(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Not by its mode: root, who runs tests in containers, may read everything.
    def refuse(path: Path, *_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "open", refuse)
    assert refusal(bundle).startswith("/manifest.json: cannot be read (Permission denied); check")


# --- where the writer was wrong ------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"values": {"x_ms": "12"}}, 'values.x_ms is "12" where a number is expected'),
        ({"values": {"x_ms": True}}, "values.x_ms is true where a number is expected"),
        ({"values": {"x_ms": None}}, "values.x_ms is null where a number is expected"),
        ({"values": {"x_ms": 1e300}}, "values.x_ms is out of range (|x| ≤ 1e+18)"),
        ({"values": {"x_ms": 10**400}}, "values.x_ms is out of range (|x| ≤ 1e+18)"),
        ({"values": [1]}, "values is a list where an object is expected"),
        ({"marks": None}, "marks is null where an object is expected"),
        ({"outcome": "fine"}, 'outcome is "fine" where one of completed, interrupted,'),
        ({"phase": "cooldown"}, 'phase is "cooldown" where one of warmup, measured is expected'),
        ({"turn": 1.5}, "turn is 1.5 where a whole number is expected"),
        ({"session": None}, "session is null where a string is expected"),
        ({"session": "\ud800"}, 'session is "\\ud800" where Unicode text is expected'),
        ({"timing": {"output_fps": "25"}}, 'timing.output_fps is "25" where a number'),
        ({"error": "boom"}, 'error is "boom" where an object is expected'),
    ],
)
def test_a_field_that_does_not_fit_is_named(
    tmp_path: Path, change: dict[str, Any], problem: str
) -> None:
    recording = Recording(turns=[turn(1), turn(2, **change)])
    message = refusal(recording.write(tmp_path / "b"))
    assert message.startswith(f"/turns.jsonl:2: {problem}")
    assert message.endswith("make the report with the version of Talkscope that recorded it")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"synthetic": "yes"}, 'synthetic is "yes" where true or false is expected'),
        ({"stand_ins": "LLM"}, 'stand_ins is "LLM" where a list is expected'),
        ({"cold_start": {}}, "cold_start.seconds is missing"),
        ({"notes": "x" * 10, "weights": 3}, "weights is 3 where a string is expected"),
    ],
)
def test_a_field_of_the_run_is_named(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    message = refusal(Recording(run=run(**change)).write(tmp_path / "b"))
    assert message.startswith(f"/run.json: {problem}; make the report")


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    broken = turn(1)
    del broken["outcome"]
    assert refusal(Recording(turns=[broken]).write(tmp_path / "b")).startswith(
        "/turns.jsonl:1: outcome is missing"
    )


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b'{"unix": NaN}', "holds NaN, which is not a number"),
        (b'{"unix": -Infinity}', "holds -Infinity, which is not a number"),
        (b'{"unix": 1e999, "name": "", "value": 1}', "unix is out of range"),
        (b"", "is not JSON ("),
        (b'{"unix": 1', "is not JSON ("),
        (b"\xff\xfe", "is not UTF-8 (byte 1)"),
        (b"[" * 100_000, "is nested too deeply"),
        (b"1" * 5000, "is not JSON (Exceeds the limit"),
        (b"7", "is 7 where an object is expected"),
    ],
)
def test_a_line_that_is_no_record_is_named(bundle: Path, line: bytes, problem: str) -> None:
    reseal(bundle, "samples.jsonl", lambda data: data + line + b"\n")
    assert refusal(bundle).startswith(f"/samples.jsonl:9: {problem}")


def test_a_turn_that_is_there_twice_is_told(tmp_path: Path) -> None:
    recording = Recording(turns=[turn(1), turn(2), turn(1)])
    assert refusal(recording.write(tmp_path / "b")).startswith(
        "/turns.jsonl:3: is the same record as line 1"
    )


def test_a_session_that_is_there_twice_is_told(tmp_path: Path) -> None:
    recording = Recording(sessions=[session(), session()])
    assert "/sessions.jsonl:2: is the same record as line 1" in refusal(
        recording.write(tmp_path / "b")
    )


@pytest.mark.parametrize("unix", [-1.0, 1e15])
def test_a_run_that_began_on_no_date_is_told(tmp_path: Path, unix: float) -> None:
    recording = Recording(run=run(started_unix=unix))
    assert "which is no date" in refusal(recording.write(tmp_path / "b"))


def test_a_field_of_the_target_is_named_by_its_place(tmp_path: Path) -> None:
    broken = target(accelerators=[{"index": 0, "name": 3090}])
    assert refusal(Recording(target=broken).write(tmp_path / "b")).startswith(
        "/target.json: accelerators[0].name is 3090 where a string is expected"
    )


# --- archives ------------------------------------------------------------------------------


def test_a_file_that_is_no_archive_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_text("hello")
    assert refusal(tmp_path / "a.tar.gz").startswith(": is not a .tar.gz")


def test_a_cut_archive_is_told(bundle: Path, tmp_path: Path) -> None:
    path = packed(bundle, tmp_path / "a.tar.gz")
    path.write_bytes(path.read_bytes()[:-30])
    assert refusal(path).startswith(": is cut off or damaged (")


def test_a_gzip_of_something_else_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(b"hello" * 300))
    assert refusal(tmp_path / "a.tar.gz").startswith(": is not a whole tar archive (")


def test_an_archive_of_something_else_is_told(tmp_path: Path) -> None:
    path = tarball(tmp_path / "a.tar.gz", (tarfile.TarInfo("src/main.c"), b"int main;"))
    assert "is not a bundle" in refusal(path)


@pytest.mark.parametrize("name", ["../manifest.json", "/manifest.json", "a/../../manifest.json"])
def test_a_member_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    path = tarball(tmp_path / "a.tar.gz", (tarfile.TarInfo(name), b"{}"))
    assert "a path that leads out of the archive" in refusal(path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_a_member_that_is_no_plain_file_is_refused(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("run/turns.jsonl")
    member.type, member.linkname = kind, "/etc/passwd"
    assert "is not a plain file" in refusal(tarball(tmp_path / "a.tar.gz", (member, b"")))


def test_a_member_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    members = [(tarfile.TarInfo("run/run.json"), b"{}"), (tarfile.TarInfo("./run/run.json"), b"1")]
    assert "is there twice" in refusal(tarball(tmp_path / "a.tar.gz", *members))


def test_two_bundles_in_one_archive_are_refused(tmp_path: Path) -> None:
    members = [(tarfile.TarInfo(f"{folder}/manifest.json"), b"{}") for folder in "ab"]
    assert refusal(tarball(tmp_path / "a.tar.gz", *members)).startswith(": holds 2 bundles")


def test_an_archive_that_grows_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "LIMIT_BYTES", 2**20)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(b"\0" * (2**20 + 1)))
    assert "is larger than 1 MiB when unpacked" in refusal(tmp_path / "a.tar.gz")


def test_an_archive_of_countless_members_is_refused(tmp_path: Path) -> None:
    members = [(tarfile.TarInfo(f"run/{i}"), b"") for i in range(archive.LIMIT_MEMBERS + 1)]
    assert "more than 1000 files" in refusal(tarball(tmp_path / "a.tar.gz", *members))


# --- whatever the bytes --------------------------------------------------------------------

EXTREMES = st.sampled_from([0, -0.0, 5e-324, 1e-300, 1e18, -1e18, 1e19, 2**70])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | EXTREMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
FUZZ = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def survives(path: Path) -> None:
    """The bundle has a result that can be written, or a `BundleError`."""
    try:
        result = summarise_bundle(read(path))
    except BundleError as error:
        message = str(error)
    else:
        message = ""
        for text in (json_text(result), csv_text(result), render(result)):
            text.encode()
    message.encode()
    assert "\n" not in message


@FUZZ
@given(
    name=st.sampled_from(["turns.jsonl", "sessions.jsonl", "samples.jsonl"]),
    line=st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()),
)
def test_no_line_breaks_the_reader(bundle: Path, name: str, line: bytes) -> None:
    original = (bundle / name).read_bytes()
    reseal(bundle, name, lambda data: data + line + b"\n")
    survives(bundle)
    reseal(bundle, name, lambda _: original)


@FUZZ
@given(data=st.data())
def test_no_value_in_a_record_breaks_the_report(bundle: Path, data: st.DataObject) -> None:
    name = data.draw(
        st.sampled_from(
            ["turns.jsonl", "sessions.jsonl", "samples.jsonl", "run.json", "target.json"]
        )
    )
    original = (bundle / name).read_bytes()
    records = [json.loads(line) for line in original.splitlines()]
    record = data.draw(st.sampled_from(records))
    field = data.draw(st.sampled_from(sorted(record)))
    value = data.draw(EXTREMES | JSON)
    if isinstance(record[field], dict) and record[field] and data.draw(st.booleans()):
        record[field][data.draw(st.sampled_from(sorted(record[field])))] = value
    else:
        record[field] = value
    written = "".join(f"{json.dumps(one)}\n" for one in records).encode()
    reseal(bundle, name, lambda _: written)
    survives(bundle)
    reseal(bundle, name, lambda _: original)


@FUZZ
@given(
    manifest=JSON
    | st.fixed_dictionaries(
        {"schema": st.just(1), "complete": st.just(True), "run_id": st.text(), "files": JSON}
    )
)
def test_no_manifest_breaks_the_reader(bundle: Path, manifest: object) -> None:
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    survives(bundle)


@FUZZ
@given(where=st.integers(0, 20_000), garbage=st.binary(min_size=1, max_size=20))
def test_no_damage_to_a_tar_breaks_the_reader(
    bundle: Path, tmp_path: Path, where: int, garbage: bytes
) -> None:
    raw = bytearray(gzip.decompress(packed(bundle, tmp_path / "a.tar.gz").read_bytes()))
    where %= len(raw)
    raw[where : where + len(garbage)] = garbage
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(bytes(raw), 1))
    survives(tmp_path / "a.tar.gz")


# --- the short way of reading a turn -------------------------------------------------------


@FUZZ
@given(data=st.data())
def test_a_turn_reads_as_by_the_schema(data: st.DataObject) -> None:
    record = example.turn(trace_id="ab" * 16, client_turn="1").to_json()
    field = data.draw(st.sampled_from(sorted(record)))
    value = data.draw(EXTREMES | JSON)
    inner = record[field]
    if isinstance(inner, dict) and inner and data.draw(st.booleans()):
        inner[data.draw(st.sampled_from(sorted(inner)))] = value
    elif data.draw(st.booleans()):
        record[field] = value
    line = json.dumps(record, ensure_ascii=False).encode("utf-8", "surrogatepass")

    def outcome(turns: Callable[[TurnTable], None]) -> object:
        table = TurnTable()
        try:
            turns(table)
        except DecodeError as error:
            return str(error)
        table.finish()
        return {
            name: value
            for name, value in vars(table).items()
            # NaN is not itself, so columns are compared by their bytes.
            if name not in ("_block", "_columns", "_begins")
        } | {
            name: column.tobytes()
            for name, column in {**table._columns, "begins": table._begins}.items()
        }

    assert outcome(lambda table: table.line(line)) == outcome(
        lambda table: table.add(decode(Turn, parse(line)))
    )


def test_what_the_exporter_writes_is_read_the_short_way() -> None:
    # Else a million turns would take many times as long, and nothing else would tell.
    record = example.turn(trace_id="ab" * 16, client_turn="1", chunks=[(1.0, 2.0)])
    record.timing = timing()
    line = json.dumps(record.to_json(), ensure_ascii=False).encode()
    assert read_line(line) is not None


def test_turns_of_every_shape_count_the_same_by_either_way() -> None:
    recording = good_run()
    short, schema = TurnTable(), TurnTable()
    for record in recording.turns:
        line = json.dumps(record, ensure_ascii=False).encode()
        short.line(line)
        schema.add(decode(Turn, parse(line)))
    short.finish()
    schema.finish()
    assert short.slowest == schema.slowest != ()
    assert (short.reasons, short.sources, short.bases) == (
        schema.reasons,
        schema.sources,
        schema.bases,
    )
    for stage in TURN_STAGES:
        assert short.column(stage.key) == schema.column(stage.key)


def test_a_large_file_is_read_the_same_by_several_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = good_run().write(tmp_path / "b")
    alone = json_text(summarise_bundle(read(folder)))
    monkeypatch.setattr(lines, "PARALLEL_FROM", 1)
    monkeypatch.setattr("report.bundle.PARALLEL_FROM", 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert json_text(summarise_bundle(read(folder))) == alone


@pytest.mark.parametrize("wanted", [1, 1000, 10_000])
def test_a_file_is_read_the_same_in_blocks_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: int
) -> None:
    folder = good_run().write(tmp_path / "b")
    whole = json_text(summarise_bundle(read(folder)))
    monkeypatch.setattr(lines, "_READ", wanted)
    assert json_text(summarise_bundle(read(folder))) == whole


@pytest.mark.parametrize("wanted", [1, 3, 4, 100])
@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n"])
def test_lines_are_the_files_own_whatever_follows_it_in_an_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: int, end: bytes
) -> None:
    class Kept(list[bytes]):
        line = list.append

        def merge(self, other: list[bytes]) -> None:
            raise NotImplementedError

    path, content = tmp_path / "x.tar", b"ab\n\n" + 9 * b"c" + b"\nd" + end
    path.write_bytes(b"xx\n" + content + b"yy\n")
    monkeypatch.setattr(lines, "_READ", wanted)
    found = lines.fold(Region(path, 3, len(content)), Kept)
    assert found == [b"ab", b"", 9 * b"c", b"d", *([b""] * (len(end) - 1))]


def test_a_changed_large_file_is_told_before_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = good_run().write(tmp_path / "b")
    monkeypatch.setattr(lines, "PARALLEL_FROM", 1)
    monkeypatch.setattr("report.bundle.PARALLEL_FROM", 1)
    (folder / "turns.jsonl").write_bytes((folder / "turns.jsonl").read_bytes().replace(b"{", b"["))
    assert refusal(folder).startswith("/turns.jsonl: was changed after the run")


def test_a_broken_line_of_a_large_file_has_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = good_run()
    recording.turns[60]["outcome"] = "fine"
    monkeypatch.setattr(lines, "PARALLEL_FROM", 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert refusal(recording.write(tmp_path / "b")).startswith('/turns.jsonl:61: outcome is "fine"')
