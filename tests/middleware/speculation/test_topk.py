from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from elision.middleware.speculation.topk import BLOCK, top_ids, top_k

INF = float("inf")
WIDTHS = [1, 5, 8, BLOCK - 1, 16 * BLOCK, 16 * BLOCK + 1, 17 * BLOCK - 1, 3000, 49_152]

# Eighths tie often, as the scores of a bfloat16 head do.
ties = st.integers(-40, 40).map(lambda n: n / 8)
scores = st.one_of(ties, st.just(-INF), st.just(-0.0), st.floats(-20, 20, width=32))


def slow(row: list[float], k: int) -> list[int]:
    """Best first, equal ones by id; -1 where nothing above -inf is left."""
    ordered = sorted(range(len(row)), key=lambda i: (-row[i], i))
    named = [i if row[i] > -INF else -1 for i in ordered[:k]]
    return named + [-1] * (k - len(named))


def rows(width: int, n: int = 3) -> Tensor:
    draw = torch.Generator().manual_seed(width)
    return torch.randn((n, width), generator=draw) * 4


@given(st.lists(scores, min_size=1, max_size=40), st.integers(1, 12), st.integers(0, 300))
def test_it_is_a_stable_sort_wherever_in_the_row_the_best_stand(
    head: list[float], k: int, shift: int
) -> None:
    row = torch.full((1, 20 * BLOCK + 7), -INF)
    at = torch.arange(len(head)) * 29 % (20 * BLOCK + 7)
    row[0, (at + shift) % row.shape[1]] = torch.tensor(head)
    assert top_ids(row, k)[0].tolist() == slow(row[0].tolist(), k)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("width", WIDTHS)
def test_ids_are_those_of_a_stable_sort_at_every_width(width: int, dtype: torch.dtype) -> None:
    logits = rows(width).to(dtype)
    best = top_ids(logits, 8)
    assert best.dtype == torch.int32
    assert best.tolist() == [slow(row, 8) for row in logits.float().tolist()]


@pytest.mark.parametrize("width", WIDTHS)
def test_scores_are_those_of_topk_and_probabilities_those_of_softmax(width: int) -> None:
    logits, k = rows(width), min(8, width)
    ids, probs = top_k(logits, k)
    assert torch.equal(logits.gather(1, ids.long()), logits.topk(k).values)
    wanted = logits.double().softmax(-1).gather(1, ids.long())
    assert probs.dtype == torch.float32
    torch.testing.assert_close(probs.double(), wanted, rtol=1e-5, atol=1e-9)


def test_of_equal_scores_the_first_is_the_one_that_argmax_chooses() -> None:
    logits = torch.zeros((3, 5000))
    logits[1, [70, 4999]] = 2.0
    logits[2, 4990:] = 2.0
    assert top_ids(logits, 3).tolist() == [[0, 1, 2], [70, 4999, 0], [4990, 4991, 4992]]


def test_a_vocabulary_smaller_than_k_is_filled_up_with_nothing() -> None:
    ids, probs = top_k(torch.tensor([[0.0, 1.0]]), 4)
    assert ids.tolist() == [[1, 0, -1, -1]]
    assert probs[0, :2].sum() == pytest.approx(1.0)
    assert probs[0, 2:].tolist() == [0.0, 0.0]


def test_forbidden_tokens_are_named_nowhere() -> None:
    logits = torch.full((2, 3000), -INF)
    logits[0, [7, 2999]] = torch.tensor([1.0, 3.0])
    ids, probs = top_k(logits, 4)
    assert ids.tolist() == [[2999, 7, -1, -1], [-1, -1, -1, -1]]
    assert probs[0, :2].sum() == pytest.approx(1.0)
    assert not probs[1].any()


@pytest.mark.parametrize("broken", [float("nan"), INF])
def test_a_row_without_a_softmax_has_no_probabilities_and_spoils_no_other(broken: float) -> None:
    logits = rows(3000, n=2)
    whole = top_k(logits[1:], 8)
    logits[0, 5] = broken
    ids, probs = top_k(logits, 8)
    assert ids[0, 0] == 5
    assert not probs[0].any()
    assert torch.equal(ids[1], whole[0][0])
    assert torch.equal(probs[1], whole[1][0])


def test_more_rows_than_are_looked_at_at_a_time_give_what_each_gives_alone() -> None:
    logits = rows(49_152, n=100)
    ids, probs = top_k(logits, 8)
    for row in (0, 84, 85, 86, 99):
        alone = top_k(logits[row : row + 1], 8)
        assert torch.equal(ids[row], alone[0][0])
        torch.testing.assert_close(probs[row], alone[1][0])


def test_scores_are_left_as_they_were() -> None:
    logits = rows(3000)
    before = logits.clone()
    top_k(logits, 8)
    assert torch.equal(logits, before)


def test_rows_that_are_views_of_something_larger_are_read_right() -> None:
    wide = rows(6000)
    strided, turned = wide[:, ::2], wide.t().contiguous().t()
    assert torch.equal(top_ids(strided, 8), top_ids(strided.contiguous(), 8))
    assert torch.equal(top_ids(turned, 8), top_ids(wide, 8))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gpu_names_what_the_cpu_names(dtype: torch.dtype) -> None:
    logits = rows(49_152, n=81).to(dtype)
    ids, probs = top_k(logits.cuda(), 8)
    wanted = top_k(logits, 8)
    assert ids.is_cuda
    assert torch.equal(ids.cpu(), wanted[0])
    torch.testing.assert_close(probs.cpu(), wanted[1])
