"""Rules of the tree that a reviewer would otherwise have to remember."""

import ast
from pathlib import Path

import pytest

from exporter import stages

ROOT = Path(__file__).parent.parent
PACKAGES = ("exporter", "loadgen", "report", "talkscope")
SOURCES = sorted(p for name in PACKAGES for p in (ROOT / name).rglob("*.py"))

# An upstream field of the same name as a stage is a fact of OpenTalking's wire, which one
# module keeps.
WIRE_VOCABULARY = ROOT / "exporter" / "upstream.py"

MAY_IMPORT = {
    "exporter": {"exporter"},
    "loadgen": {"loadgen", "exporter.stages", "exporter.steady_clock"},
    "report": {"report", "exporter.stages", "exporter.gauges"},
    "talkscope": {"talkscope", "exporter", "loadgen", "report"},
}


def _literals(path):
    tree = ast.parse(path.read_text())
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
        and isinstance(node.body[0].value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.lineno, node.value


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_stages_are_named_in_the_catalogue_alone(path):
    if path in (ROOT / "exporter" / "stages.py", WIRE_VOCABULARY):
        return
    names = stages.STAGES.keys() | {s.family for s in stages.STAGES.values() if s.family}
    repeated = [(line, text) for line, text in _literals(path) if text in names]
    assert repeated == []


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            if node.module in PACKAGES:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_packages_import_only_what_the_design_allows(path):
    package = path.relative_to(ROOT).parts[0]
    for module in _imports(path):
        if module.split(".")[0] in PACKAGES:
            allowed = MAY_IMPORT[package]
            assert any(module == a or module.startswith(a + ".") for a in allowed), module


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_module_says_what_room_it_is(path):
    assert ast.get_docstring(ast.parse(path.read_text())), "a module without a docstring"
