"""The processes of the target: how each is started, and when it counts as ready.

What comes in: the settings of a run. What goes out: for each process a name, a port, a command, an
environment and a probe. It must not start anything or wait for it (target.py does); of OpenTalking
and OmniRT it knows what an operator knows: variables, ports and the paths that answer.

Standard library only.
"""

import dataclasses
import os
import random
import shutil
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from knobs import ProviderKnobs, RuntimeKnobs, to_environment
from probes import get_json, redis_answers
from processes import Probe

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
AVATAR = "talkscope-demo"
MODELS = ("wav2lip", "flashtalk")
LOOPBACK = "127.0.0.1"
AGENT = "exporter.agent"

# What a process needs from its caller's environment. All else stays out: a stray OPENTALKING_*,
# OMNIRT_*, FLASHTALK_*, PYTHONPATH or proxy variable would change what is measured.
INHERITED = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PATH", "TZ", "USER")
AGENTS_OWN = ("TALKSCOPE_TOKEN", "TALKSCOPE_TOKEN_FILE")

# Below the range from which Linux gives ports to outgoing connections (32768 and up by default), so
# that none of those can take a port between our looking and the child's binding it.
PORTS = range(20_000, 32_768)

# OpenTalking refuses sessions when a provider has no key; the stand-in does not look at it.
ANY_KEY = "loopback"


class NotInstalledError(Exception):
    """Something the target needs is not on this machine; the message says how to get it."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One run of the target."""

    mode: Literal["unified", "split"]
    directory: Path
    venvs: Path
    model: str
    width: int
    height: int
    fps: int
    benchmark_timing: bool
    listen: tuple[str, int] | None = None
    """Address and port of OpenTalking's HTTP; None: a free port of loopback."""
    provider: ProviderKnobs
    runtime: RuntimeKnobs
    agent: str | None = None
    """URL of the exporter that Talkscope's agent in OpenTalking reports to; None: no agent."""
    media_address: tuple[str, ...] = (LOOPBACK,)
    """The one address that OpenTalking offers for media."""
    ca_bundle: Path | None = None
    """Certificates that OpenTalking's HTTP clients trust; None: those of its certifi."""


@dataclass(frozen=True)
class Ports:
    """A free loopback port for each process that may be started."""

    provider: int
    omnirt: int
    opentalking: int
    worker: int
    redis: int


@dataclass(frozen=True)
class Service:
    """A process to be started."""

    name: str
    port: int
    command: list[str]
    environment: dict[str, str]
    probe: Probe

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"{'redis' if self.name == 'redis' else 'http'}://{LOOPBACK}:{self.port}"


def free_ports(taken: int | None = None) -> Ports:
    """Return ports that nothing on this machine listens on, and that are not the one `taken`."""
    chosen: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        if port == taken:
            continue
        with socket.socket() as candidate:
            try:
                candidate.bind((LOOPBACK, port))
            except OSError:
                continue
        chosen.append(port)
        if len(chosen) == len(dataclasses.fields(Ports)):
            return Ports(*chosen)
    raise NotInstalledError(
        f"no free port on {LOOPBACK} between {PORTS.start} and {PORTS.stop - 1}"
    )


def ports_for(settings: Settings) -> Ports:
    """Return free ports, but OpenTalking's as asked for."""
    if settings.listen is None:
        return free_ports()
    told = settings.listen[1]
    return dataclasses.replace(free_ports(told), opentalking=told)


def opentalking_python(venvs: Path) -> Path:
    """Return the interpreter that has OpenTalking; raises NotInstalledError if there is none."""
    return _python(venvs, "opentalking", "opentalking-unified")


def omnirt_python(venvs: Path) -> Path:
    """Return the interpreter that has OmniRT; raises NotInstalledError if there is none."""
    return _python(venvs, "omnirt", "omnirt")


