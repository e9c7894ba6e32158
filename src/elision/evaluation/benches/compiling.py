"""Compile 10,000 phrases in a fresh process: ``python -m ...compiling MODEL CACHE``."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch

from elision.contract import Context, Here
from elision.evaluation.benches.phrases import made_up
from elision.guards.guard import Guard
from elision.lexicon import TokenizerLexicon
from elision.middleware.models.pull import pull


def main(model: str, cache: str) -> None:
    """Print seconds and megabytes from targets to the first mask."""
    from transformers import AutoTokenizer

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(pull(model, cache=Path(cache)))
    lexicon = TokenizerLexicon.of(tokenizer)
    targets, row = made_up(10_000), torch.zeros(len(lexicon))
    before, start = _resident_mb("VmRSS"), time.perf_counter()
    _forget_peak()
    (mask,) = Guard.compile(targets, epoch=1).recipes(lexicon)
    mask.begin(Context(lexicon=lexicon, vocab_size=len(lexicon))).adjust(row, Here(row))
    seconds = time.perf_counter() - start
    print(json.dumps({"s": round(seconds, 3), "mb": round(_resident_mb("VmHWM") - before, 1)}))


def _forget_peak() -> None:
    """Let the kernel's high-water mark of this process begin anew."""
    Path("/proc/self/clear_refs").write_text("5")


def _resident_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith(field))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
