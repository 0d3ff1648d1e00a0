"""Makes the target's two environments from the locked lists: OpenTalking's and OmniRT's.

What comes in: a folder, and the lists beside this file. What goes out: `<root>/opentalking` and
`<root>/omnirt`, each with a stamp that names the lists and the Python it was made from; an
environment whose stamp still fits is left alone. It must not know how the target is run.

Standard library only, for any Python 3.11 to 3.13; the environments are of the Python that runs it.
"""

import argparse
import hashlib
import importlib.util
import platform
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEFAULT_ROOT = HERE.parents[1] / "build" / "target"
OLDEST, NEWEST = (3, 11), (3, 13)
STAMP = "talkscope-stamp.txt"
LOG_TAIL_LINES = 15

# Wheels only: a source build would need compilers and would not be what the hashes describe.
PIP_INSTALL = (
    *("-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar=off"),
    *("--require-hashes", "--only-binary=:all:"),
)


class InstallError(Exception):
    """An environment could not be made; the message says why and where the log is."""


@dataclass(frozen=True)
class Environment:
    """One environment: its name, and the lists to install in order, with options for pip."""

    name: str
    lists: tuple[tuple[str, tuple[str, ...]], ...]

    def stamp(self) -> str:
        """Return the text that changes whenever the environment has to be made anew."""
        digest = hashlib.sha256()
        for name, _ in self.lists:
            digest.update((HERE / name).read_bytes())
        return f"python {platform.python_version()}\nlists sha256:{digest.hexdigest()}\n"


ENVIRONMENTS = (
    Environment(
        "opentalking",
        (
            ("requirements-opentalking.txt", ()),
            # Without its dependencies: requirements-opentalking.in says which, and why.
            ("requirements-opentalking-wheel.txt", ("--no-deps",)),
        ),
    ),
    Environment("omnirt", (("requirements-omnirt.txt", ()),)),
)


class Installer:
    """Makes environments under one folder, and says what it does, with the seconds since start."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._started = time.monotonic()

    def say(self, line: str) -> None:
        """Print one line of progress."""
        print(f"[{time.monotonic() - self._started:6.1f} s] {line}", flush=True)

    def make(self, environment: Environment) -> None:
        """Make one environment unless it is up to date; raises InstallError."""
        folder = self._root / environment.name
        stamp = folder / STAMP
        if stamp.is_file() and stamp.read_text(encoding="utf-8") == environment.stamp():
            self.say(f"{environment.name}: up to date")
            return
        log = self._root / f"install-{environment.name}.log"
        log.write_bytes(b"")
        self.say(f"{environment.name}: creating {folder}")
        # A half-made or outdated environment is not repaired but replaced.
        shutil.rmtree(folder, ignore_errors=True)
        self._run([sys.executable, "-m", "venv", str(folder)], environment, log)
        python = str(folder / "bin" / "python")
        for name, options in environment.lists:
            self.say(f"{environment.name}: installing {name}")
            command = [python, *PIP_INSTALL, *options, "--requirement", str(HERE / name)]
            self._run(command, environment, log)
        stamp.write_text(environment.stamp(), encoding="utf-8")
        self.say(f"{environment.name}: ready")

    def _run(self, command: list[str], environment: Environment, log: Path) -> None:
        with log.open("ab") as output:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False
            )
        if done.returncode:
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            tail = "\n".join(f"    {line}" for line in lines[-LOG_TAIL_LINES:])
            raise InstallError(
                f"{environment.name}: {' '.join(command[1:4])} exited with status "
                f"{done.returncode}; the last lines of {log}:\n{tail}"
            )


def check_python() -> None:
    """Raise InstallError unless this Python can make the environments."""
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        raise InstallError(
            f"this is Python {platform.python_version()}, and the lists are for Python 3.11 to "
            f"3.13: run install.py with one of those"
        )
    if importlib.util.find_spec("ensurepip") is None:
        raise InstallError(
            "this Python has no ensurepip, so its venv module cannot provide pip; "
            "on Debian and Ubuntu: apt-get install python3-venv"
        )


def locked_version(list_name: str, package: str, marker: str) -> str:
    """Return the version of a package in a locked list, of the line with this marker."""
    for line in (HERE / list_name).read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{package}==") and marker in line:
            return line.removeprefix(f"{package}==").split()[0]
    raise LookupError(f"{list_name} has no {package} with {marker}")


def main() -> int:
    """Make both environments; return the exit status."""
    parser = argparse.ArgumentParser(description="Make the target's environments.")
    parser.add_argument("--root", type=Path, default=DEFAULT_ROOT, help="default: %(default)s")
    root = parser.parse_args().root.resolve()
    installer = Installer(root)
    try:
        check_python()
        if sys.version_info[:2] == (3, 13):
            numpy = locked_version("requirements-opentalking.txt", "numpy", ">= '3.13'")
            installer.say(
                f"Python 3.13: numpy {numpy} although OpenTalking's metadata says numpy<2, which "
                "has no wheel for 3.13; every other pin is within its bounds"
            )
        root.mkdir(parents=True, exist_ok=True)
        # Side by side: one downloads and unpacks while the other waits.
        with ThreadPoolExecutor(len(ENVIRONMENTS)) as pool:
            list(pool.map(installer.make, ENVIRONMENTS))
    except InstallError as error:
        print(f"install.py: {error}", file=sys.stderr)
        return 1
    installer.say(f"both are ready under {root}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
