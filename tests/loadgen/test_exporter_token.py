"""Where the exporter's token comes from: a file or a variable, one of them, and usable."""

import pytest

from loadgen.exporter_token import TokenError, read


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "token"
    path.write_text("s3cret\n")
    return path


def test_no_token_is_told():
    assert read(None, {}) is None
    assert read("", {"TALKSCOPE_TOKEN": "", "TALKSCOPE_TOKEN_FILE": ""}) is None


def test_the_option_wins_over_the_variable_of_a_file(file):
    assert read(file, {"TALKSCOPE_TOKEN_FILE": "/nowhere"}) == "s3cret"
    assert read(None, {"TALKSCOPE_TOKEN_FILE": str(file)}) == "s3cret"
    assert read(None, {"TALKSCOPE_TOKEN": "t0ken"}) == "t0ken"


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        ({"TALKSCOPE_TOKEN": "x", "TALKSCOPE_TOKEN_FILE": "y"}, "give one of them"),
        ({"TALKSCOPE_TOKEN_FILE": "/nowhere"}, "cannot read /nowhere: No such file"),
        ({"TALKSCOPE_TOKEN": "two words"}, "TALKSCOPE_TOKEN: a token is printable ASCII"),
    ],
)
def test_what_cannot_be_used_is_named(told, problem):
    with pytest.raises(TokenError, match=problem):
        read(None, told)


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"\n", "is empty"), (b"\xff\xfe", "is not UTF-8"), (b"a\nb\n", "printable ASCII")],
)
def test_a_file_without_a_token_is_named(tmp_path, content, problem):
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(TokenError, match=f"^--exporter-token-file: .*{problem}"):
        read(path, {})
