from exporter import upstream
from exporter.sources.log_lines import LogSource

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
