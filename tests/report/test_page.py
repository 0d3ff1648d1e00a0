"""The wording is the benchmark page's, character by character."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import report
from exporter import stages
from report import page

FIXTURES = Path(__file__).parent / "fixtures"
MODULES = sorted(Path(report.__file__).parent.glob("*.py"))


def lines(name: str) -> list[str]:
    return (FIXTURES / name).read_text(encoding="utf-8").splitlines()


def test_template_lines_are_the_pages_in_its_order() -> None:
    title = page.TITLE.format(
        model="<model>", backend="<backend>", hardware="<hardware>", date="<date>"
    )
    assert [title, *map(page.bullet, page.TEMPLATE)] == lines("page-result-template.txt")


def test_columns_are_the_pages_twenty_headings_in_its_order() -> None:
    header, *_ = lines("page-test-results.txt")
    assert f"| {' | '.join(page.Column)} |" == header
    assert len(page.Column) == 20


def test_quoted_sentences_are_the_pages() -> None:
    quoted = [f"- {sentence}" for sentence in (*page.DEVICE_MEMORY, page.MOCK)]
    assert quoted == lines("page-sentences.txt")


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_no_module_spells_a_mark(module: Path) -> None:
    strings = {
        node.value
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert not strings & set(stages.MARKS)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_a_report_needs_little_but_the_standard_library(module: Path) -> None:
    # A bundle outlives the environment that recorded it.
    # Two packages of long standing are worth the half minute they save on a million turns.
    ours = {"report", "exporter", "msgspec", "numpy"}
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            assert name.partition(".")[0] in ours | sys.stdlib_module_names
