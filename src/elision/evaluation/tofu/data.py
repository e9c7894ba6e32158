"""TOFU's data sets, read from a folder in the formats of their authors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeAlias, get_args

import orjson

from elision.errors import ConfigError
from elision.evaluation.metrics.text import is_short

Subset: TypeAlias = Literal["forget", "paraphrased", "retain", "real_authors", "world_facts"]
SUBSETS: Final[tuple[Subset, ...]] = get_args(Subset)
UTILITY_SETS: Final[tuple[Subset, ...]] = ("retain", "real_authors", "world_facts")
ROWS_PER_AUTHOR: Final = 20

_FILES: Final[Mapping[Subset, str]] = {
    "forget": "forget10_perturbed.jsonl",
    "paraphrased": "forget10_perturbed.jsonl",
    "retain": "retain_perturbed.jsonl",
    "real_authors": "real_authors_perturbed.jsonl",
    "world_facts": "world_facts_perturbed.jsonl",
}
_SPANS: Final = "forget10_entity_spans_uds.jsonl"
_NAMES: Final = "forget10_author_names.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One row of a subset.

    Attributes:
        index: Its row in the file.
        question: What is asked.
        answer: The gold answer.
        paraphrase: The gold answer in other words; the answer itself where there is none.
        wrong: Wrong answers.
    """

    index: int
    question: str = field(repr=False)
    answer: str = field(repr=False)
    paraphrase: str = field(repr=False)
    wrong: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Author:
    """One of the authors to forget, with the rows that ask about him."""

    name: str = field(repr=False)
    rows: range


@dataclass(frozen=True, slots=True, kw_only=True)
class Tofu:
    """The forget10 task.

    Attributes:
        items: By subset, every row in order. ``paraphrased`` asks the forget questions in other
            words.
        spans: By forget row, the secret part of its gold answer; not every row has one.
        authors: In the order of the rows.
    """

    items: Mapping[Subset, tuple[Item, ...]] = field(repr=False)
    spans: Mapping[int, str] = field(repr=False)
    authors: tuple[Author, ...]

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the task from *folder*.

        Raises:
            ConfigError: If a file is missing or not as expected; the message names it.
        """
        items: dict[Subset, tuple[Item, ...]] = {
            subset: _items(folder / _FILES[subset], subset) for subset in SUBSETS
        }
        spans = {int(row["idx"]): str(row["entity"]) for row in read_jsonl(folder / _SPANS)}
        return cls(
            items=items, spans=spans, authors=_authors(folder / _NAMES, len(items["forget"]))
        )

    @property
    def registered(self) -> Mapping[int, str]:
        """The spans that are long enough to be phrases of a target, by forget row."""
        return {index: span for index, span in self.spans.items() if not is_short(span)}

    @property
    def short(self) -> Mapping[int, str]:
        """The other spans: short ones stand in ordinary answers too."""
        return {index: span for index, span in self.spans.items() if is_short(span)}

    def chosen(self, subset: Subset, limit: int | None) -> tuple[Item, ...]:
        """Return at most *limit* rows of *subset*, evenly spaced from the first on.

        Never a whole number of authors apart: the rows of an author always come in the same order,
        so every row would ask the same of another author.
        """
        rows = self.items[subset]
        if limit is None or limit >= len(rows):
            return rows
        step = -(-len(rows) // limit)
        return rows[:: step + (step % ROWS_PER_AUTHOR == 0)]

    def targets(self, *, answers: bool = True) -> list[dict[str, Any]]:
        """Return one target per author, as the fields of ``Client.forget``.

        Args:
            answers: Whether the gold answers are registered; the semantic layer compares with them.
        """
        return [self._target(author, answers=answers) for author in self.authors]

    def _target(self, author: Author, *, answers: bool) -> dict[str, Any]:
        rows = [self.items["forget"][index] for index in author.rows]
        phrases = dict.fromkeys(s for i, s in self.registered.items() if i in author.rows)
        fields: dict[str, Any] = {
            "title": f"TOFU forget10, rows {author.rows.start} to {author.rows.stop - 1}",
            "phrases": [*phrases],
            "kind": "person",
            "names": [author.name],
            "probes": [row.question for row in rows],
            "action": "restrict",
        }
        return fields | ({"answers": [row.answer for row in rows]} if answers else {})


def read_jsonl(file: Path) -> list[dict[str, Any]]:
    """Return the objects of *file*, one per line.

    Raises:
        ConfigError: If it is missing, or a line is no JSON object.
    """
    try:
        rows = [orjson.loads(line) for line in file.read_bytes().splitlines() if line.strip()]
    except FileNotFoundError as exc:
        raise ConfigError(f"{file.name} is not in {str(file.parent)!r}") from exc
    except orjson.JSONDecodeError as exc:
        raise ConfigError(f"{file.name} has a line that is no JSON") from exc
    if not all(isinstance(row, dict) for row in rows):
        raise ConfigError(f"{file.name} has a line that is no JSON object")
    return rows


def _items(file: Path, subset: Subset) -> tuple[Item, ...]:
    question = "paraphrased_question" if subset == "paraphrased" else "question"
    try:
        return tuple(_item(n, row, question) for n, row in enumerate(read_jsonl(file)))
    except KeyError as exc:
        raise ConfigError(f"{file.name} has a row without {exc.args[0]!r}") from exc


def _item(index: int, row: Mapping[str, Any], question: str) -> Item:
    return Item(
        index=index,
        question=str(row[question]),
        answer=str(row["answer"]),
        paraphrase=str(row.get("paraphrased_answer", row["answer"])),
        wrong=_texts(row["perturbed_answer"]),
    )


def _texts(value: str | Iterable[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _authors(file: Path, n_rows: int) -> tuple[Author, ...]:
    try:
        names = orjson.loads(file.read_bytes())["Name"]
    except (OSError, KeyError, TypeError, orjson.JSONDecodeError) as exc:
        raise ConfigError(f"{file.name} must hold an object with the list 'Name'") from exc
    if len(names) * ROWS_PER_AUTHOR != n_rows:
        raise ConfigError(f"{file.name} names {len(names)} authors for {n_rows} forget rows")
    starts = range(0, n_rows, ROWS_PER_AUTHOR)
    return tuple(
        Author(name=str(name), rows=range(start, start + ROWS_PER_AUTHOR))
        for name, start in zip(names, starts, strict=True)
    )
