"""Whatever exists in code has its place in the documentation: a heading or a row of a table."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

import elision

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
if not DOCS.is_dir():
    pytest.skip("the documentation is not beside these tests", allow_module_level=True)

SOURCES = [file.read_text("utf-8") for file in Path(elision.__file__).parent.rglob("*.py")]
PAGES = {page.relative_to(DOCS).as_posix(): page.read_text("utf-8") for page in DOCS.rglob("*.md")}
NO_CODES = frozenset({"ok"})
"""Words that are called a code and are no error's."""


def places(text: str) -> str:
    """Return the headings and rows of a page: where a thing is told of, not only named."""
    told = re.findall(r"^(?:#+ .*|\|.*)$", text, re.MULTILINE)
    return "\n".join(told)


PLACES = "\n".join(places(text) for text in PAGES.values())


def untold(names: Iterable[str], text: str = PLACES) -> list[str]:
    return sorted({name for name in names if f"`{name}`" not in text})


# --- what is asked for ----------------------------------------------------------------------------


def test_every_setting_has_its_heading_and_its_variable() -> None:
    from elision.settings import Settings

    page = PAGES["settings.md"]
    for name in Settings.model_fields:
        assert f"### `{name}`\n" in page
        assert f"`ELISION_{name.upper()}`" in page


def test_every_variable_of_the_environment_is_told() -> None:
    wanted = re.compile(r"\bELISION_[A-Z][A-Z_]*[A-Z]\b")
    named = {name for text in SOURCES for name in wanted.findall(text)}
    assert named - set(wanted.findall("\n".join(PAGES.values()))) == set()


def test_every_option_of_a_command_is_in_its_section_or_among_those_of_all() -> None:
    page = PAGES["cli.md"]
    sections = dict(re.findall(r"^## `(.+?)`$(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    of_all = page[: page.index("\n## ")]
    missing = [
        f"{name} {' '.join(flags)}"
        for name, command in commands()
        for flags in map(_flags, command.params)
        if flags and not any(flag in sections[name] + of_all for flag in flags)
    ]
    assert missing == []


def _flags(option: Any) -> list[str]:
    if getattr(option, "hidden", False) or option.name == "help":
        return []
    return [flag for flag in (*option.opts, *option.secondary_opts) if flag.startswith("--")]


def commands() -> Iterator[tuple[str, Any]]:
    import typer

    from elision.cli import app

    def inner(command: Any, path: str) -> Iterator[tuple[str, Any]]:
        if not hasattr(command, "commands"):
            yield path, command
        for name, below in getattr(command, "commands", {}).items():
            yield from inner(below, f"{path} {name}")

    return inner(typer.main.get_command(app), "elision")


def test_every_target_of_make_is_told() -> None:
    makefile = (ROOT / "Makefile").read_text()
    [targets] = re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert untold(f"make {target}" for target in targets.split()) == []


def test_every_extra_is_told() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert untold(project["optional-dependencies"], places(PAGES["quickstart.md"])) == []


# --- what decodes --------------------------------------------------------------------------------


def test_every_profile_and_bench_has_its_row() -> None:
    from elision.evaluation.bench import BENCHES
    from elision.middleware.profiles import PROFILES

    assert untold(PROFILES) == []
    assert untold(BENCHES) == []


def test_every_intervention_has_its_row() -> None:
    from elision.middleware.interventions import INTERVENTIONS

    assert untold(INTERVENTIONS) == []


def test_every_method_of_guidance_has_its_row_with_its_keys() -> None:
    from elision.middleware.guidance import METHODS

    rows = places(PAGES["gateway.md"])
    assert untold(METHODS, rows) == []
    assert untold((key for method in METHODS.values() for key in method.keys), rows) == []


# --- what the gateway says ------------------------------------------------------------------------


def test_every_field_of_a_request_for_text_is_told() -> None:
    from elision.middleware.gateway import completion_shapes
    from elision.middleware.gateway.shapes import NAMED

    assert completion_shapes.CHAT["$ref"].endswith("/ChatRequest")
    text = "\n".join(PAGES.values())
    fields = {**NAMED["ChatRequest"]["properties"], **NAMED["CompletionRequest"]["properties"]}
    assert untold(fields, text) == []
    assert untold(NAMED["Elision"]["properties"], places(PAGES["gateway.md"])) == []


def test_every_code_of_an_error_is_told() -> None:
    given = re.compile(r"""\bcode(?:: [^=\n]+)? ?= ?"([a-z_]+)\"""")
    third = re.compile(r"""\b(?:reject|RequestError)\([^()]*, "([a-z]+(?:_[a-z]+)+)"\)""")
    found = {code for text in SOURCES for one in (given, third) for code in one.findall(text)}
    assert {"queue_full", "schema_too_complex", "role_missing"} <= found
    assert untold(found - NO_CODES, PAGES["errors.md"]) == []


def test_every_role_and_every_state_of_a_target_is_told() -> None:
    from elision.guards.targets import Action, Kind, State
    from elision.settings import ROLES

    assert untold(ROLES, places(PAGES["audit.md"])) == []
    assert untold(get_args(State), PAGES["gateway.md"]) == []
    assert untold((*get_args(Action), *get_args(Kind)), places(PAGES["gateway.md"])) == []


# --- the pages ------------------------------------------------------------------------------------


def test_every_page_is_listed() -> None:
    listed = set(re.findall(r"\]\(([\w/.-]+\.md)\)", PAGES["index.md"]))
    pages = {name for name in PAGES if not name.startswith("decisions/")} - {"index.md"}
    assert pages - listed == set()


def test_every_example_is_told() -> None:
    text = "\n".join([*PAGES.values(), (ROOT / "README.md").read_text("utf-8")])
    examples = sorted((ROOT / "examples").glob("*.py"))
    assert [file.name for file in examples if f"examples/{file.name}" not in text] == []
