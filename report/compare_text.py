"""A comparison → Markdown, also readable in a terminal.

What comes in: a `Comparison`. What goes out: text. It must not compute anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from report import page
from report.absence import Missing
from report.compare import METRIC_SIDE, SIDE, Conclusion
from report.figures import figure
from report.result import MOCK_MODEL, key_unit
from report.tables import inline, table

if TYPE_CHECKING:
    from report.compare import Attribution, Change, Comparison
    from report.result import Result

METHOD: Final = (
    "Shift: Hodges-Lehmann estimate with its 95 % confidence interval from Mann-Whitney's U "
    f"(of more than {METRIC_SIDE} values a side, {METRIC_SIDE} spread evenly; {SIDE} where no "
    "verdict rests on them). The verdict rests on the declared metric and on the rate of failed "
    "turns, each at 2.5 %; p of the stages is corrected for their number by Holm. Parts are "
    "differences of means, intervals corrected by Bonferroni."
)

_BETWEEN: Final = "between the stages"
_NUMBERS: Final = frozenset({"n", "before", "after", "shift", "95 % CI", "change", "p", "part"})


def render(found: Comparison, *, github: bool = False) -> str:
    """The whole comparison; with `github` as a step summary. Ends with a newline."""
    before, after = found.names
    lines = [
        f"{'## ' if github else ''}Verdict: {found.conclusion}"
        + (f" ({found.metric.key})" if found.metric else ""),
        "",
        f"{_sentence(found)}",
        "",
        f"- A: {inline(before)}: {_described(found.results[0])}",
        f"- B: {inline(after)}: {_described(found.results[1])}",
        f"- failed turns: {_share(found.failures.before)} → {_share(found.failures.after)}",
        *(f"- differs: {inline(text)}" for text in found.mismatches),
        *_warnings(found),
        "",
    ]
    if not isinstance(found.attribution, Missing):
        lines += [*_attribution(found, found.attribution), ""]
    elif found.conclusion is not Conclusion.INVALID:
        lines += [f"No attribution: {inline(found.attribution.reason)}.", ""]
    if found.changes:
        stages = _stages(found)
        lines += (
            ["<details><summary>All stages</summary>", "", *stages, "", "</details>", ""]
            if github
            else [*stages, ""]
        )
    if found.missing:
        reasons: dict[str, list[str]] = {}
        for key, reason in found.missing.items():
            reasons.setdefault(reason, []).append(f"`{key}`")
        lines += ["Not compared:", ""]
        lines += [f"- {', '.join(keys)}: {inline(reason)}" for reason, keys in reasons.items()]
        lines.append("")
    return "\n".join([*lines, METHOD]) + "\n"


def _sentence(found: Comparison) -> str:
    change = found.primary
    if change is None or found.least is None:
        return inline(found.reason).capitalize() + "."
    unit = key_unit(change.stage)
    reason = inline(found.reason)
    return (
        f"{change.stage.title}: {figure(change.median[0])} → {figure(change.median[1])} {unit}, "
        f"shift {_signed(change.found.estimate)} {unit} "
        f"(95 % CI {_signed(change.found.low)} to {_signed(change.found.high)}), "
        f"n = {change.n[0]} and {change.n[1]}; least change that matters: "
        f"{figure(found.least)} {unit}. {reason[:1].upper()}{reason[1:]}."
    )


def _described(result: Result) -> str:
    facts = result.facts
    parts = (facts.model, facts.backend, facts.hardware, facts.date, facts.opentalking)
    return " / ".join("unknown" if isinstance(part, Missing) else inline(part) for part in parts)


def _share(failures: tuple[int, int]) -> str:
    return f"{failures[0]} of {failures[1]}"


def _warnings(found: Comparison) -> list[str]:
    if any(r.facts.model == MOCK_MODEL for r in found.results):
        return [f"- **{page.MOCK}**"]
    if any(r.synthetic for r in found.results):
        return [f"- **{page.SYNTHETIC}**"]
    return []


def _attribution(found: Comparison, of: Attribution) -> list[str]:
    assert found.metric is not None
    unit = key_unit(found.metric)
    main = of.main
    if main is None:
        head = "No single stage is certain to have moved."
    else:
        name = f"`{main.stage.key}`" if main.stage else _BETWEEN
        head = f"{name} explains {main.share:.0%} of the change of the mean."
    rows = [
        [
            f"`{part.stage.key}`" if part.stage else _BETWEEN,
            _signed(part.change),
            f"{_signed(part.low)} to {_signed(part.high)}",
            f"{part.share:.0%}",
            unit,
        ]
        for part in of.parts
    ]
    return [
        f"Which stage: the mean of `{found.metric.key}` moved by {_signed(of.change)} {unit} "
        f"(over {of.n[0]} and {of.n[1]} turns that have every part). {head}",
        "",
        *table(("stage", "change", "95 % CI", "part", "unit"), rows, _NUMBERS),
    ]


def _stages(found: Comparison) -> list[str]:
    headings = ("stage", "n", "before", "after", "shift", "95 % CI", "p", "unit", "moved")
    return table(headings, [_row(change) for change in found.changes], _NUMBERS)


def _row(change: Change) -> list[str]:
    moved = "no"
    if change.moved:
        better = {"lower": change.found.estimate < 0, "higher": change.found.estimate > 0}
        moved = "better" if better.get(change.stage.better, change.found.estimate < 0) else "worse"
    return [
        f"`{change.stage.key}`",
        f"{change.n[0]}, {change.n[1]}",
        figure(change.median[0]),
        figure(change.median[1]),
        _signed(change.found.estimate),
        f"{_signed(change.found.low)} to {_signed(change.found.high)}",
        f"{change.p:.2g}",
        key_unit(change.stage),
        moved,
    ]


def _signed(value: float) -> str:
    return f"+{figure(value)}" if value > 0 else figure(value)
