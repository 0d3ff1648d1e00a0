"""What may be told, where, which one wins, and what a wrong setting is told back."""

from pathlib import Path

import pytest

from exporter.accelerators.groups import Selector
from exporter.config import SETTINGS, Config, ConfigError, changed, parse, reference
from tests.processes import ROOT

TARGET = "http://127.0.0.1:8000"
DOCS = ROOT / "docs" / "exporter.md"


def read(*arguments, **environment):
    return parse(["--target", TARGET, *arguments], environment)


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "exporter.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_defaults():
    config = parse(["--target", TARGET], {})
    assert config.target == TARGET
    assert config.listen == ("127.0.0.1", 9109)
    assert (config.redis, config.omnirt, config.ingest_token) == (None, (), None)
    assert config.cors_origins == ()
    assert config.ingest_rate == 0.0


def test_a_flag_wins_over_a_variable_and_a_variable_over_the_file(file):
    path = file("log_level: error\npoll_interval: 7\ningest_rate: 5\n")
    environment = {"TALKSCOPE_LOG_LEVEL": "warning", "TALKSCOPE_POLL_INTERVAL": "3"}
    config = read("--config", path, "--log-level", "debug", **environment)
    assert config.log_level == "debug"
    assert config.poll_interval == 3.0
    assert config.ingest_rate == 5.0
    assert config.ingest_burst == 100


def test_every_setting_can_come_from_the_file(file, tmp_path):
    (tmp_path / "baseline.json").write_text('{"0": 512}')
    path = file(
        f"""
        target: {TARGET}
        redis: rediss://user:secret@redis:6380/2
        omnirt: [http://gpu-1:9000, http://gpu-2:9000]
        omnirt_api_key: key
        npu_exporter: http://127.0.0.1:8082
        log_command: docker logs -f --since 0s 'a worker'
        listen: "[::1]:0"
        bundle: out/bundle
        ready_file: ready.json
        target_just_started: true
        poll_interval: 5
        queue_poll_interval: 0.5
        turn_timeout: 90
        accelerator_interval: 0.2
        accelerator_baseline: {tmp_path / "baseline.json"}
        opentalking_processes: ["port:8000", "command:opentalking"]
        omnirt_processes: "cgroup:4f1bc1"
        trust_accelerator_pids: true
        ingest_token: token
        cors_origins: [https://app.example.com]
        ingest_rate: 2.5
        ingest_burst: 10
        log_level: debug
        log_format: json
        """
    )
    assert parse(["--config", path], {}) == Config(
        target=TARGET,
        listen=("::1", 0),
        redis="rediss://user:secret@redis:6380/2",
        omnirt=("http://gpu-1:9000", "http://gpu-2:9000"),
        omnirt_api_key="key",
        npu_exporter="http://127.0.0.1:8082",
        log=None,
        log_command=("docker", "logs", "-f", "--since", "0s", "a worker"),
        bundle=Path("out/bundle"),
        ready_file=Path("ready.json"),
        target_just_started=True,
        poll_interval=5.0,
        queue_poll_interval=0.5,
        turn_timeout=90.0,
        accelerator_interval=0.2,
        accelerator_baseline={"0": 512.0},
        opentalking_processes=(Selector("port", "8000"), Selector("command", "opentalking")),
        omnirt_processes=(Selector("cgroup", "4f1bc1"),),
        trust_accelerator_pids=True,
        ingest_token="token",
        cors_origins=("https://app.example.com",),
        ingest_rate=2.5,
        ingest_burst=10,
        log_level="debug",
        log_format="json",
        file=Path(path),
    )


def test_lists_are_repeated_flags_or_have_commas_in_a_variable():
    both = ("http://a:1", "http://b:1")
    assert read("--omnirt", both[0], "--omnirt", both[1]).omnirt == both
    assert read(TALKSCOPE_OMNIRT="http://a:1,http://b:1").omnirt == both


def test_the_file_can_be_named_by_a_variable(file):
    assert read(TALKSCOPE_CONFIG=file("poll_interval: 9\n")).poll_interval == 9.0


def test_an_empty_file_and_empty_keys_say_nothing(file):
    assert read("--config", file("")).log_level == "info"
    assert read("--config", file("log_level:\n")).log_level == "info"


def test_secrets_have_no_flag_and_are_not_printed():
    config = read(TALKSCOPE_INGEST_TOKEN="s3cret", REDIS_URL="redis://u:s3cret@h/0")
    assert config.ingest_token == "s3cret"
    assert "s3cret" not in repr(config)
    with pytest.raises(ConfigError, match="--ingest-token"):
        read("--ingest-token", "s3cret")


@pytest.mark.parametrize(
    ("variable", "key", "value"),
    [
        ("REDIS_URL", "redis", "redis://u:s3cret@h:6379/0"),
        ("TALKSCOPE_OMNIRT_API_KEY", "omnirt_api_key", "s3cret"),
        ("TALKSCOPE_INGEST_TOKEN", "ingest_token", "s3cret"),
    ],
)
def test_a_secret_can_come_from_a_file_of_its_own(tmp_path, variable, key, value):
    secret = tmp_path / "secret"
    secret.write_text(f"{value}\n")
    # Compose hands over variables that are not set as empty ones.
    config = read(**{f"{variable}_FILE": str(secret), variable: ""})
    assert getattr(config, key) == value
    with pytest.raises(ConfigError, match=f"{variable} and {variable}_FILE are both set"):
        read(**{f"{variable}_FILE": str(secret), variable: value})


