"""A result → the JSON document `result.json`.

What comes in: a `Result`. What goes out: plain dictionaries in a documented, versioned shape.
It must not know files.

Schema 1. A later version may add members, so readers ignore those they do not know; anything
else raises `schema`. Times are in the unit that stands beside them. Wherever `value` is null,
`reason` says why; otherwise `reason` is null.

- `schema`: 1
- `run`: `id`, `manifest_sha256` (identifies the bundle; null for a window of Prometheus),
  `origin` (what the numbers were read from), `invalid` (why the run measured its generator, or
  null), `remarks`, `recorded_by`, `synthetic`, `stand_ins`, `repeat`
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
- `references`: published rows that were asked for: `name`, `section`, `origin`, `words`, `cells`
  (column → the page's text), `mismatches` (in what the settings differ)
- `external`: results of the backends' own tools: `tool`, `file`, `sha256`, `figures`
- `objectives`: `claim`, `status` (`pass`, `fail`, `not enough data`), `evidence`

A stage: `title`, `kind`, `owner`, `boundaries`, `unit`, `of`, the statistics, `reason` (why
there is no value, or why `of` − `n` records lack it), `sources`, `bases`.
Statistics: `n`, `mean`, `median`, `p95`, `p99`, `min`, `max`, `p95_reason`, `p99_reason` (why it
is null), `confidence` (quantile → [low, high], its 95 % interval, or null with too few values),
`within` (quantile → [low, high] where the exact one lies, when read from a histogram, else null).
The same as JSON Schema: `docs/result.schema.json`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, Final

from exporter import stages
from report.absence import Missing
from report.extras import NOTHING, Extras
from report.published import origin
from report.result import key_unit
from report.row import row
from report.turn_table import value_source

if TYPE_CHECKING:
    from exporter.stages import Stage
    from report.records import Turn
    from report.result import Result, StageResult
    from report.summary import Quantile, Statistics
    from report.values import Interval

SCHEMA: Final = 1

Json = dict[str, Any]


def document(result: Result, extras: Extras = NOTHING) -> Json:
    """The document; every number in it is finite."""
    facts, video, memory, depth = result.facts, result.video, result.memory, result.queue_depth
    forecast = result.memory_forecast
    return {
        "schema": SCHEMA,
        "run": {
            "id": result.run_id,
            "manifest_sha256": _text(result.manifest_sha256),
            "origin": result.origin,
            "invalid": result.invalid,
            "remarks": list(result.remarks),
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
        "references": [
            {
                "name": one.published.name,
                "section": one.published.section,
                "origin": origin(),
                "words": one.published.words or None,
                "cells": dict(one.published.cells),
                "mismatches": list(one.mismatches),
            }
            for one in extras.references
        ],
        "external": [
            {
                "tool": one.tool,
                "file": one.file,
                "sha256": one.sha256,
                "figures": dict(one.figures),
            }
            for one in extras.externals
        ],
        "objectives": [asdict(one) for one in extras.checks],
    }


def _text(value: str | Missing) -> str | None:
    return None if isinstance(value, Missing) else value


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
        return {
            "n": 0,
            **dict.fromkeys(("mean", "median", "p95", "p99", "min", "max")),
            "p95_reason": found.reason,
            "p99_reason": found.reason,
            "confidence": None,
            "within": None,
        }
    quantiles = {"median": found.p50, "p95": found.p95, "p99": found.p99}
    return {
        "n": found.n,
        "mean": found.mean,
        **{name: None if isinstance(q, Missing) else q.value for name, q in quantiles.items()},
        "min": _number(found.minimum),
        "max": _number(found.maximum),
        "p95_reason": found.p95.reason if isinstance(found.p95, Missing) else None,
        "p99_reason": found.p99.reason if isinstance(found.p99, Missing) else None,
        "confidence": {name: _confidence(q) for name, q in quantiles.items()},
        "within": None
        if found.p50.within is None
        else {
            name: None if isinstance(q, Missing) or q.within is None else _ends(q.within)
            for name, q in quantiles.items()
        },
    }


def _number(value: float | Missing) -> float | None:
    return None if isinstance(value, Missing) else value


def _confidence(quantile: Quantile | Missing) -> list[float | None] | None:
    if isinstance(quantile, Missing) or isinstance(quantile.confidence, Missing):
        return None
    return _ends(quantile.confidence)


def _ends(interval: Interval) -> list[float | None]:
    """JSON has no infinity: an end that is not known is null."""
    return [end if math.isfinite(end) else None for end in (interval.low, interval.high)]


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
