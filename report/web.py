"""The frame of every page: one self-contained HTML file.

What comes in: a title and the parts of a body. What goes out: a page that needs no network and no
script, follows the reader's light or dark setting, fits a phone and prints in black on white.
It must not know what it shows.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_STYLE: Final = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--soft:#57606a;--line:#d0d7de;--card:#f6f8fa;
--bar:#3867d6;--rule:#b3261e;--c0:#3867d6;--c1:#c2410c;--c2:#15803d;--c3:#7e22ce;--c4:#a16207;
--c5:#0e7490;--good:#15803d;--bad:#b3261e}
@media (prefers-color-scheme:dark){:root{--bg:#0d1117;--fg:#e6edf3;--soft:#9aa4af;--line:#30363d;
--card:#161b22;--bar:#6f9bff;--rule:#ff8a80;--c0:#6f9bff;--c1:#fb923c;--c2:#4ade80;--c3:#c084fc;
--c4:#facc15;--c5:#22d3ee;--good:#4ade80;--bad:#ff8a80}}
*{box-sizing:border-box}body{margin:0 auto;max-width:76rem;padding:1rem;background:var(--bg);
color:var(--fg);font:15px/1.5 system-ui,sans-serif;
overflow-wrap:anywhere}h1{font-size:1.4rem;margin:.2rem 0}
h2{font-size:1.1rem;margin:2rem 0 .6rem}h3{font-size:.95rem;margin:0 0 .4rem}p{margin:.4rem 0}
.soft,.legend{color:var(--soft)}.good{color:var(--good)}.bad{color:var(--bad)}
.warn{border-left:4px solid var(--bad);padding:.4rem .8rem;background:var(--card)}
.grid,.tiles{display:grid;gap:1rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,21rem),1fr))}
.tiles{grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr));gap:.6rem}
.card,.tile,details{background:var(--card);border:1px solid var(--line);border-radius:6px;
padding:.7rem}.tile b{display:block;font-size:1.1rem}.tile span{color:var(--soft);font-size:.85rem}
svg{width:100%;max-width:44rem;height:auto;display:block}
svg text{fill:var(--soft);font:10px system-ui,sans-serif}
.bar{fill:var(--bar)}.tick{stroke:var(--line);stroke-width:.6}
.rule{stroke:var(--rule);stroke-dasharray:3 2}.line{fill:none;stroke-width:1.5}
.c0{stroke:var(--c0);--c:var(--c0)}.c1{stroke:var(--c1);--c:var(--c1)}
.c2{stroke:var(--c2);--c:var(--c2)}.c3{stroke:var(--c3);--c:var(--c3)}
.c4{stroke:var(--c4);--c:var(--c4)}.c5{stroke:var(--c5);--c:var(--c5)}
.dot{fill:var(--c);stroke:none}.legend{font-size:.8rem;display:flex;flex-wrap:wrap;gap:.2rem .8rem}
.legend i{display:inline-block;width:.8rem;height:.2rem;background:var(--c);margin-right:.3rem;
vertical-align:middle}.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:.85rem}
th,td{padding:.25rem .6rem;border-bottom:1px solid var(--line);text-align:left;white-space:nowrap}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}td.wrap{white-space:normal}
dl{display:grid;grid-template-columns:minmax(8rem,auto) 1fr;gap:.2rem 1rem;margin:0}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}details{margin:.4rem 0}
summary{cursor:pointer}
@media (max-width:30rem){dl{grid-template-columns:1fr}dd{margin-bottom:.4rem}}
@media print{:root{color-scheme:light;--bg:#fff;--fg:#000;--soft:#444;--line:#bbb;--card:#fff;
--bar:#444;--rule:#000}body{max-width:none;padding:0;font-size:11px}.card,.tile,details,tr{
break-inside:avoid}.scroll{overflow:visible}th,td{white-space:normal;padding:.1rem .3rem}
.grid{grid-template-columns:1fr 1fr}}
""".replace("\n", "")


def page(title: str, body: Sequence[str]) -> str:
    """The whole file; `body` is HTML."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # Nothing may be fetched, whatever a text of the measured system says.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'; img-src data:\">\n"
        '<link rel="icon" href="data:,">\n'
        f"<title>{text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def text(value: object) -> str:
    """Foreign text as HTML; a character that does not print becomes U+FFFD."""
    line = " ".join(str(value).split())
    return escape("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line))


def table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[str] = frozenset()
) -> str:
    """A table of texts (not HTML); `right` names the columns that hold numbers."""
    if not rows:
        return ""
    mark = ['class="n"' if heading in right else "" for heading in headings]
    head = "".join(f"<th {m}>{text(h)}</th>" for h, m in zip(headings, mark, strict=True))
    lines = ([f"<td {m}>{text(c)}</td>" for c, m in zip(row, mark, strict=True)] for row in rows)
    body = "".join(f"<tr>{''.join(cells)}</tr>" for cells in lines)
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody>'
        "</table></div>"
    )


def card(title: str, *parts: str) -> str:
    """A box with a heading; `parts` are HTML."""
    return f'<div class="card"><h3>{text(title)}</h3>{"".join(parts)}</div>'


def tile(name: str, value: str, below: str) -> str:
    """One number that matters."""
    return f'<div class="tile"><span>{text(name)}</span><b>{text(value)}</b>' + (
        f"<span>{text(below)}</span></div>"
    )


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Names and texts."""
    entries = (f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in pairs)
    return f"<dl>{''.join(entries)}</dl>"
