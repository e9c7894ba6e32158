"""The documentation: what it shows is run, what it names exists, what it links to is there.

A page's Python blocks are one program, run from top to bottom in a process of its own; a text
block behind one is what it prints, with ``...`` for what differs from run to run. A comment before
a block says what it needs::

    <!-- needs: model -->    the pulled smollm2-135m
    <!-- needs: server -->   a gateway before it, on the documented address
    <!-- needs: nothing -->  a console block whose commands run in an empty home
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md")))
if not (ROOT / "docs").is_dir():
    pytest.skip("the documentation is not beside these tests", allow_module_level=True)

FENCE = re.compile(
    r"(?:^<!--\s*(?P<mark>[^>]*?)\s*-->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
DOCUMENTED = "127.0.0.1:8000"
END_OF_BLOCK = "\x1e"
PLAIN = {"ELISION_DTYPE": "float32", "ELISION_THREADS": "1", "COLUMNS": "120", "NO_COLOR": "1"}


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: Path
    line: int
    language: str
    mark: str
    code: str
    printed: str | None

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def needs(self) -> str:
        return self.mark.removeprefix("needs: ") if self.mark.startswith("needs: ") else ""


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = list(FENCE.finditer(text))
    return [
        Block(
            page=page,
            line=text.count("\n", 0, match.start("code")) + 1,
            language=match["language"],
            mark=match["mark"] or "",
            code=match["code"],
            printed=_printed(text, match, behind),
        )
        for match, behind in pairwise([*found, None])
    ]


def _printed(text: str, block: re.Match[str], behind: re.Match[str] | None) -> str | None:
    if behind is None or behind["language"] != "text" or text[block.end() : behind.start()].strip():
        return None
    return behind["code"]


BLOCKS = [block for page in PAGES for block in blocks(page)]
CONSOLE = [b for b in BLOCKS if b.language == "console"]


def pages_with(needs: str, *, languages: tuple[str, ...] = ("python", "console")) -> list[Any]:
    """Return the pages that have such blocks which need *needs*, as parameters."""
    pages = {b.page for b in BLOCKS if b.language in languages and b.needs == needs}
    return [pytest.param(page, id=str(page.relative_to(ROOT))) for page in sorted(pages)]


def run_page(page: Path, needs: str, home: Path, address: str = DOCUMENTED) -> None:
    """Run a page's blocks that need nothing or *needs*, and compare what each of them prints."""
    chosen = [b for b in blocks(page) if b.language == "python" and b.needs in ("", needs)]
    program = home.parent / f"{page.stem}.py"
    program.write_text(_program(chosen).replace(DOCUMENTED, address), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, program], env=environment(home), cwd=home.parent,
        capture_output=True, text=True, encoding="utf-8", timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for block, said in zip(chosen, done.stdout.split(f"{END_OF_BLOCK}\n"), strict=False):
        if block.printed is not None:
            assert_alike(said, block.printed, str(block))


def _program(chosen: list[Block]) -> str:
    """Return the blocks on the lines that they have on their page, as tracebacks tell them."""
    lines: list[str] = []
    for block in chosen:
        lines += [""] * (block.line - 1 - len(lines))
        lines += block.code.splitlines()
        lines.append(f"print({END_OF_BLOCK!r})")
    return "\n".join(lines) + "\n"


def environment(home: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("ELISION_")}
    cache = {k: v for k, v in os.environ.items() if k == "ELISION_CACHE"}
    beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**kept, **cache, **PLAIN, "PATH": beside, "ELISION_HOME": str(home),
            "PYTHONUTF8": "1", "PYTHONSAFEPATH": "1"}  # fmt: skip


def assert_alike(said: str, documented: str, where: str) -> None:
    parts = (re.escape(part) for part in re.split(r"\s*\.\.\.\s*", documented.strip()))
    pattern = ".*?".join(parts)
    assert re.fullmatch(pattern, said.strip(), re.DOTALL), f"{where} prints\n{said}"


# --- Python --------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", pages_with("", languages=("python",)))
def test_a_page_runs_and_prints_what_it_says(page: Path, home: Path) -> None:
    run_page(page, "", home)


@pytest.mark.model
@pytest.mark.parametrize("page", pages_with("model"))
def test_a_page_runs_on_the_real_model(page: Path, home: Path, smollm2_dir: Path) -> None:
    run_page(page, "model", home)


# --- shell ---------------------------------------------------------------------------------------


def commands(block: Block) -> list[tuple[str, str]]:
    """Return a console block's commands, each with the output that is shown behind it."""
    found: list[tuple[str, str]] = []
    whole = True
    for line in block.code.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], ""))
        elif whole:
            found[-1] = (found[-1][0], f"{found[-1][1]}{line}\n")
        else:
            found[-1] = (f"{found[-1][0]}\n{line}", "")
        whole = _is_whole(found[-1][0])
    return found


def _is_whole(command: str) -> bool:
    try:
        shlex.split(command, comments=True)
    except ValueError:
        return False
    return not command.endswith("\\")