def provider(settings: Settings, ports: Ports) -> Service:
    """The stand-in for LLM, TTS and STT."""

    async def missing() -> str | None:
        answers = await get_json(ports.provider, "/v1/models")
        return None if answers else "/v1/models does not answer"

    return Service(
        "provider",
        ports.provider,
        [
            str(opentalking_python(settings.venvs)),
            str(HERE / "provider.py"),
            f"--port={ports.provider}",
        ],
        _base_environment(settings) | to_environment(settings.provider),
        missing,
    )


def omnirt(settings: Settings, ports: Ports) -> Service:
    """The real OmniRT with the synthetic runtime."""

    async def missing() -> str | None:
        answer = await get_json(ports.omnirt, "/v1/audio2video/models")
        if not answer:
            return "/v1/audio2video/models does not answer"
        return _model_missing(answer, {"id": settings.model, "connected": True})

    return Service(
        "omnirt",
        ports.omnirt,
        [
            str(omnirt_python(settings.venvs)),
            str(HERE / "omnirt_runtime.py"),
            f"--port={ports.omnirt}",
            f"--width={settings.width}",
            f"--height={settings.height}",
            f"--fps={settings.fps}",
        ],
        _base_environment(settings) | to_environment(settings.runtime),
        missing,
    )


def redis(settings: Settings, ports: Ports) -> Service:
    """The bus of split mode, nothing kept on disk; raises NotInstalledError if there is none."""

    async def missing() -> str | None:
        return None if await redis_answers(ports.redis) else "PING gets no PONG"

    server = shutil.which("redis-server")
    if server is None:
        raise NotInstalledError(
            "split mode needs redis-server, which is not on the PATH; "
            "on Debian and Ubuntu: apt-get install redis-server"
        )
    command = [server, "--port", str(ports.redis), "--bind", LOOPBACK, "--save", ""]
    command += ["--appendonly", "no", "--dir", str(settings.directory)]
    return Service("redis", ports.redis, command, _base_environment(settings), missing)


def opentalking_unified(settings: Settings, ports: Ports) -> Service:
    """OpenTalking in one process."""
    python = opentalking_python(settings.venvs)
    script = [str(python.with_name("opentalking-unified"))]
    if settings.agent is not None:
        script = ["-m", AGENT, "opentalking-unified"]
    return Service(
        "opentalking",
        ports.opentalking,
        [str(python), *script, f"--host={_host(settings)}", f"--port={ports.opentalking}"],
        _opentalking_environment(settings, ports),
        _opentalking_probe(settings, ports),
    )


def opentalking_api(settings: Settings, ports: Ports) -> Service:
    """OpenTalking's HTTP half of split mode."""
    return Service(
        "opentalking",
        ports.opentalking,
        _entry_point(settings, "apps.api.main", "opentalking-api"),
        _opentalking_environment(settings, ports) | _split_environment(settings, ports),
        _opentalking_probe(settings, ports),
    )


def opentalking_worker(settings: Settings, ports: Ports) -> Service:
    """OpenTalking's other half of split mode, which runs the pipeline."""

    async def missing() -> str | None:
        return None if await get_json(ports.worker, "/healthz") else "/healthz does not answer"

    return Service(
        "worker",
        ports.worker,
        _entry_point(settings, "opentalking.runtime.main", "opentalking-worker"),
        _opentalking_environment(settings, ports) | _split_environment(settings, ports),
        missing,
    )


def _python(venvs: Path, name: str, script: str) -> Path:
    directory = venvs / name / "bin"
    if not (directory / script).exists():
        raise NotInstalledError(
            f"{directory / script} does not exist; make the target's environments with: "
            f"python {HERE / 'install.py'} --root {venvs}"
        )
    return directory / "python"


def _entry_point(settings: Settings, module: str, script: str) -> list[str]:
    run = [module] if settings.agent is None else [f"{AGENT}.__main__", script]
    return [str(opentalking_python(settings.venvs)), str(HERE / "with_logging.py"), *run]


def _inherited(names: Sequence[str]) -> dict[str, str]:
    return {name: os.environ[name] for name in names if name in os.environ}


def _base_environment(settings: Settings) -> dict[str, str]:
    return _inherited(INHERITED) | {
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(settings.directory / "tmp"),
        "NO_PROXY": "*",
        "no_proxy": "*",
    }


