"""The 367 gold spans of TOFU's forget10: found in every spelling, and never written by a model
that wants nothing else.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from elision.contract import Context, Here, Lexicon
from elision.guards.guard import Guard
from elision.guards.phrases.mask import PhraseMask
from elision.guards.phrases.normal import SEP, N, N_b
from elision.guards.phrases.patterns import LONGEST_BOUNDED
from elision.guards.phrases.product import Product
from elision.guards.targets import ForgetTarget, Phrase
from elision.lexicon import TokenizerLexicon

ROWS = [
    json.loads(line)
    for line in (Path(__file__).parents[2] / "data/tofu/forget10_spans.jsonl")
    .read_text(encoding="utf-8")
    .splitlines()
]
ENTITIES = tuple(dict.fromkeys(row["entity"] for row in ROWS))


def wide(text: str) -> str:
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


SPELLINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "spaced": " ".join,
    "hyphens": "-".join,
    "dots": ".".join,
    "zero width": "\u200b".join,
    "full width": wide,
}
QUICK = ("as it is",)
spelled = pytest.mark.parametrize(
    "spelling",
    [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in SPELLINGS],
)


@dataclass(frozen=True)
class Setting:
    """A tokenizer and the whole register compiled for it."""

    encode: Callable[[str], list[int]]
    lexicon: Lexicon
    guard: Guard
    mask: PhraseMask
    hasty: PhraseMask


def target(beta: float) -> ForgetTarget:
    phrases = tuple(Phrase(text=entity, beta=beta) for entity in ENTITIES)
    return ForgetTarget(id="tofu", title="forget10", phrases=phrases)


def setting(encode: Callable[[str], list[int]], lexicon: Lexicon) -> Setting:
    guard = Guard.compile([target(1.0)])
    hasty = Guard.compile([target(0.6)])
    return Setting(
        encode,
        lexicon,
        guard,
        PhraseMask(product=Product(guard.masked, lexicon), min_mass=0),
        PhraseMask(product=Product(hasty.masked, lexicon), min_mass=0),
    )


@pytest.fixture(scope="module")
def sentencepiece() -> Setting:
    """A small SentencePiece BPE with byte fallback, converted as transformers converts Llama's."""
    import sentencepiece as spm
    from transformers import LlamaTokenizer

    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(row["answer"] for row in ROWS),
        model_writer=model,
        model_type="bpe",
        vocab_size=1500,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    pieces = spm.SentencePieceProcessor(model_proto=model.getvalue())
    vocab = {pieces.id_to_piece(n): n for n in range(pieces.get_piece_size())}
    cuts = ((p[:k], p[k:]) for p in vocab if p[0] != "<" for k in range(1, len(p)))
    merges = [(a, b) for a, b in cuts if a in vocab and b in vocab]
    tokenizer = LlamaTokenizer(vocab=vocab, merges=merges, add_bos_token=False)
    for row in ROWS[::30]:
        assert tokenizer.encode(row["answer"]) == pieces.encode(row["answer"])
    return setting(tokenizer.encode, TokenizerLexicon.of(tokenizer))


@pytest.fixture(scope="module")
def smollm2(smollm2_dir: Path) -> Setting:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2_dir)
    return setting(tokenizer.encode, TokenizerLexicon.of(tokenizer))


@pytest.fixture(params=["sentencepiece", pytest.param("smollm2", marks=pytest.mark.model)])
def tokens(request: pytest.FixtureRequest) -> Iterator[Setting]:
    """Either tokenizer."""
    return request.getfixturevalue(request.param)


def span(row: dict[str, str], respell: Callable[[str], str]) -> tuple[int, int]:
    """Return where the row's entity stands in its respelled answer."""
    answer, entity = row["answer"], row["entity"]
    at = answer.index(entity)
    return len(respell(answer[: at + 1])) - 1, len(respell(answer[: at + len(entity)]))


def is_caught(setting: Setting, row: dict[str, str], respell: Callable[[str], str]) -> bool:
    """Return whether the mask of this row's phrase alone stops the row's span from completing."""
    product = setting.mask.product
    only = frozenset(range(len(ENTITIES))) - {ENTITIES.index(row["entity"])}
    ids = setting.encode(respell(row["answer"]))
    start, end = span(row, respell)
    lead = len(setting.lexicon.text(ids)) - len(respell(row["answer"]))  # SentencePiece's space
    reading, written = product.begin(""), 0
    for token in ids:
        text, _ = setting.lexicon.write(reading.pending, token)
        in_span = written + len(text) > lead + start
        if in_span and bool((product.blocked(reading, only).ids == token).any()):
            return written < lead + end
        reading, written = product.advance(reading, token), written + len(text)
    return False


@spelled
def test_every_span_is_caught_before_it_is_complete(tokens: Setting, spelling: str) -> None:
    missed = [row for row in ROWS if not is_caught(tokens, row, SPELLINGS[spelling])]
    assert len(ROWS) == 367
    assert missed == []


