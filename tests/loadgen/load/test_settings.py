"""Options of the load test: what is refused, and what reaches a worker."""

from __future__ import annotations

import configargparse
import pytest

from loadgen.load.settings import Local, Settings, SettingsError, Setup, add_arguments

LOCAL = "http://127.0.0.1:8000"
REMOTE = "http://opentalking.example:8000"


@pytest.fixture(autouse=True)
def outside_ci(monkeypatch):
    monkeypatch.delenv("CI", raising=False)


def told(*arguments):
    parser = configargparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(list(arguments))


def settings(*arguments, host=LOCAL):
    return Settings.of(host, told(*arguments))


def refused(*arguments, host=LOCAL):
    with pytest.raises(SettingsError) as caught:
        settings(*arguments, host=host)
    return str(caught.value)


def test_everything_has_a_default_but_the_target():
    chosen = settings(host=LOCAL + "/")
    assert chosen.url == LOCAL
    assert chosen.source.scenarios()[0].name == "chat"
    assert (chosen.arrivals, chosen.exporter, chosen.records) == (None, None, None)
    assert "--host http://" in refused(host=None)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--max-sessions", "0"], "--max-sessions 0: must be at least 1"),
        (["--max-ramp", "0"], "--max-ramp 0.0: must be above 0"),
        (["--decode-fraction", "1.1"], "--decode-fraction 1.1: must be 0 to 1"),
        (["--turn-timeout", "nan"], "--turn-timeout nan: must be above 0"),
        (["--arrivals", "poisson:x"], "the rate is not a number"),
        (["--scenario", "/nowhere.yaml"], "/nowhere.yaml: no such file"),
    ],
)
def test_a_wrong_option_is_named(arguments, problem):
    assert problem in refused(*arguments)


def test_a_url_that_is_none_is_refused():
    assert "is not an http:// or https:// URL" in refused(host="opentalking:8000")


def test_a_folder_that_holds_something_is_not_written_into(tmp_path):
    (tmp_path / "old").write_text("")
    assert "is not empty" in refused("--records", str(tmp_path))
    assert settings("--records", str(tmp_path / "new")).records == tmp_path / "new"


def test_more_users_than_sessions_are_refused():
    options = told("--max-sessions", "10")
    options.num_users = 11
    with pytest.raises(SettingsError, match="--users 11 is more than --max-sessions 10"):
        Settings.of(LOCAL, options)


@pytest.mark.parametrize("how", ["variable", "option"])
def test_in_ci_a_target_elsewhere_must_be_listed(monkeypatch, how):
    arguments = ["--ci"] if how == "option" else []
    if how == "variable":
        monkeypatch.setenv("CI", "true")
    assert "--allow-target opentalking.example" in refused(*arguments, host=REMOTE)
    assert settings(*arguments, host=LOCAL).url == LOCAL
    listed = [*arguments, "--allow-target", "opentalking.example"]
    assert settings(*listed, host=REMOTE).url == REMOTE


def test_a_list_of_targets_holds_everywhere():
    assert "names other.example" in refused("--allow-target", "other.example", host=REMOTE)
    assert "names other.example" in refused("--allow-target", "other.example", host=LOCAL)
    assert settings("--allow-target", "opentalking.example:8000", host=REMOTE).url == REMOTE
    # The name in the URL counts, not one that only looks like it.
    decoy = "http://opentalking.example@evil.example:8000"
    assert "evil.example is not allowed" in refused(
        "--allow-target", "opentalking.example", host=decoy
    )


def test_outside_ci_any_target_will_do():
    assert settings(host=REMOTE).url == REMOTE


def test_the_same_seed_is_kept_and_another_made_up():
    assert settings("--seed", "7").seed == 7
    assert settings().seed != settings().seed


def test_a_setup_survives_its_way_to_a_worker():
    setup = Setup(
        url=LOCAL,
        name="s.yaml",
        text="scenarios: [{name: a, inputs: [{upload: b}]}]",
        files={"b": b"\x00\xff"},
        models={"a": "wav2lip"},
        avatars={"a": "demo"},
        max_sessions=5,
        max_ramp=2.5,
        decode_fraction=0.1,
        turn_timeout=60.0,
        exporter=None,
        agent_exporter=None,
        open_model=True,
        seed=1,
    )
    msgpack = pytest.importorskip("msgpack")
    again = Setup.from_message(msgpack.loads(msgpack.dumps(setup.to_message())))
    assert again == setup
    assert again.source.scenarios()[0].inputs[0].input.data == b"\x00\xff"


def test_addresses_and_ports_are_each_process_own():
    local = Local.of(told("--candidate-address", "10.0.0.1", "--metrics-port", "9120"))
    assert (local.addresses, local.metrics_port) == (("10.0.0.1",), 9120)
    assert Local.of(told()).addresses is None


def test_each_process_reads_its_own_token(tmp_path, monkeypatch):
    file = tmp_path / "token"
    file.write_text("s3cret\n")
    local = Local.of(told("--exporter-token-file", str(file)))
    assert local.exporter_token == "s3cret"
    assert "s3cret" not in repr(local)
    monkeypatch.setenv("TALKSCOPE_TOKEN", "t0ken")
    assert Local.of(told()).exporter_token == "t0ken"
    with pytest.raises(SettingsError, match="give one of them"):
        Local.of(told("--exporter-token-file", str(file)))


def test_the_agents_exporter_is_the_run_s_unless_told_otherwise():
    assert settings().agent_exporter is None
    assert settings("--exporter", "http://e:1").agent_exporter == "http://e:1"
    chosen = settings("--exporter", "http://e:1", "--agent-exporter", "http://a:1")
    assert (chosen.exporter, chosen.agent_exporter) == ("http://e:1", "http://a:1")
