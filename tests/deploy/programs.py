"""What our command lines say they take, for checks of the files that start them."""

import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

TALKSCOPE = (sys.executable, "-c", "from talkscope.cli import main; main()")
PROBE = (*TALKSCOPE, "probe")
# `locust --help` ends before it reads the locustfile, which adds our options. A process of its own,
# since importing Locust patches the standard library.
LOCUST = (
    sys.executable,
    "-c",
    "from locust.argument_parser import get_parser\n"
    "from loadgen.load.settings import add_arguments\n"
    "parser = get_parser(default_config_files=[])\n"
    "add_arguments(parser)\n"
    "print(parser.format_help())",
)
DEMO = (sys.executable, "deploy/demo/supervisor.py")


@functools.cache
def help_of(program):
    """The text of `--help`; skips the test where the program is not in this tree."""
    if program is LOCUST and not (ROOT / "loadgen/locustfile.py").is_file():
        pytest.skip("loadgen/locustfile.py is not in this tree")
    if program is PROBE and " probe " not in help_of(TALKSCOPE):
        pytest.skip("talkscope has no command `probe` in this tree")
    command = [*program, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def unknown_options(program, words):
    """Those of the options among `words` that the program does not know."""
    known = set(help_of(program).replace(",", " ").replace("[", " ").replace("]", " ").split())
    told = {word.split("=")[0] for word in words if word.startswith("--")}
    assert told
    return told - known
