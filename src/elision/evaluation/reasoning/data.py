"""The suites' items, read from a folder in the formats of their authors."""

from __future__ import annotations

import ast
import csv
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

import orjson

from elision.errors import ConfigError
from elision.evaluation.reasoning.addition import MOST_TOKENS, ChainSum, chains
from elision.evaluation.tofu.data import read_jsonl

Suite: TypeAlias = Literal["lambada", "memo-trap", "piqa", "gsm8k", "svamp", "addition"]
SUITES: Final[tuple[Suite, ...]] = get_args(Suite)
READ: Final[tuple[Suite, ...]] = ("lambada", "memo-trap", "piqa")
"""Suites whose answers are given and read; those of the others are written."""

_FILES: Final[Mapping[Suite, tuple[str, ...]]] = {
    "lambada": ("lambada/lambada_test.jsonl",),
    "memo-trap": ("memo_trap/1-proverb-ending.csv", "memo_trap/2-proverb-translation.csv"),
    "piqa": ("piqa/valid.jsonl", "piqa/valid-labels.lst"),
    "gsm8k": ("gsm8k/test.jsonl",),
    "svamp": ("svamp/SVAMP.json",),
    "addition": (),
}
_INSTRUCTION: Final = re.compile(r'Write a quote that ends in the word "[^"]*": |.*\nto:\n', re.S)
"""What precedes the proverb in the two files of memo-trap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """An item whose possible answers are given.

    Attributes:
        index: Its place in the suite.
        prompt: Raw text; every option follows it as it stands.
        options: The answers, each with its leading blank; a cloze has one.
        gold: Index of the right one.
        passage: The part of the prompt that context-aware decoding leaves out; none if empty.
    """

    index: int
    prompt: str = field(repr=False)
    options: tuple[str, ...] = field(repr=False)
    gold: int = 0
    passage: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """An item whose answer is written.

    Attributes:
        index: Its place in the suite.
        prompt: What is asked.
        answer: The number that the reply must come to; of a chain of sums, the whole chain.
        raw: Whether the prompt is continued as it stands, rather than put to a chat model.
        most_tokens: What the reply has room for; None leaves it to the run.
    """

    index: int
    prompt: str = field(repr=False)
    answer: str = field(repr=False)
    raw: bool = False
    most_tokens: int | None = None


Item: TypeAlias = Choice | Problem


def suite_named(name: str) -> Suite:
    """Return the suite called *name*.

    Raises:
        ConfigError: If there is none; the message lists those there are.
    """
    for suite in SUITES:
        if suite == name:
            return suite
    raise ConfigError(f"there is no suite {name[:64]!r}; there are: {', '.join(SUITES)}")


def items(suite: Suite, folder: Path | None) -> tuple[Item, ...]:
    """Return every item of *suite* in order.

    Args:
        suite: Which.
        folder: Holds one folder per suite, named as in `_FILES`; ``addition`` needs none.

    Raises:
        ConfigError: If a file is missing or not as expected; the message names it.
    """
    if suite == "addition":
        return tuple(_made_up(chains()))
    if folder is None:
        raise ConfigError(f"the suite {suite!r} needs its files: name their folder with --data")
    files = [folder / name for name in _FILES[suite]]
    if missing := next((file for file in files if not file.is_file()), None):
        raise ConfigError(f"{missing.name} is not in {str(missing.parent)!r}")
    try:
        return _READERS[suite](files)
    except (KeyError, ValueError, TypeError, IndexError, SyntaxError) as exc:
        # The foreign message may quote the row; its kind says enough.
        names = " and ".join(file.name for file in files)
        kind = type(exc).__name__
        raise ConfigError(f"{names}: not in the format of its authors ({kind})") from None


def _lambada(files: list[Path]) -> tuple[Choice, ...]:
    return tuple(_cloze(n, str(row["text"])) for n, row in enumerate(read_jsonl(files[0])))


def _cloze(index: int, text: str) -> Choice:
    prompt, target = text.rstrip().rsplit(maxsplit=1)
    return Choice(index=index, prompt=prompt, options=(f" {target}",))


def _memo_trap(files: list[Path]) -> tuple[Choice, ...]:
    """Return the files' rows by turns, so that the first few items are of both kinds."""
    turns = chain.from_iterable(zip_longest(*map(_table, files)))
    return tuple(_trap(n, row) for n, row in enumerate(row for row in turns if row is not None))


def _table(file: Path) -> Iterator[Mapping[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        yield from csv.DictReader(lines)


def _trap(index: int, row: Mapping[str, str]) -> Choice:
    prompt = row["prompt"]
    if (instruction := _INSTRUCTION.match(prompt)) is None:
        raise ValueError("no instruction")
    options = tuple(str(option) for option in ast.literal_eval(row["classes"]))
    gold = int(row["answer_index"])
    options[gold]
    return Choice(
        index=index, prompt=prompt, options=options, gold=gold, passage=instruction.group()
    )


def _piqa(files: list[Path]) -> tuple[Choice, ...]:
    rows, labels = read_jsonl(files[0]), files[1].read_text().split()
    return tuple(
        Choice(
            index=n,
            prompt=f"Question: {row['goal']}\nAnswer:",
            options=(f" {row['sol1']}", f" {row['sol2']}"),
            gold=int(label),
        )
        for n, (row, label) in enumerate(zip(rows, labels, strict=True))
    )


def _gsm8k(files: list[Path]) -> tuple[Problem, ...]:
    return tuple(
        _asked(n, str(row["question"]), str(row["answer"]).split("####")[1].strip())
        for n, row in enumerate(read_jsonl(files[0]))
    )


def _svamp(files: list[Path]) -> tuple[Problem, ...]:
    rows: list[Mapping[str, Any]] = orjson.loads(files[0].read_bytes())
    return tuple(
        _asked(n, f"{_sentence(row['Body'])} {row['Question']}", f"{float(row['Answer']):g}")
        for n, row in enumerate(rows)
    )


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "?", "!", ",")) else f"{text}."


def _asked(index: int, question: str, answer: str) -> Problem:
    asked = f"{question}\nThink step by step, and end with the answer as a number."
    return Problem(index=index, prompt=asked, answer=answer.replace(",", ""))


def _made_up(sums: Iterator[ChainSum]) -> Iterator[Problem]:
    for n, made in enumerate(sums):
        yield Problem(
            index=n, prompt=made.prompt, answer=made.answer, raw=True, most_tokens=MOST_TOKENS
        )


_READERS: Final[Mapping[Suite, Callable[[list[Path]], tuple[Item, ...]]]] = {
    "lambada": _lambada,
    "memo-trap": _memo_trap,
    "piqa": _piqa,
    "gsm8k": _gsm8k,
    "svamp": _svamp,
}