def run_console(page: Path, mark: str, home: Path, address: str = DOCUMENTED) -> None:
    """Run a page's console blocks marked *mark* in one shell, and compare what is printed."""
    chosen = [c for b in blocks(page) if b.language == "console" and b.mark == mark
              for c in commands(b)]  # fmt: skip
    script = f"\nprintf '{END_OF_BLOCK}\\n'\n".join(command for command, _ in chosen)
    script = script.replace("localhost:8000", DOCUMENTED).replace(DOCUMENTED, address)
    done = subprocess.run(
        ["bash", "-c", script], env=environment(home), cwd=home.parent,
        capture_output=True, text=True, encoding="utf-8", timeout=240,
    )  # fmt: skip
    said = done.stdout.split(f"{END_OF_BLOCK}\n")
    for (command, documented), output in zip(chosen, said, strict=True):
        assert_alike(output, documented, f"{page.name}: {command}\n{done.stderr}")


@pytest.mark.parametrize("page", pages_with("nothing", languages=("console",)))
def test_commands_print_what_a_page_says(page: Path, home: Path) -> None:
    run_console(page, "needs: nothing", home)


@pytest.mark.model
@pytest.mark.parametrize("page", pages_with("server"))
def test_a_server_answers_what_a_page_says(page: Path, home: Path, server: str) -> None:
    run_console(page, "needs: server", home, server)
    run_page(page, "server", home, server)


@pytest.fixture
def server(home: Path, served: Any) -> Iterator[str]:
    """Return the address of a gateway whose register is empty."""
    from elision.middleware.assembly import around
    from elision.middleware.gateway.serve import Listener
    from elision.settings import Settings

    up = threading.Event()
    settings = Settings(home=home, port=0)
    listener = Listener(around(served, settings), settings, announce=lambda _: up.set())
    thread = threading.Thread(target=listener.run, daemon=True)
    thread.start()
    assert up.wait(30)
    yield listener.url.removeprefix("http://")
    listener.should_exit = True
    thread.join(30)


@pytest.fixture(scope="module")
def served(smollm2_dir: Path) -> Any:
    """Return an engine factory's product that outlives the gateways before it."""
    import torch

    from elision.middleware.engines.causal import CausalModel
    from elision.middleware.engines.local import LocalEngine

    class Shared(LocalEngine):
        async def aclose(self) -> None:
            """Stay open for the next page's gateway."""

    model = CausalModel.load(smollm2_dir, name="smollm2-135m", dtype=torch.float32)
    engine = Shared(model)
    yield engine
    engine._worker.close()
    engine._worker.join()


@pytest.mark.parametrize("block", CONSOLE, ids=str)
def test_every_command_of_ours_exists_with_its_options(block: Block) -> None:
    import click
    import typer

    from elision.cli import app

    for command, _ in commands(block):
        words = shlex.split(command, comments=True)
        if words[:1] != ["elision"]:
            continue
        found: Any = typer.main.get_command(app)
        context, words = None, words[1:]
        while hasattr(found, "commands"):
            name, *words = words
            assert name in found.commands, f"{block}: there is no {name!r}"
            context, found = click.Context(found, parent=context), found.commands[name]
        found.make_context(found.name, words, parent=context)


# --- what is named -------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "json"], ids=str)
def test_json_is_json(block: Block) -> None:
    json.loads(block.code)


def test_every_block_says_what_it_is() -> None:
    known = {"python", "console", "json", "mermaid", "text", "yaml", ""}
    assert {str(b): b.language for b in BLOCKS if b.language not in known} == {}
    marks = {"", "needs: nothing", "needs: model", "needs: server"}
    assert {str(b): b.mark for b in BLOCKS if b.mark not in marks} == {}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    for link in LINK.findall(prose):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        aim = (page.parent / name).resolve() if name else page
        assert aim.exists(), f"{link} leads nowhere"
        assert aim.is_relative_to(ROOT), f"{link} leaves the repository"
        if anchor:
            assert anchor in anchors(aim), f"{link} names no heading"


def anchors(page: Path) -> set[str]:
    """Return the names that headings have in a rendered page."""
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_command_has_its_heading() -> None:
    import typer

    from elision.cli import app

    def names(command: Any, path: str) -> Iterator[str]:
        if not hasattr(command, "commands"):
            yield path
        for name, inner in getattr(command, "commands", {}).items():
            yield from names(inner, f"{path} {name}")

    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    shown = re.findall(r"^## `(.+)`$", page, re.MULTILINE)
    assert sorted(shown) == sorted(names(typer.main.get_command(app), "elision"))


def test_every_route_is_documented_with_its_methods(tmp_path: Path) -> None:
    from elision.guards.register.register import Register
    from elision.middleware.gateway.app import create_app
    from elision.middleware.pipeline import Pipeline
    from elision.settings import Settings

    pipeline = Pipeline(engines={}, register=Register.open(tmp_path))
    paths = create_app(pipeline, Settings(home=tmp_path)).openapi()["paths"]
    page = (ROOT / "docs" / "gateway.md").read_text(encoding="utf-8")
    missing = [f"{method.upper()} {path}" for path, methods in paths.items() for method in methods
               if f"`{method.upper()} {path}`" not in page]  # fmt: skip
    assert missing == []
    pipeline.register.close()


def test_every_metric_is_documented() -> None:
    from elision.middleware.gateway.metrics import Metrics

    page = (ROOT / "docs" / "gateway.md").read_text(encoding="utf-8")
    names = re.findall(r"^# TYPE (elision_\w+)", Metrics().expose().decode(), re.MULTILINE)
    assert [n for n in names if not n.endswith("_created") and f"`{n}`" not in page] == []


def test_every_decision_has_its_three_parts() -> None:
    pages = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [int(page.name[:3]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        headings = re.findall(r"^## (\w+)", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert headings == ["Context", "Decision", "Consequence"], page.name
