import pytest

from exporter.agent.settings import (
    EXPORTER,
    QUEUE,
    TOKEN,
    TOKEN_FILE,
    SettingsError,
    from_environment,
)

URL = "http://127.0.0.1:9464"


def test_the_url_is_enough():
    settings = from_environment({EXPORTER: URL + "/"})
    assert (settings.exporter, settings.queue, settings.token) == (URL, 10_000, None)


def test_all_can_be_told():
    settings = from_environment({EXPORTER: URL, QUEUE: "7", TOKEN: "secret"})
    assert (settings.queue, settings.token) == (7, "secret")


@pytest.mark.parametrize(
    ("environment", "variable"),
    [
        ({}, EXPORTER),
        ({EXPORTER: "127.0.0.1:9464"}, EXPORTER),
        ({EXPORTER: "http://:9464"}, EXPORTER),
        ({EXPORTER: "http://host:port"}, EXPORTER),
        ({EXPORTER: URL, QUEUE: "0"}, QUEUE),
        ({EXPORTER: URL, QUEUE: "many"}, QUEUE),
    ],
)
def test_what_is_wrong_is_named(environment, variable):
    with pytest.raises(SettingsError, match=variable):
        from_environment(environment)


def test_the_token_can_come_from_a_file(tmp_path):
    secret = tmp_path / "token"
    secret.write_text("secret\n")
    assert from_environment({EXPORTER: URL, TOKEN_FILE: str(secret), TOKEN: ""}).token == "secret"


@pytest.mark.parametrize(
    ("content", "message"), [(None, "cannot read"), (b"\n", "is empty"), (b"\xff", "not UTF-8")]
)
def test_a_file_that_holds_no_token_is_named(tmp_path, content, message):
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=f"{TOKEN_FILE}: .*{message}"):
        from_environment({EXPORTER: URL, TOKEN_FILE: str(path)})


@pytest.mark.parametrize("token", ["two words", "line\nfeed", "schlüssel"])
def test_a_token_that_fits_in_no_header_is_refused_where_it_is_told(tmp_path, token):
    path = tmp_path / "token"
    path.write_text(token, encoding="utf-8")
    for told in ({TOKEN: token}, {TOKEN_FILE: str(path)}):
        with pytest.raises(SettingsError, match=f"{next(iter(told))}: .*printable ASCII"):
            from_environment({EXPORTER: URL, **told})


def test_two_tokens_are_one_too_many(tmp_path):
    with pytest.raises(SettingsError, match="both set"):
        from_environment({EXPORTER: URL, TOKEN: "a", TOKEN_FILE: str(tmp_path / "token")})
