"""The stand-in for NVML: built with gcc, told what to say by a state file (states/README.md).

None of its readings is one of a GPU. In this process it takes the driver's place by `standin`;
another process finds it through `environment`.
"""

from __future__ import annotations

import contextlib
import ctypes
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pynvml

HERE = Path(__file__).parent
STATES = HERE / "states"
EXPECTED = HERE / "expected"

LIBRARY = "libnvidia-ml.so.1"
MARK = "Stand-in "
"""Begins the name of every device."""


def build(folder: Path, *, old_driver: bool = False) -> Path:
    """Compile the library into `folder`; return its path."""
    path = folder / LIBRARY
    options = ["-DOLD_DRIVER"] if old_driver else []
    compile_c(HERE / "fake_nvml.c", path, *options, "-shared", "-fPIC", f"-Wl,-soname,{LIBRARY}")
    return path


def compile_c(source: Path, target: Path, *options: str) -> None:
    """Compile one C file."""
    gcc = shutil.which("gcc")
    if gcc is None:
        raise RuntimeError("gcc is not installed; apt-get install gcc libc6-dev")
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [gcc, "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(target), str(source), *options]
    subprocess.run(command, check=True)


class Dial:
    """A state file that changes at once, as the library reads it while we write."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "state.txt"

    def turn(self, state: str) -> None:
        """From now on the library says this: the name of a state, or its text."""
        text = state if "\n" in state else (STATES / f"{state}.txt").read_text()
        part = self.path.with_suffix(".part")
        part.write_text(text)
        part.replace(self.path)

    def environment(self, library: Path) -> dict[str, str]:
        """For a process that is to take the stand-in for the driver's library."""
        return {"LD_LIBRARY_PATH": str(library.parent), "FAKE_NVML_STATE": str(self.path)}


@contextlib.contextmanager
def standin(library: Path | None) -> Iterator[None]:
    """Let pynvml in this process take `library` for the driver's; None: there is none."""
    before = pynvml.nvmlLib, dict(pynvml._nvmlGetFunctionPointer_cache), pynvml.CDLL

    def missing(name: str) -> ctypes.CDLL:
        raise OSError(f"{name}: cannot open shared object file")

    pynvml.nvmlLib = None if library is None else ctypes.CDLL(str(library))
    pynvml._nvmlGetFunctionPointer_cache.clear()
    pynvml.CDLL = missing
    try:
        yield
    finally:
        pynvml.nvmlLib, cache, pynvml.CDLL = before
        pynvml._nvmlGetFunctionPointer_cache.clear()
        pynvml._nvmlGetFunctionPointer_cache.update(cache)
