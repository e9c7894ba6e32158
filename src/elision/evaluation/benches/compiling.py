"""Compile 10,000 phrases in a fresh process: ``python -m ...compiling MODEL CACHE``."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import torch

from elision.contract import Context, Here
from elision.evaluation.benches.phrases import made_up
from elision.guards.guard import Guard
from elision.lexicon import TokenizerLexicon
from elision.middleware.engines.pull import pull


def main(model: str, cache: str) -> None:
    """Print seconds and megabytes from targets to the first mask."""
    from transformers import AutoTokenizer

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(pull(model, cache=Path(cache)))
    lexicon = TokenizerLexicon.of(tokenizer)
    targets, row = made_up(10_000), torch.zeros(len(lexicon))
    before, start = _peak_mb(), time.perf_counter()
    (mask,) = Guard.compile(targets, epoch=1).recipes(lexicon)
    mask.begin(Context(lexicon=lexicon, vocab_size=len(lexicon))).adjust(row, Here(row))
    seconds = time.perf_counter() - start
    print(json.dumps({"s": round(seconds, 3), "mb": round(_peak_mb() - before, 1)}))


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
