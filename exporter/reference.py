"""The catalogue → `docs/metrics.md`.

What comes in: `exporter.stages`. What goes out: Markdown on standard output. A test compares it
with the file in the tree, so that the two cannot drift apart.

    python -m exporter.reference > docs/metrics.md
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from exporter import stages
from exporter.stages import Instrument, Scope, Stage

INTRODUCTION = """\
# Metrics

Generated from `exporter/stages.py` by `python -m exporter.reference`; do not edit.

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


def render() -> str:
    """The whole page."""
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
    return f"`{stage.family}` ({stage.instrument})"


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
        (f"`{g.family}`", ", ".join(f"`{n}`" for n in g.labels) or "none", g.meaning)
        for g in stages.GAUGES.values()
    )
    return "\n".join(_rows(header, rows)) + "\n"


def _counts() -> str:
    header = ("Prometheus family", "labels", "meaning")
    rows = (
        (f"`{c.family}_total`", ", ".join(f"`{n}`" for n in c.labels) or "none", c.meaning)
        for c in stages.COUNTS
    )
    return "\n".join(_rows(header, rows)) + "\n"


def _rows(header: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    names = list(header)
    yield "| " + " | ".join(names) + " |"
    yield "|" + " --- |" * len(names)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


if __name__ == "__main__":
    print(render(), end="")
