"""A result → the JSON document `result.json`.

What comes in: a `Result`. What goes out: plain dictionaries in a documented, versioned shape.
It must not know files.

Schema 1. A later version may add members, so readers ignore those they do not know; anything
else raises `schema`. Times are in the unit that stands beside them. Wherever `value` is null,
`reason` says why; otherwise `reason` is null.

- `schema`: 1
- `run`: `id`, `manifest_sha256` (identifies the bundle), `recorded_by`, `synthetic`,
  `stand_ins`, `repeat`
- `verdict`: `status` (`good`, `failed`, `not enough data`), `exit_status` (0, 1, 2), `reason`
- `facts`: name → {`value`, `reason`}: date (UTC), model, backend, hardware, revisions, host, …
- `video`: `resolution`, `fps` and `chunk_ms`, each {`value`, `unit`, `reason`}
- `outcomes`: measured turns by outcome
- `startups`: completed measured turns by startup
- `unphased`: turns that were not the benchmark's and are left out
- `inputs`: how measured inputs were given: `text`, `speech`, `audio_upload`
- `turns`: catalogue key → stage (below) over the completed measured turns
- `sessions`: catalogue key → stage (below) over the sessions with a measured turn
- `whole`: catalogue key → {`value`, `unit`, `reason`} of the run as a whole
- `memory`: `scope` and `device` of the VRAM values, null when none was read
- `memory_forecast`: `value` and `reason`; the value is an entry of `memory_forecast` in the
  bundle's `target.json` (docs/bundle.md)
- `queue_depth`: `reason`, and `series`: list of `label` and statistics
- `drift_bases`: how drift was found
- `clock_uncertainty_seconds`: {`value`, `unit`, `reason`}
- `warmup`: list of turns: `session`, `turn`, `outcome`, `startup`, and `values`:
  catalogue key → {`value`, `unit`, `source`}
- `unfinished`: list of turns: `session`, `turn`, `outcome`, `phase`, `error`, `trace_id`
- `sources`: name → {`up`, `reason`, `dropped`}
- `row`: column of the benchmark page's results table → {`value` (text), `reason`}

A stage: `title`, `kind`, `owner`, `boundaries`, `unit`, `of`, the statistics, `reason` (why
there is no value, or why `of` − `n` records lack it), `sources`, `bases`.
Statistics: `n`, `median`, `p95`, `min`, `max`, `p95_reason` (why `p95` is null).
"""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, Final

from exporter import stages
from report.absence import Missing
from report.result import key_unit, value_source
from report.row import row

if TYPE_CHECKING:
    from exporter.stages import Stage
    from report.records import Turn
    from report.result import Result, StageResult
    from report.summary import Statistics

SCHEMA: Final = 1

Json = dict[str, Any]


def document(result: Result) -> Json:
    """The document; every number in it is finite."""
    facts, video, memory, depth = result.facts, result.video, result.memory, result.queue_depth
    forecast = result.memory_forecast
    return {
        "schema": SCHEMA,
        "run": {
            "id": result.run_id,
            "manifest_sha256": result.manifest_sha256,
            "recorded_by": _value(result.recorded_by),
            "synthetic": result.synthetic,
            "stand_ins": list(result.stand_ins),
            "repeat": _value(result.repeat),
        },
        "verdict": {
            "status": result.verdict.status,
            "exit_status": result.verdict.status.exit_status,
            "reason": result.verdict.reason,
        },
        "facts": {part.name: _value(getattr(facts, part.name)) for part in fields(facts)},
        "video": {
            "resolution": _value(video.resolution, "W×H"),
            "fps": _value(video.fps, "frames/s"),
            "chunk_ms": _value(video.chunk_ms, "ms"),
        },
        "outcomes": dict(result.outcomes),
        "startups": dict(result.startups),
        "unphased": result.unphased,
        "inputs": list(result.inputs),
        "turns": {key: _stage(one) for key, one in result.turns.items()},
        "sessions": {key: _stage(one) for key, one in result.sessions.items()},
        "whole": {
            stage.key: _value(value, key_unit(stage))
            for stage, value in (
                (stages.COLD_START, result.cold_start_s),
                (stages.WARMUP, result.warmup_s),
                (stages.IDLE_VRAM, memory.idle),
                (stages.PEAK_VRAM, memory.peak),
            )
        },
        "memory": {"scope": memory.scope, "device": memory.device},
        "memory_forecast": {"value": None, "reason": forecast.reason}
        if isinstance(forecast, Missing)
        else {"value": asdict(forecast), "reason": None},
        stages.QUEUE_DEPTH.key: {"reason": depth.reason, "series": []}
        if isinstance(depth, Missing)
        else {
            "reason": None,
            "series": [{"label": one.label, **_statistics(one.statistics)} for one in depth],
        },
        "drift_bases": list(result.drift_bases),
        "clock_uncertainty_seconds": _value(result.clock_uncertainty_seconds, "s"),
        "warmup": [_warmup_turn(turn) for turn in result.warmup_turns],
        "unfinished": [_unfinished_turn(turn) for turn in result.unfinished],
        "sources": {name: asdict(health) for name, health in result.sources.items()},
        "row": {column: _value(cell) for column, cell in row(result).items()},
    }


def _value(value: str | float | Missing, unit: str | None = None) -> Json:
    return {
        "value": None if isinstance(value, Missing) else value,
        **({} if unit is None else {"unit": unit}),
        "reason": value.reason if isinstance(value, Missing) else None,
    }


def _stage(one: StageResult) -> Json:
    stage, found = one.stage, one.statistics
    reason = found if isinstance(found, Missing) else one.gap
    return {
        "title": stage.title,
        "kind": stage.kind,
        "owner": stage.owner,
        "boundaries": stage.boundaries,
        "unit": key_unit(stage),
        "of": one.of,
        **_statistics(found),
        "reason": reason.reason if reason else None,
        "sources": list(one.sources),
        "bases": list(one.bases),
    }


def _statistics(found: Statistics | Missing) -> Json:
    if isinstance(found, Missing):
        empty = dict.fromkeys(("median", "p95", "min", "max"))
        return {"n": 0, **empty, "p95_reason": found.reason}
    return {
        "n": found.n,
        "median": found.median,
        "p95": None if isinstance(found.p95, Missing) else found.p95,
        "min": found.minimum,
        "max": found.maximum,
        "p95_reason": found.p95.reason if isinstance(found.p95, Missing) else None,
    }


def _turn(turn: Turn) -> Json:
    return {"session": turn.session, "turn": turn.turn, "outcome": turn.outcome}


def _warmup_turn(turn: Turn) -> Json:
    return {
        **_turn(turn),
        "startup": turn.startup,
        "values": {
            stage.key: _turn_value(stage, turn)
            for stage in stages.STAGES.values()
            if stage.key in turn.values
        },
    }


def _turn_value(stage: Stage, turn: Turn) -> Json:
    return {
        "value": turn.values[stage.key],
        "unit": key_unit(stage),
        "source": value_source(stage, turn) or None,
    }


def _unfinished_turn(turn: Turn) -> Json:
    return {
        **_turn(turn),
        "phase": turn.phase,
        "error": asdict(turn.error) if turn.error else None,
        "trace_id": turn.trace_id,
    }
