"""The wording of OpenTalking's benchmark page, as data.

What comes in: nothing. What goes out: the lines of the page's result template, the headings
of its results table and the sentences a report must repeat, character by character.
It must not know any value. Metric names are the catalogue's.

Source: the sections "Result Template", "How to Interpret Results", "WSL2 VRAM Statistics Fix"
and "Test Results" of that page.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from exporter import stages
from exporter.stages import Stage


class Fact(StrEnum):
    """The template's lines that are not metrics."""

    OPENTALKING = "OpenTalking commit:"
    BACKEND = "backend commit or service version:"
    HARDWARE = "hardware:"
    MODEL = "model and weights:"
    AVATAR = "avatar:"
    AUDIO = "input audio:"
    STARTUP = "cold start or warm state:"
    NOTES = "notes:"


TITLE: Final = "### {model} / {backend} / {hardware} / {date}"
"""The template's title; the page writes the four fields in angle brackets."""

TEMPLATE: Final[tuple[Fact | Stage, ...]] = (
    Fact.OPENTALKING,
    Fact.BACKEND,
    Fact.HARDWARE,
    Fact.MODEL,
    Fact.AVATAR,
    Fact.AUDIO,
    Fact.STARTUP,
    stages.SESSION_CREATE,
    stages.LLM_FIRST_TOKEN_LATENCY,
    stages.TTS_FIRST_PCM_LATENCY,
    stages.AVATAR_FIRST_FRAME_LATENCY,
    stages.WEBRTC_FIRST_FRAME,
    stages.RENDER_FPS,
    stages.AV_DRIFT,
    Fact.NOTES,
)
"""The template's bullets in the page's order."""


class Column(StrEnum):
    """The headings of the results table, in the page's order."""

    DATE = "Date"
    MODEL = "Model"
    TECHNIQUE = "Technique"
    BACKEND = "Backend"
    HARDWARE = "Hardware"
    OS = "OS"
    DRIVER = "Driver"
    COMMIT = "commit (opentalking + omnirt)"
    INPUT = "Input"
    RESOLUTION = "Resolution"
    FPS = "FPS"
    CHUNK = "Chunk size"
    COLD_START = "Cold start/s"
    WARMUP = "Warmup/s"
    TTFA = "TTFA/ms"
    TTFV = "TTFV/ms"
    FIRST_TURN = "First-turn total/ms"
    STEADY_FPS = "Steady FPS"
    IDLE_VRAM = "Idle VRAM/GB"
    PEAK_VRAM = "Peak VRAM/GB"


class UpstreamColumn(StrEnum):
    """The headings of the `result.csv` that OpenTalking's own benchmark script writes."""

    DATE = "测试日期"
    TESTER = "测试人"
    MODEL = "模型"
    TECHNIQUE = "技术路线"
    BACKEND = "backend"
    HARDWARE = "硬件"
    OS = "OS"
    DRIVER = "驱动环境"
    COMMIT = "commit"
    INPUT = "输入类型"
    RESOLUTION = "输出分辨率"
    FPS = "输出 FPS"
    CHUNK = "chunk size"
    COLD_START = "冷启动时间"
    WARMUP = "预热时间"
    TTFA = "TTFA"
    TTFV = "TTFV"
    FIRST_TURN = "首轮总延迟"
    STEADY_FPS = "稳态 FPS"
    RTF = "RTF"
    IDLE_VRAM = "idle 显存"
    PEAK_VRAM = "推理峰值显存"


MOCK: Final = (
    "A Mock run only proves orchestration works; it does not prove talking-head performance."
)
"""What a reader of a run with OpenTalking's mock model must know."""

SYNTHETIC: Final = (
    "A run on a synthetic runtime only proves orchestration works; "
    "it does not prove talking-head performance."
)
"""The same for a run whose model output is made up; the page does not know that case."""

DEVICE_MEMORY: Final = (
    "This is not per-process VRAM;",
    "This is the delta of full-GPU VRAM relative to baseline during the benchmark run;",
    "Do not run other CUDA programs during the benchmark.",
)
"""The page's caveat for WSL2, where memory cannot be had by process."""


def bullet(line: Fact | Stage) -> str:
    """A template line up to and with its colon."""
    return f"- `{line.key}`:" if isinstance(line, Stage) else f"- {line}"
