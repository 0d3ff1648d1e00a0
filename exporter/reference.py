"""The catalogue → the reference pages of `docs/`.

What comes in: `exporter.stages` and `exporter.attributes`. What goes out: Markdown, written into
the folder that is named. A test compares it with the pages in the tree, so that the two cannot
drift apart.

    python -m exporter.reference docs
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from exporter import attributes, gauges, stages
from exporter.spans import IN_TRACES, span_name
from exporter.stages import Instrument, Scope, Stage

INTRODUCTION = """\
# Metrics

Generated from `exporter/stages.py` and `exporter/gauges.py` by `python -m exporter.reference docs`;
do not edit.

Every quantity has a benchmark name, in the unit of its suffix, and where it is exported a
Prometheus family in base units. *Elementary* stages follow one another along a turn; *composite*
ones span several of them, so they move when any of these moves. What OpenTalking 0.1.0 lets nobody
see is listed with the reason, and is never exported as zero.
"""

LABELS = """\
Histograms carry `model`, `backend` and, for a turn, `startup`: `cold` (first turn after the target
started), `warm` (first turn of a later session) or `steady`. A/V drift is exported as its magnitude
with `leads`: `sound` (positive drift, sound early) or `picture`. No label names a session, a user
or a text; the trace id rides as an exemplar (OpenMetrics).
"""


TRACES = """\
# Traces

Generated from `exporter/stages.py` and `exporter/attributes.py` by `python -m exporter.reference
docs`; do not edit.

One trace a turn, or its part of a trace (see below), sent over OTLP when
`OTEL_EXPORTER_OTLP_ENDPOINT` (or `…_TRACES_ENDPOINT`) is set; `OTEL_EXPORTER_OTLP_PROTOCOL` is
`http/protobuf` (default) or `grpc`, and all standard `OTEL_*` variables are honoured,
`OTEL_TRACES_SAMPLER` among them. The root span `turn` runs from the turn's first mark to its
last; its children are the stages that were seen, with their true start and end, so children lie
inside it and never overlap by more than the clocks' uncertainty. With the agent, each chunk of
the synthesis backend is a span `render_chunk`. A turn is linked to the session's turn before it.
A failed turn has an error status and an event `error`, an interrupted one an event `interrupted`.

**Joining a trace.** Where the agent tells the W3C `traceparent` of the request that asked for a
turn, the span `turn` belongs to that trace as a child of that span. Whether it is kept follows the
flag of the `traceparent` under the default sampler, `parentbased_always_on`, and under every other
`parentbased_…`; a sampler that is not parent-based decides alone. Everything else begins a trace
of its own.

**The language model.** The span `llm_first_token` carries the attributes of OpenTelemetry's
semantic conventions for generative AI (in development there, so their names may still change). It
keeps its own name and ends at the first token that is not blank, where the conventions' span goes
on to the end of the answer: OpenTalking speaks the first sentence while the model still writes.

What a person said or heard never enters a span: there is no attribute for it.
"""


def traces() -> str:
    """The page on spans."""
    parts = [TRACES, "## Spans inside a turn\n"]
    rows = ((f"`{span_name(s)}`", s.boundaries, s.owner) for s in IN_TRACES)
    parts.append("\n".join(_rows(("span", "from → to", "owner"), rows)) + "\n")
    for title, names in (
        ("Attributes of a turn", attributes.ON_TURNS),
        ("Attributes of the spans inside it", attributes.ON_STAGES),
    ):
        parts.append(f"## {title}\n")
        rows_of = ((f"`{name}`", meaning) for name, meaning in names.items())
        parts.append("\n".join(_rows(("attribute", "is"), rows_of)) + "\n")
    parts.append(
        f"Every value of the turn is an attribute too: `{attributes.VALUE_PREFIX}` and its name in "
        "[metrics.md](metrics.md), in the unit of the name's suffix.\n"
    )
    return "\n".join(parts)


def metrics() -> str:
    """The page on metrics."""
    parts = [INTRODUCTION, "## Stages\n", LABELS]
    for scope, title in (
        (Scope.RUN, "The target and a run"),
        (Scope.SESSION, "A session"),
        (Scope.TURN, "A turn"),
    ):
        chosen = [s for s in stages.STAGES.values() if s.scope is scope]
        parts.append(f"### {title}\n")
        parts.append(_table(chosen))
        parts.append("\n".join(_where(chosen)) + "\n")
    parts.append("## Levels\n")
    parts.append(_levels())
    parts.append("## Counts\n")
    parts.append(_counts())
    parts.append("## Marks\n")
    parts.append("\n".join(_rows(("mark", "is the instant when"), stages.MARKS.items())) + "\n")
    return "\n".join(parts)


def _table(chosen: Iterable[Stage]) -> str:
    header = ("name", "kind", "meaning", "boundaries", "owner", "Prometheus family")
    rows = (
        (
            f"`{s.key}`",
            s.kind,
            s.meaning,
            s.boundaries,
            s.owner,
            _family(s),
        )
        for s in chosen
    )
    return "\n".join(_rows(header, rows)) + "\n"


def _family(stage: Stage) -> str:
    if stage.instrument is Instrument.REPORT_ONLY:
        return "report only"
    suffix = "_total" if stage.instrument is Instrument.COUNTER else ""
    return f"`{stage.family}{suffix}` ({stage.instrument})"


def _where(chosen: Iterable[Stage]) -> Iterator[str]:
    yield "Where each can be seen:\n"
    for stage in chosen:
        if stage.unseen:
            yield f"- `{stage.key}`: nowhere. {stage.unseen}."
            continue
        for sight in stage.sights:
            needs = f"; needs {sight.needs}" if sight.needs else ""
            yield f"- `{stage.key}`: {sight.source}: {sight.where}{needs}."


def _levels() -> str:
    header = ("Prometheus family", "labels", "meaning")
    rows = (
        (f"`{g.exported}`", ", ".join(f"`{n}`" for n in g.labels) or "none", g.meaning)
        for g in gauges.GAUGES.values()
    )
    return "\n".join(_rows(header, rows)) + "\n"


def _counts() -> str:
    header = ("Prometheus family", "labels", "meaning")
    rows = (
        (f"`{c.family}_total`", ", ".join(f"`{n}`" for n in c.labels) or "none", c.meaning)
        for c in gauges.COUNTS
    )
    return "\n".join(_rows(header, rows)) + "\n"


def _rows(header: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    names = list(header)
    yield "| " + " | ".join(names) + " |"
    yield "|" + " --- |" * len(names)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


PAGES: Final = {"metrics.md": metrics, "traces.md": traces}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (Path(sys.argv[1]) / name).write_text(page(), encoding="utf-8")
