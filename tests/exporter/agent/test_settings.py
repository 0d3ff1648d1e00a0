import pytest

from exporter.agent.settings import EXPORTER, QUEUE, TOKEN, SettingsError, from_environment

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
