"""The target as it comes up: the order of the start, the cold start, and target.json.

What comes in: the settings of a run, and a crew to start processes with. What goes out: a folder
with an avatar, running processes, and the description that others read in `target.json`. It must
not know what a process needs (services.py does), how it lives and dies (processes.py does), or who
asked for it (supervisor.py does).

Standard library only.
"""

import asyncio
import dataclasses
import importlib.metadata
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import services
from processes import Child, Crew
from services import NotInstalledError, Service, Settings

SCHEMA = 1


def prepare(settings: Settings) -> None:
    """Make the run's folder: no target.json of an earlier run, an avatar, a place for temp files.

    Raises NotInstalledError if an environment is missing or cannot draw the avatar.
    """
    services.omnirt_python(settings.venvs)
    python = services.opentalking_python(settings.venvs)
    (settings.directory / "tmp").mkdir(parents=True, exist_ok=True)
    (settings.directory / "target.json").unlink(missing_ok=True)
    drawing = subprocess.run(
        [
            str(python),
            str(services.HERE / "avatar.py"),
            f"--dir={settings.directory / 'avatars'}",
            f"--id={services.AVATAR}",
            f"--model={settings.model}",
            f"--width={settings.width}",
            f"--height={settings.height}",
            f"--fps={settings.fps}",
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    if drawing.returncode:
        raise NotInstalledError(
            f"{python} cannot draw the avatar; make its environment anew with install.py:\n"
            f"{drawing.stderr}"
        )


class Target:
    """The target while it starts and runs: its services, and the child that each has become."""

    def __init__(
        self, settings: Settings, crew: Crew, say: Callable[[str], None], timeout: float
    ) -> None:
        self._settings = settings
        self._crew = crew
        self._say = say
        self._timeout = timeout
        self._services: dict[str, Service] = {}
        self._children: dict[str, Child] = {}
        self._measured: list[Child] = []

    async def start(self) -> None:
        """Start everything and return when all of it is ready."""
        settings, ports = self._settings, services.ports_for(self._settings)
        surroundings = [services.provider(settings, ports)]
        measured = [services.omnirt(settings, ports)]
        if settings.mode == "split":
            surroundings.append(services.redis(settings, ports))
            measured.append(services.opentalking_worker(settings, ports))
            measured.append(services.opentalking_api(settings, ports))
        else:
            measured.append(services.opentalking_unified(settings, ports))
        # The cold start is OmniRT's and OpenTalking's alone: nothing else may compete with them.
        await self._bring_up(surroundings, stop_last=True)
        self._measured = await self._bring_up(measured, stop_last=False)

    async def _bring_up(self, wave: list[Service], *, stop_last: bool) -> list[Child]:
        for service in wave:
            self._services[service.name] = service
            self._children[service.name] = await self._crew.start(
                service.name,
                service.command,
                service.environment,
                self._settings.directory,
                stop_last=stop_last,
            )
            self._say(f"{service.name}: started, {service.url}")
        await asyncio.gather(*map(self._until_ready, wave))
        return [self._children[service.name] for service in wave]

    async def replace(self, ended: Child) -> None:
        """Start a process that has ended once more, on its old port; return when it is ready."""
        service = self._services[ended.name]
        await self._crew.dismiss(ended)
        self._children[service.name] = await self._crew.start(
            service.name,
            service.command,
            service.environment,
            self._settings.directory,
            stop_last=ended.stop_last,
            again=True,
        )
        self._say(f"{service.name}: started again")
        await self._until_ready(service)

    async def _until_ready(self, service: Service) -> None:
        child = self._children[service.name]
        await self._crew.until_ready(child, service.probe, self._timeout)
        self._say(f"{service.name}: ready")

    @property
    def url(self) -> str:
        """Where OpenTalking answers."""
        return self._services["opentalking"].url

    @property
    def cold_start(self) -> tuple[float, float]:
        """Unix times: OpenTalking's or OmniRT's first process started, and the last was ready."""
        started = min(child.started_unix for child in self._measured)
        return started, max(child.ready_unix or started for child in self._measured)

    def describe(self) -> dict[str, object]:
        """Return what target.json holds; README.md describes it."""
        settings = self._settings
        split = settings.mode == "split"
        started, ready = self.cold_start
        return {
            "schema": SCHEMA,
            "mode": settings.mode,
            "opentalking": self._describe("opentalking", "opentalking"),
            "worker": self._describe("worker", "opentalking") if split else None,
            "omnirt": self._describe("omnirt", "omnirt"),
            "provider": self._describe("provider"),
            "redis": self._describe("redis") if split else None,
            "avatar": services.AVATAR,
            "model": settings.model,
            "width": settings.width,
            "height": settings.height,
            "fps": settings.fps,
            "benchmark_timing": settings.benchmark_timing,
            "pipeline_log": str(self._children["worker" if split else "opentalking"].log.path),
            "cold_start": {
                "started_unix": started,
                "ready_unix": ready,
                "seconds": ready - started,
            },
            "python": _python_version(settings.venvs / "opentalking"),
            "knobs": {
                "provider": dataclasses.asdict(settings.provider),
                "synthetic": dataclasses.asdict(settings.runtime),
            },
        }

    def _describe(self, name: str, distribution: str | None = None) -> dict[str, object]:
        child = self._children[name]
        part: dict[str, object] = {
            "url": self._services[name].url,
            "pid": child.pid,
            "log": str(child.log.path),
            "started_unix": child.started_unix,
            "ready_unix": child.ready_unix,
        }
        if distribution is not None:
            part["version"] = _version(self._settings.venvs / distribution, distribution)
        return part


def write_atomically(path: Path, content: dict[str, object]) -> None:
    """Write JSON so that a reader sees either the whole file or none."""
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    draft.replace(path)


def _version(venv: Path, distribution: str) -> str:
    folders = [str(folder) for folder in venv.glob("lib/python3.*/site-packages")]
    found = importlib.metadata.distributions(name=distribution, path=folders)
    return next(iter(found)).version


def _python_version(venv: Path) -> str:
    lines = (venv / "pyvenv.cfg").read_text(encoding="utf-8").splitlines()
    values = dict(line.split(" = ", 1) for line in lines)
    return values["version"]
