import asyncio
import contextlib
import sys
from pathlib import Path

import pytest

from exporter import upstream
from exporter.sources import log_lines
from exporter.sources.log_lines import LogCommandSource, LogSource
from tests.processes import wait_until

STAMPED = "2026-11-22T16:12:02.340123Z INFO:x:TTS sentence done | a | first_pcm=187ms total=1\n"
BARE = "INFO:x:TTS sentence done | a | first_pcm=42ms total=1\n"


def values(seen):
    return [line.line.first_pcm_ms for line in seen if isinstance(line.line, upstream.SentenceLine)]


def test_it_begins_at_the_end_and_follows(tmp_path):
    path, seen = tmp_path / "log", []
    path.write_text(BARE)
    source = LogSource(path)
    source.read(seen.append)
    assert seen == []
    with path.open("a") as file:
        file.write(STAMPED)
    source.read(seen.append)
    assert values(seen) == [187.0]
    assert seen[0].stamped
    assert seen[0].at == upstream.line_time(STAMPED)


def test_a_line_is_taken_when_it_is_whole(tmp_path):
    path, seen = tmp_path / "log", []
    path.write_text("")
    source = LogSource(path)
    source.read(seen.append)
    with path.open("a") as file:
        file.write(BARE[:30])
        file.flush()
        source.read(seen.append)
        assert seen == []
        file.write(BARE[30:])
    source.read(seen.append)
    assert values(seen) == [42.0]
    assert not seen[0].stamped


def test_it_follows_across_rotation_and_truncation(tmp_path):
    path, seen = tmp_path / "log", []
    path.write_text(BARE * 3)
    source = LogSource(path)
    source.read(seen.append)
    path.rename(tmp_path / "log.1")
    path.write_text(STAMPED)
    source.read(seen.append)
    assert values(seen) == [187.0]
    path.write_text("")
    source.read(seen.append)
    path.write_text(BARE)
    source.read(seen.append)
    assert values(seen) == [187.0, 42.0]


def test_a_log_that_appears_later_is_read_from_its_start(tmp_path):
    path, seen = tmp_path / "log", []
    source = LogSource(path)
    source.read(seen.append)
    assert not source.health.up
    assert "No such file" in source.health.reason
    path.write_text(STAMPED)
    source.read(seen.append)
    assert source.health.up
    assert values(seen) == [187.0]


def test_other_bytes_do_no_harm(tmp_path):
    path, seen = tmp_path / "log", []
    path.write_bytes(b"")
    source = LogSource(path)
    source.read(seen.append)
    path.write_bytes(b"\xff\xfe\x00\n" + b"x" * 200_000 + b"\n" + BARE.encode())
    source.read(seen.append)
    assert values(seen) == [42.0]


def test_a_line_that_is_too_long_is_skipped_whole_and_counted_once(tmp_path):
    path, seen = tmp_path / "log", []
    path.write_bytes(b"")
    source = LogSource(path)
    source.read(seen.append)
    for part in (b"x" * 100_000, b"y" * 100_000, BARE.encode() + STAMPED.encode()):
        with path.open("ab") as file:
            file.write(part)
        source.read(seen.append)
    # What looks like a measuring line is the end of the long one.
    assert values(seen) == [187.0]
    assert source.health.dropped_by == {"too_long": 1}


def test_a_containers_timestamp_is_the_lines_own_time():
    at = upstream.line_time("2026-11-22T16:12:02.340123456Z INFO:x:something")
    assert at == upstream.line_time("2026-11-22T16:12:02.340123Z INFO:x:something")


def follow(command, until, monkeypatch):
    """Run the source until the condition holds for (source, seen)."""
    monkeypatch.setattr(log_lines, "FIRST_RETRY_S", 0.01)
    source, seen = LogCommandSource(command), []

    async def run():
        task = asyncio.create_task(source.run(seen.append))
        async with asyncio.timeout(30):
            while not until(source, seen):
                await asyncio.sleep(0.01)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(run())
    return source, seen


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_what_a_command_prints_is_read_from_both_streams(stream, monkeypatch):
    script = f"import sys, time; sys.{stream}.write({STAMPED!r}); sys.{stream}.flush()"
    command = [sys.executable, "-c", script + "; time.sleep(600)"]
    source, seen = follow(command, lambda source, seen: seen, monkeypatch)
    assert values(seen) == [187.0]
    assert source.health.up


def test_a_command_that_ends_is_started_again(monkeypatch):
    command = [sys.executable, "-c", f"print({BARE!r})"]
    source, seen = follow(command, lambda source, seen: len(seen) >= 3, monkeypatch)
    assert set(values(seen)) == {42.0}
    assert source.health.failures >= 2


def test_a_command_that_fails_says_why(monkeypatch):
    command = ["sh", "-c", "echo 'No such container: worker' >&2; exit 3"]
    source, _ = follow(command, lambda source, _: source.health.failures >= 2, monkeypatch)
    assert "sh ended with status 3: No such container: worker" in str(source.health.reason)


def test_the_logs_text_is_not_repeated_as_a_reason(monkeypatch):
    command = ["sh", "-c", "echo private; echo words; exit 3"]
    source, _ = follow(command, lambda source, _: source.health.failures, monkeypatch)
    assert "private" not in str(source.health.reason)
    assert "words" not in str(source.health.reason)


def test_a_command_that_is_not_there(monkeypatch):
    source, _ = follow(["no-such-command"], lambda source, _: source.health.failures, monkeypatch)
    assert source.health.reason == "cannot run no-such-command: No such file or directory"


def test_nothing_of_the_command_is_left_behind(tmp_path, monkeypatch):
    """Not even what it started itself, nor one that takes no notice of SIGTERM."""
    monkeypatch.setattr(log_lines, "STOP_S", 0.2)
    pids = tmp_path / "pids"
    script = f"trap '' TERM; sleep 600 & echo $$ $! > {pids}; echo; wait; sleep 600"
    follow(
        ["sh", "-c", script],
        lambda source, _: pids.exists() and len(pids.read_text().split()) == 2,
        monkeypatch,
    )
    for pid in map(int, pids.read_text().split()):
        wait_until(lambda pid=pid: _gone(pid), "the end of the command")


def _gone(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True