def test_a_rotated_secret_is_read_again(tmp_path):
    secret = tmp_path / "token"
    secret.write_text("old")
    old = read(TALKSCOPE_INGEST_TOKEN_FILE=str(secret))
    secret.write_text("new")
    new = read(TALKSCOPE_INGEST_TOKEN_FILE=str(secret))
    assert (old.ingest_token, new.ingest_token) == ("old", "new")
    assert changed(old, new) == (["ingest_token"], [])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "TALKSCOPE_INGEST_TOKEN_FILE: cannot read .*token: No such file"),
        (b"\n", "TALKSCOPE_INGEST_TOKEN_FILE: .*token is empty"),
        (b"\xff\n", "TALKSCOPE_INGEST_TOKEN_FILE: .*token is not UTF-8 text"),
        (b"two words\n", "TALKSCOPE_INGEST_TOKEN_FILE must be printable ASCII without spaces"),
    ],
)
def test_a_file_that_holds_no_secret_is_named(tmp_path, content, message):
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read(TALKSCOPE_INGEST_TOKEN_FILE=str(path))


def test_other_settings_have_no_file_of_their_own(tmp_path):
    assert read(TALKSCOPE_LOG_LEVEL_FILE=str(tmp_path / "nothing")).log_level == "info"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pol_interval: 1\n", "unknown key 'pol_interval'; the nearest known one is 'poll_"),
        ("poll_interval: soon\n", "poll_interval 'soon' is not a number"),
        ("poll_interval: 0\n", "poll_interval 0 is not a number of seconds from 0.1 to 3600"),
        ("poll_interval: true\n", "poll_interval True is not a number"),
        ("ingest_rate: -1\n", "ingest_rate -1 is negative; 0 means no limit"),
        ("ingest_rate: .nan\n", "ingest_rate nan is not a number"),
        ("ingest_burst: 1.5\n", "ingest_burst 1.5 is not a whole number from 1 on"),
        ("log_level: loud\n", "log_level 'loud' is none of debug, info, warning, error"),
        ("log_format: xml\n", "log_format 'xml' is none of text, json"),
        ("redis: redis://h:x/0\n", "redis 'redis://h:x/0' is not a URL that begins with redis://"),
        ("redis: redis://h/zero\n", "redis: database 'zero' is not a number"),
        ("listen: 9109\n", "listen 9109 is not a text; put it in quotes"),
        ("omnirt_processes: omnirt\n", "omnirt_processes: 'omnirt' is not KIND:VALUE with a KIND"),
        ("opentalking_processes: port:0\n", "'0' is not a port from 1 to 65535"),
        ("accelerator_baseline: /nowhere\n", "accelerator_baseline: cannot read /nowhere: No such"),
        ("omnirt: [http://a:1, http://a:1/]\n", "omnirt names a:1 twice"),
        ("omnirt: [3]\n", "omnirt 3 is not a text"),
        ("omnirt: {a: 1}\n", "omnirt {'a': 1} is not a text"),
        ("cors_origins: ['*']\n", "cors_origins '*' is not a URL"),
        ("cors_origins: https://a/b\n", "cors_origins 'https://a/b' is not an origin"),
        ("ingest_token: two words\n", "ingest_token must be printable ASCII without spaces"),
        ('log_command: "\'"\n', 'log_command "\'" is not a command'),
        ("log: a\nlog_command: b\n", "--log and --log-command are two ways to the same log"),
        ("target_just_started: perhaps\n", "target_just_started 'perhaps' is neither true nor"),
        ("a: [1\n", "line 2 is not YAML"),
        ("- a\n", "is not a mapping"),
    ],
)
def test_a_wrong_key_is_named_with_the_fix(file, text, message):
    with pytest.raises(ConfigError) as refused:
        read("--config", file(text))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_named():
    with pytest.raises(ConfigError, match=r"cannot read the configuration no\.yaml: No such file"):
        read("--config", "no.yaml")


def test_a_wrong_variable_is_named():
    with pytest.raises(ConfigError, match="TALKSCOPE_POLL_INTERVAL 'x' is not a number"):
        read(TALKSCOPE_POLL_INTERVAL="x")


def test_a_password_in_a_wrong_url_is_not_repeated():
    with pytest.raises(ConfigError) as refused:
        read("--redis", "http://u:s3cret@h/0")
    assert "s3cret" not in str(refused.value)


def test_what_a_reload_can_change_is_told_from_what_it_cannot():
    old = read()
    new = read("--log-level", "debug", "--listen", "127.0.0.1:1", "--poll-interval", "9")
    assert changed(old, new) == (["poll_interval", "log_level"], ["listen"])
    assert changed(old, old) == ([], [])


def test_every_field_is_a_setting():
    assert {s.key for s in SETTINGS} | {"file"} == set(Config.__dataclass_fields__)


def test_the_reference_is_up_to_date():
    """Put what `exporter.config.reference()` returns there."""
    assert reference() in DOCS.read_text()