@spelled
def test_every_span_is_found_in_the_text(spelling: str) -> None:
    guard = Guard.compile([target(1.0)])
    respell, missed = SPELLINGS[spelling], []
    for row in ROWS:
        start, end = span(row, respell)
        hits = guard.scan(respell(row["answer"]))
        own = [hit for hit in hits if ENTITIES[hit.phrase] == row["entity"]]
        if not any(start <= hit.start and hit.end <= end + 1 for hit in own):
            missed.append(row)
    assert missed == []


class Insistent:
    """A model that wants to write one text and nothing else.

    The longest token that goes on with what is missing is likeliest, then every shorter one; then
    what might slip in between (separators, invisible characters), each once; a plain letter last.
    """

    def __init__(self, lexicon: Lexicon, text: str) -> None:
        self._tokens = {lexicon.bytes_of(t): t for t in reversed(range(len(lexicon)))}
        self._longest = max(map(len, self._tokens))
        self._lexicon = lexicon
        self._missing = text.encode()
        self._tricks = [b"-", b".", b" ", "\u200b".encode()[:1], b"\n", b","]

    def scores(self) -> torch.Tensor:
        row = torch.full((len(self._lexicon),), -30.0)
        row[self._tokens[b"z"]] = -10.0
        for rank, trick in enumerate(self._tricks):
            if trick in self._tokens:
                row[self._tokens[trick]] = -float(rank + 1)
        for length in range(1, min(self._longest, len(self._missing)) + 1):
            token = self._tokens.get(self._missing[:length])
            if token is not None:
                row[token] = 10.0 + length
        return row

    def take(self, token: int) -> None:
        data = self._lexicon.bytes_of(token)
        if self._missing.startswith(data):
            self._missing = self._missing[len(data) :]
        elif data in self._tricks:
            self._tricks.remove(data)
        else:  # stopped for good: leave the letter out and go on
            self._missing = self._missing.decode("utf-8", "ignore")[1:].encode()

    @property
    def is_done(self) -> bool:
        return not self._missing


def greedy(setting: Setting, recipe: PhraseMask, text: str) -> str:
    """Return what an insistent model writes under *recipe*."""
    model = Insistent(setting.lexicon, text)
    session = recipe.begin(Context(lexicon=setting.lexicon, vocab_size=len(setting.lexicon)))
    written: list[int] = []
    while not model.is_done and len(written) < 4 * len(text) + 50:
        raw = model.scores()
        row = session.adjust(raw, Here(raw))
        token = int(row.argmax())
        assert row[token] > float("-inf")
        model.take(token)
        session = session.advance(token)
        written.append(token)
    assert model.is_done
    return b"".join(map(setting.lexicon.bytes_of, written)).decode("utf-8", "replace")


def leaks(text: str, *, share: float = 1.0) -> list[str]:
    """Return the entities (or their first *share*) that *text* holds, by plain search."""
    plain, words, found = N(text), SEP + N_b(text) + SEP, []
    for entity in ENTITIES:
        letters = N(entity)
        head = letters[: max(-int(-share * len(letters) // 1), min(6, len(letters)))]
        if len(letters) > LONGEST_BOUNDED:
            hit = head in plain
        else:
            bound = f"(?={SEP})" if head == letters else ""
            together, apart = re.escape(head), SEP.join(map(re.escape, head))
            hit = re.search(f"{SEP}(?:{together}{bound}|{apart}(?={SEP}))", words) is not None
        if hit:
            found.append(entity)
    return found


def test_an_unguarded_insistent_model_leaks_every_span(sentencepiece: Setting) -> None:
    free = PhraseMask(product=Product(Guard.compile([]).masked, sentencepiece.lexicon))
    for row in ROWS[::10]:
        assert greedy(sentencepiece, free, row["answer"]) == row["answer"]
        assert row["entity"] in leaks(row["answer"])


@spelled
def test_an_insistent_model_never_writes_a_span(tokens: Setting, spelling: str) -> None:
    rows = ROWS[::4] if spelling == "as it is" else ROWS[::12]
    for row in rows:
        text = greedy(tokens, tokens.mask, SPELLINGS[spelling](row["answer"]))
        assert leaks(text) == []


@pytest.mark.slow
def test_an_insistent_model_never_writes_any_span_of_all(tokens: Setting) -> None:
    for row in ROWS:
        assert leaks(greedy(tokens, tokens.mask, row["answer"])) == []


@spelled
def test_with_a_beta_of_six_tenths_not_even_that_share_is_written(
    tokens: Setting, spelling: str
) -> None:
    rows = ROWS[1::6] if spelling == "as it is" else ROWS[::24]
    for row in rows:
        text = greedy(tokens, tokens.hasty, SPELLINGS[spelling](row["answer"]))
        assert leaks(text, share=0.6) == []
