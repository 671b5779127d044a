"""The three losses and the balancer."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from model.training.losses import (
    MAX_CONTRAST_PAIRS,
    REVERSED,
    SAME,
    SAME_FROM,
    SAME_TO,
    UNRELATED,
    LogVariances,
    couple_labels,
    focal_loss,
    log_sum,
    moved_loss,
    shift_contrast,
    shift_labels,
    shift_loss,
)


def test_same_shift_is_decided_before_reversed_shift() -> None:
    """The published code called two equal "no shift" pairs reversed (a->a against a->a)."""
    shifts = torch.tensor([0 * 3 + 0, 0 * 3 + 0, 0 * 3 + 1, 1 * 3 + 0, 2 * 3 + 2])
    relation = couple_labels(shifts, 3)
    assert relation[0, 1] == SAME
    assert relation[2, 2] == SAME
    assert relation[2, 3] == REVERSED
    assert relation[0, 2] == SAME_FROM
    assert relation[0, 3] == SAME_TO
    assert relation[0, 4] == UNRELATED
    assert torch.equal(relation, relation.T)


def test_focal_loss_without_focus_is_cross_entropy() -> None:
    logits, labels = torch.randn(9, 4, generator=seeded()), torch.arange(9) % 4
    weight = torch.tensor([1.0, 2.0, 0.5, 3.0])
    for class_weight in (None, weight):
        mine = focal_loss(logits, labels, gamma=0.0, class_weight=class_weight)
        assert mine.item() == pytest.approx(
            F.cross_entropy(logits, labels, weight=class_weight).item(), rel=1e-5
        )
    smooth = focal_loss(logits, labels, gamma=0.0, smoothing=0.1)
    expected = F.cross_entropy(logits, labels, label_smoothing=0.1)
    assert smooth.item() == pytest.approx(expected.item(), rel=1e-5)


def test_focus_lowers_the_share_of_what_is_already_right() -> None:
    right, wrong = torch.tensor([[5.0, 0.0]]), torch.tensor([[0.0, 5.0]])
    label = torch.tensor([0])
    plain = focal_loss(right, label, gamma=0.0) / focal_loss(wrong, label, gamma=0.0)
    focused = focal_loss(right, label, gamma=2.0) / focal_loss(wrong, label, gamma=2.0)
    assert focused < plain


def test_rows_without_a_label_count_for_nothing() -> None:
    logits, labels = torch.randn(4, 3, generator=seeded()), torch.tensor([0, -1, 2, -1])
    known = focal_loss(logits[[0, 2]], labels[[0, 2]])
    assert focal_loss(logits, labels).item() == pytest.approx(known.item())
    pairs = torch.tensor([[0, 1], [0, 2]])
    assert shift_labels(labels, pairs, 3).tolist() == [-1, 2]


@pytest.mark.parametrize("pairs", [0, 1])
def test_without_pairs_the_losses_are_zero_and_differentiable(pairs: int) -> None:
    """The published code crashed on a batch without a same-speaker pair."""
    vectors = torch.randn(pairs, 6, requires_grad=True)
    logits = torch.randn(pairs, 9, requires_grad=True)
    shifts = torch.full((pairs,), -1)
    contrast = shift_contrast(vectors, shifts, classes=3, generator=seeded())
    loss = contrast + shift_loss(logits, shifts) + moved_loss(logits, shifts, 3)
    torch.autograd.backward(loss)
    assert loss.item() == 0.0
    assert vectors.grad is not None
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_the_moved_loss_is_that_of_one_minus_the_trace() -> None:
    logits = torch.randn(5, 9, generator=seeded(), dtype=torch.float64)
    shifts = torch.tensor([0, 1, 4, 5, -1])  # stays, moves, stays, moves, unlabelled
    joint = logits.softmax(1).reshape(5, 3, 3)
    moved = 1 - joint.diagonal(dim1=1, dim2=2).sum(1)
    stated = torch.stack((1 - moved[0], moved[1], 1 - moved[2], moved[3]))
    expected = -stated.log().mean().item()
    assert moved_loss(logits, shifts, 3).item() == pytest.approx(expected)


def test_contrast_without_wide_couples_equals_the_plain_formula() -> None:
    vectors = torch.randn(6, 5, generator=seeded(), dtype=torch.float64)
    shifts = torch.tensor([0, 1, 3, 0, 8, 3])
    mine = shift_contrast(vectors, shifts, classes=3, generator=seeded(1))
    order = torch.randperm(6, generator=seeded(1))
    relation = couple_labels(shifts[order], 3)
    couples, kinds = [], []
    for q in range(6):
        for r in range(6):
            if q != r:
                couples.append(torch.cat((vectors[order[q]], vectors[order[r]])))
                kinds.append(int(relation[q, r]))
    unit = F.normalize(torch.stack(couples), dim=1)
    scores = (unit @ unit.T / 0.07).exp()
    total, weights = torch.zeros((), dtype=torch.float64), 0.0
    for i, kind in enumerate(kinds):
        others = [j for j in range(len(kinds)) if j != i]
        alike = [j for j in others if kinds[j] == kind]
        if alike:
            weight = len(kinds) / kinds.count(kind)
            total = total - weight * (scores[i, alike].sum() / scores[i, others].sum()).log()
            weights += weight
    assert mine.item() == pytest.approx((total / weights).item(), rel=1e-9)


def test_contrast_is_lower_when_couples_that_shift_alike_are_close() -> None:
    shifts = torch.arange(12) % 4
    apart = torch.randn(12, 8, generator=seeded())
    close = torch.eye(4, 8)[shifts] + 0.01 * apart
    low = shift_contrast(close, shifts, classes=2, generator=seeded(1))
    high = shift_contrast(apart, shifts, classes=2, generator=seeded(1))
    assert low < high


def test_many_pairs_are_sampled_down_and_stay_finite() -> None:
    vectors = torch.randn(300, 4, requires_grad=True)
    loss = shift_contrast(vectors, torch.arange(300) % 49, classes=7, generator=seeded())
    torch.autograd.backward(loss)
    assert vectors.grad is not None
    touched = (vectors.grad.abs().sum(1) > 0).sum()
    assert torch.isfinite(vectors.grad).all()
    assert 2 <= touched <= MAX_CONTRAST_PAIRS


def test_log_sum_gives_each_task_its_weight_and_spares_a_solved_one() -> None:
    a = torch.tensor(8.0, requires_grad=True)
    b = torch.tensor(1e-9, requires_grad=True)
    torch.autograd.backward(log_sum({"a": a, "b": b}, {"a": 1.0, "b": 1.0}))
    assert a.grad is not None
    assert b.grad is not None
    assert a.grad.item() == pytest.approx(1 / 8)
    assert b.grad.item() == pytest.approx(1 / 0.05)


def test_learned_weights_settle_where_each_task_is_scaled_by_its_size() -> None:
    """The minimum of loss * exp(-s) + s is at s = log loss: the log-sum's gradient, learned."""
    balance = LogVariances(("a", "b"))
    losses = {"a": torch.tensor(8.0), "b": torch.tensor(0.5)}
    optimiser = torch.optim.SGD(balance.parameters(), lr=0.2)
    for _ in range(300):
        optimiser.zero_grad()
        torch.autograd.backward(balance(losses, {"a": 1.0, "b": 2.0}))
        optimiser.step()
    torch.testing.assert_close(balance.log_variance, torch.tensor([8.0, 0.5]).log())


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
