"""The house: what may be imported, how big a room may grow, what must be documented."""

from __future__ import annotations

import ast
import importlib
import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import elision
from elision import errors
from elision.errors import ElisionError

ROOT = Path(__file__).parent.parent
PACKAGE = Path(elision.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
HEAVY = ("torch", "transformers", "faiss", "vllm", "langchain_core", "fastapi", "numpy")
MAX_FILE, MAX_FUNCTION = 300, 60
LONGER = {
    "contract.py": "every room's nouns in one place is its point",
}


def python(code: str, cwd: Path) -> str:
    env = {**os.environ, "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=env, check=True, capture_output=True, text=True
    )
    return done.stdout


def test_importing_elision_imports_nothing_heavy(tmp_path: Path) -> None:
    code = "import sys, json, elision; dir(elision); print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(python(code, tmp_path))
    assert [name for name in HEAVY if name in loaded] == []


@pytest.mark.parametrize("name", ["agents", "guards", "memory", "middleware"])
def test_the_links_in_the_root_are_no_modules(name: str) -> None:
    code = f"import importlib.util; print(importlib.util.find_spec({name!r}))"
    assert python(code, ROOT).strip() == "None"


def test_the_face_has_at_most_twenty_names_and_each_is_there() -> None:
    assert len(elision.__all__) <= 20
    assert elision.__all__ == sorted(elision.__all__)
    for name in elision.__all__:
        assert getattr(elision, name) is not None


def test_an_unknown_name_of_the_face_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = elision.nonsense


def test_every_module_can_be_imported() -> None:
    for module in pkgutil.walk_packages([str(PACKAGE)], "elision."):
        if ".migrations." not in module.name:
            importlib.import_module(module.name)


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_a_file_can_be_read_standing_up(file: Path) -> None:
    if file.name not in LONGER:
        assert len(file.read_text().splitlines()) <= MAX_FILE


def test_functions_are_short() -> None:
    lengths = {
        f"{file.relative_to(PACKAGE)}:{node.name}": _body_lines(node)
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    ordered = sorted(lengths.values())
    assert ordered[len(ordered) // 2] <= 8
    assert ordered[int(0.9 * len(ordered))] <= 25
    assert {name: n for name, n in lengths.items() if n > MAX_FUNCTION} == {}


def _body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = node.body[1:] if ast.get_docstring(node) else node.body
    return (node.end_lineno or 0) - body[0].lineno + 1 if body else 0


def leaves() -> list[type[ElisionError]]:
    return [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, ElisionError)
    ]


def test_every_error_is_drawn_in_the_tree_and_documented() -> None:
    pages = (ROOT / "docs" / "errors.md").read_text()
    for error in leaves():
        assert error.__name__ in (errors.__doc__ or "")
        assert f"`{error.__name__}`" in pages


def test_every_setting_has_a_heading_in_the_docs() -> None:
    from elision.settings import Settings

    page = (ROOT / "docs" / "settings.md").read_text()
    for name in Settings.model_fields:
        assert f"### `{name}`" in page


def test_every_profile_bench_and_intervention_is_documented() -> None:
    from elision.evaluation.bench import BENCHES
    from elision.middleware.interventions import INTERVENTIONS
    from elision.middleware.profiles import PROFILES

    pages = "\n".join(page.read_text() for page in (ROOT / "docs").rglob("*.md"))
    for name in (*PROFILES, *BENCHES, *INTERVENTIONS):
        assert f"`{name}`" in pages
