"""The live line and the closing lines of a run: an `Account` in, text out. Pure but for the clock.

Times are of the last 30 s, errors and freezes of the whole run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from exporter import stages
from exporter.stages import Stage
from loadgen.load.account import SHOWN, Account, summary
from loadgen.load.health import quantile
from loadgen.load.verdict import flags

_WORST_SHOWN = 5


def live(account: Account, elapsed: float) -> str:
    """One line on how the run goes."""
    parts = [
        f"{sum(w.sessions for w in account.workers.values())} sessions",
        f"{sum(w.speaking for w in account.workers.values())} speaking",
        f"{account.turns} turns",
        _times("TTFA", account, stages.PERCEIVED_TTFA),
        _times("TTFV", account, stages.PERCEIVED_TTFV),
        _median("drift", account, stages.AV_DRIFT, "ms"),
        _median("FPS", account, stages.PLAYBACK_FPS, ""),
        f"freezes {'-' if account.freezes is None else account.freezes}",
        f"errors {account.errors}",
        f"generator {_generator(account)}",
    ]
    return f"[{elapsed:5.0f} s] " + ", ".join(parts)


def closing(account: Account, content: Mapping[str, Any]) -> list[str]:
    """What the run amounts to."""
    outcomes = ", ".join(f"{n} {outcome}" for outcome, n in content["turns"].items())
    lines = [
        f"visits {content['visits']}, sessions opened {content['sessions_opened']}, "
        f"turns: {outcomes or 'none'}"
        + (f", {content['turns_cut_off']} cut off by the end" if content["turns_cut_off"] else "")
    ]
    for stage in SHOWN:
        values = account.all(stage)
        if values:
            told = summary(values)
            unit = "ms" if stage.key.endswith("_ms") else ""
            figures = "  ".join(f"{name} {told[name]:.0f}" for name in ("p50", "p95", "p99", "max"))
            lines.append(f"  {stage.title:18} {figures} {unit} (n {told['n']})")
        lines += _found(stage, content)
    failures = list(content["failures"].items())
    lines += [f"  {count} × {message}" for message, count in failures[:_WORST_SHOWN]]
    if len(failures) > _WORST_SHOWN:
        lines.append(f"  and {len(failures) - _WORST_SHOWN} other kinds of failure")
    lines += [f"lost: {loss}" for loss in content["losses"]]
    for orphan in content["orphans"]:
        name = orphan["session"] or "of unknown id"
        lines.append(f"orphan: session {name} may still be on the target: {orphan['reason']}")
    verdict = content["verdict"]
    lines.append(f"verdict: {verdict['text']}")
    if verdict["advice"]:
        reasons = ", ".join(f"{flag} in {n} windows" for flag, n in verdict["reasons"].items())
        lines.append(f"  {reasons}, of {verdict['windows']}")
        lines.append(f"  advice: {verdict['advice']}")
    return lines


def _found(stage: Stage, content: Mapping[str, Any]) -> list[str]:
    """How a stage was found, and why it was not in some turns."""
    found, absent = (content[what].get(stage.key, {}) for what in ("bases", "absent"))
    bases = ", ".join(f"{basis} ({turns})" for basis, turns in found.items())
    lines = [f"    by: {bases}"] if bases else []
    for why, turns in list(absent.items())[:_WORST_SHOWN]:
        name = "" if found else f"{stage.title}: "
        lines.append(f"    {name}not measured in {turns} turns: {why}")
    return lines


def _times(name: str, account: Account, stage: Stage) -> str:
    values = account.recent(stage)
    if not values:
        return f"{name} -"
    return f"{name} p50 {quantile(values, 0.5):.0f} p95 {quantile(values, 0.95):.0f} ms"


def _median(name: str, account: Account, stage: Stage, unit: str) -> str:
    values = account.recent(stage)
    return f"{name} {quantile(values, 0.5):.1f} {unit}".rstrip() if values else f"{name} -"


def _generator(account: Account) -> str:
    latest = [worker.windows[-1] for worker in account.workers.values() if worker.windows]
    if not latest:
        return "-"
    seen = sorted({str(flag) for window in latest for flag in flags(window)})
    return f"late: {', '.join(seen)}" if seen else "ok"