def _opentalking_environment(settings: Settings, ports: Ports) -> dict[str, str]:
    services = f"http://{LOOPBACK}:{ports.provider}/v1"
    path, agent = [str(HERE / "hooks")], {}
    if settings.agent is not None:
        path.append(str(CHECKOUT))
        agent = _inherited(AGENTS_OWN) | {"TALKSCOPE_EXPORTER": settings.agent}
    trust = {"SSL_CERT_FILE": str(settings.ca_bundle)} if settings.ca_bundle else {}
    return _base_environment(settings) | {
        **agent,
        **trust,
        "PYTHONPATH": os.pathsep.join(path),
        "TALKSCOPE_LOOPBACK_ICE": "1",
        "TALKSCOPE_MEDIA_ADDRESSES": ",".join(settings.media_address),
        "OPENTALKING_AVATARS_DIR": str(settings.directory / "avatars"),
        "OPENTALKING_DEFAULT_MODEL": settings.model,
        "OPENTALKING_TORCH_DEVICE": "cpu",
        "OPENTALKING_BENCHMARK_TIMING": "1" if settings.benchmark_timing else "0",
        "OPENTALKING_LLM_BASE_URL": services,
        "OPENTALKING_LLM_API_KEY": ANY_KEY,
        "OPENTALKING_LLM_MODEL": "stand-in",
        "OPENTALKING_TTS_DEFAULT_PROVIDER": "openai_compatible",
        "OPENTALKING_TTS_OPENAI_BASE_URL": services,
        "OPENTALKING_TTS_OPENAI_API_KEY": ANY_KEY,
        "OPENTALKING_TTS_OPENAI_MODEL": "stand-in",
        "OPENTALKING_TTS_OPENAI_RESPONSE_FORMAT": "pcm",
        "OPENTALKING_STT_DEFAULT_PROVIDER": "openai_compatible",
        "OPENTALKING_STT_OPENAI_BASE_URL": services,
        "OPENTALKING_STT_OPENAI_API_KEY": ANY_KEY,
        "OPENTALKING_STT_OPENAI_MODEL": "stand-in",
        "OMNIRT_ENDPOINT": f"http://{LOOPBACK}:{ports.omnirt}",
        "OPENTALKING_WAV2LIP_BACKEND": "omnirt",
        # FlashTalk would render idle clips through OmniRT before its first session is ready.
        "OPENTALKING_FLASHTALK_IDLE_ENABLE": "0",
    }


def _host(settings: Settings) -> str:
    return settings.listen[0] if settings.listen else LOOPBACK


def _split_environment(settings: Settings, ports: Ports) -> dict[str, str]:
    return {
        "OPENTALKING_REDIS_URL": f"redis://{LOOPBACK}:{ports.redis}/0",
        "OPENTALKING_API_HOST": _host(settings),
        "OPENTALKING_API_PORT": str(ports.opentalking),
        "OPENTALKING_WORKER_HOST": LOOPBACK,
        "OPENTALKING_WORKER_PORT": str(ports.worker),
        "OPENTALKING_WORKER_URL": f"http://{LOOPBACK}:{ports.worker}",
    }


def _opentalking_probe(settings: Settings, ports: Ports) -> Probe:
    async def missing() -> str | None:
        if not await get_json(ports.opentalking, "/health"):
            return "/health does not answer"
        answer = await get_json(ports.opentalking, "/models")
        if not answer:
            return "/models does not answer"
        return _model_missing(
            answer, {"id": settings.model, "backend": "omnirt", "connected": True}
        )

    return missing


def _model_missing(answer: Mapping[str, Any], wanted: Mapping[str, object]) -> str | None:
    for status in answer["statuses"]:
        if status["id"] == wanted["id"]:
            unlike = {key: status[key] for key in wanted if status[key] != wanted[key]}
            return f"model {wanted['id']} has {unlike}" if unlike else None
    return f"model {wanted['id']} is not listed"
