"""Class balance and the loss."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloom.training.weights import balance, balanced_mse


def batch(seed: int, positives: float, counted: float = 0.7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    targets = (torch.rand((2, 3, 5, 6, 7), generator=generator) < positives).float()
    return targets, torch.rand((2, 1, 5, 6, 7), generator=generator) < counted


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0.12, 0.88))
def test_both_classes_weigh_the_same(seed: int, positives: float) -> None:
    targets, mask = batch(seed, positives)
    weights = balance(targets, mask)
    assert weights.shape == targets.shape
    assert weights.dtype == torch.float32
    counts = mask.expand_as(targets)
    assert not weights[~counts].any()
    for weight, target, count in zip(weights, targets, counts, strict=True):
        ones, zeros = weight[count & (target == 1)], weight[count & (target == 0)]
        assert ones.unique().numel() == zeros.unique().numel() == 1
        torch.testing.assert_close(ones.sum(), zeros.sum(), rtol=1e-4, atol=0)
        torch.testing.assert_close(weight[count].mean(), torch.tensor(1.0))
        frequency = len(ones) / (len(ones) + len(zeros))
        torch.testing.assert_close(ones[0], torch.tensor(1 / (2 * frequency)))


@pytest.mark.parametrize(("positives", "clipped"), [(0.0, 0.05), (0.01, 0.05), (0.99, 0.95), (1.0, 0.95)])
def test_rare_classes_are_held_at_one_in_twenty(positives: float, clipped: float) -> None:
    targets, mask = batch(1, positives)
    weights = balance(targets, mask)
    expected = torch.where(targets == 1, 1 / (2 * clipped), 1 / (2 * (1 - clipped))) * mask
    torch.testing.assert_close(weights, expected.float())


def test_masks_may_be_numbers_or_empty() -> None:
    targets, mask = batch(2, 0.5)
    assert torch.equal(balance(targets, mask.float()), balance(targets, mask))
    assert not balance(targets, torch.zeros_like(mask)).any()


def test_the_loss_is_the_weighted_mean_of_what_counts() -> None:
    targets, mask = batch(3, 0.3)
    generator = torch.Generator().manual_seed(0)
    prediction = torch.rand(targets.shape, generator=generator).requires_grad_()
    weights = balance(targets, mask)
    counts = mask.expand_as(targets)
    error = weights * (prediction - targets) ** 2
    expected = torch.stack([e[c].double().mean() for e, c in zip(error, counts, strict=True)]).mean()
    loss = balanced_mse(prediction, targets, weights)
    torch.testing.assert_close(loss.double(), expected)
    loss.backward()
    assert prediction.grad is not None
    assert not prediction.grad[~counts].any()
    assert prediction.grad[counts].all()


def test_the_loss_takes_weights_of_one_channel_and_ignores_nan_where_masked_out() -> None:
    targets, mask = batch(4, 0.3)
    prediction = torch.full_like(targets, 0.5, requires_grad=True)
    plain = balanced_mse(prediction, targets, mask.float())
    torch.testing.assert_close(plain, torch.tensor(0.25))
    hidden = targets.masked_fill(~mask, float("nan"))
    loss = balanced_mse(prediction, hidden, mask.float())
    loss.backward()
    assert loss == plain
    assert prediction.grad is not None
    assert prediction.grad.isfinite().all()


def test_the_loss_of_nothing_is_zero_and_can_be_learned_from() -> None:
    prediction = torch.rand((1, 1, 2, 2, 2), requires_grad=True)
    loss = balanced_mse(prediction, torch.zeros(prediction.shape), torch.zeros(prediction.shape))
    loss.backward()
    assert loss == 0
