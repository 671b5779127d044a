"""Losses: emotion, emotion shift, and the shift-aware contrast of pair vectors.

PCGNet's three losses with the published faults repaired: "same shift" is tested before "reversed
shift", batches without a pair give a differentiable zero, and the balancer cannot blow up a
loss that is nearly zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SAME, SAME_FROM, SAME_TO, UNRELATED, REVERSED = range(5)
MAX_CONTRAST_PAIRS: Final = 32  # 992 ordered couples a batch; 50 (2450) took most of a step
BALANCE_FLOOR: Final = 0.05


def focal_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    gamma: float = 0.5,
    class_weight: Tensor | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """Return the mean of -(1 - p_y)^gamma log p_y over rows [N, C] with a label of 0 or more.

    `smoothing` is the share of the uniform distribution in the target. Zero (and still
    differentiable) when no row is labelled.
    """
    labelled = labels >= 0
    if not bool(labelled.any()):
        return logits.sum() * 0.0
    log_p = F.log_softmax(logits[labelled], -1)  # [n, C]
    target = labels[labelled]
    log_py = log_p.gather(1, target[:, None]).squeeze(1)  # [n]
    loss = -((1 - log_py.exp()).clamp_min(1e-6) ** gamma) * log_py
    loss = (1 - smoothing) * loss - smoothing * log_p.mean(1)
    if class_weight is None:
        return loss.mean()
    weight = class_weight[target]
    return (loss * weight).sum() / weight.sum()


def shift_labels(labels: Tensor, pairs: Tensor, classes: int) -> Tensor:
    """Return from * C + to of each pair [P, 2] of rows; -1 where either end is unlabelled."""
    before, after = labels[pairs[:, 0]], labels[pairs[:, 1]]
    joint = before * classes + after
    return torch.where((before >= 0) & (after >= 0), joint, torch.full_like(joint, -1))


def shift_loss(logits: Tensor, labels: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Return the mean cross-entropy over (from, to) classes [P, C * C]; zero without a label."""
    labelled = labels >= 0
    if not bool(labelled.any()):
        return logits.sum() * 0.0
    return F.cross_entropy(logits[labelled], labels[labelled], label_smoothing=smoothing)


def moved_loss(logits: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return the mean negative log-likelihood of *shifted or not*, which alerts are based on.

    1 - trace of the joint (from, to) distribution [P, C * C]: the joint cross-entropy is dominated
    by the choice of the emotions, this term by the presence of a shift.
    """
    labelled = labels >= 0
    if not bool(labelled.any()):
        return logits.sum() * 0.0
    joint = logits[labelled].view(-1, classes, classes)  # [p, from, to]
    stays = torch.eye(classes, dtype=torch.bool)
    total = joint.flatten(1).logsumexp(1)
    log_moved = joint[:, ~stays].logsumexp(1) - total
    log_stayed = joint[:, stays].logsumexp(1) - total
    moved = labels[labelled] // classes != labels[labelled] % classes
    return -torch.where(moved, log_moved, log_stayed).mean()


def couple_labels(shifts: Tensor, classes: int) -> Tensor:
    """Return the relation of shift a->b of pair q to shift c->d of pair r, [P, P].

    SAME (a=c, b=d) is decided before REVERSED (a=d, b=c): two equal "no shift" pairs are the same.
    """
    before, after = shifts // classes, shifts % classes
    same_from = before[:, None] == before[None, :]
    same_to = after[:, None] == after[None, :]
    reverse = (before[:, None] == after[None, :]) & (after[:, None] == before[None, :])
    relation = torch.full_like(same_from, UNRELATED, dtype=torch.long)
    relation[same_from] = SAME_FROM
    relation[same_to] = SAME_TO
    relation[reverse] = REVERSED
    relation[same_from & same_to] = SAME
    return relation


def shift_contrast(
    vectors: Tensor,
    shifts: Tensor,
    *,
    classes: int,
    generator: torch.Generator,
    temperature: float = 0.07,
) -> Tensor:
    """Return the supervised contrast over ordered couples of pair vectors [P, D].

    Couples whose shifts have the same relation are pulled together (docs/models.md A5.3). At most
    `MAX_CONTRAST_PAIRS` labelled pairs are sampled with `generator`. Zero for fewer than two.
    """
    labelled = torch.nonzero(shifts >= 0).squeeze(1)
    chosen = labelled[torch.randperm(len(labelled), generator=generator)[:MAX_CONTRAST_PAIRS]]
    if len(chosen) < 2:
        return vectors.sum() * 0.0
    vectors, shifts = vectors[chosen], shifts[chosen]
    first, second = torch.nonzero(~torch.eye(len(chosen), dtype=torch.bool), as_tuple=True)
    relation = couple_labels(shifts, classes)[first, second]  # [Q]
    # |(u ; v)|^2 = |u|^2 + |v|^2, and (u;v).(x;y) = u.x + v.y: couples need no 12H-wide rows.
    products = vectors @ vectors.T  # [P, P]
    norm = products.diagonal()
    length = (norm[first] + norm[second]).clamp_min(1e-12).sqrt()  # [Q]
    similar = products[first][:, first] + products[second][:, second]  # [Q, Q]
    similar = similar / (length[:, None] * length[None, :]) / temperature
    return _supervised_contrast(similar, relation)


def _supervised_contrast(similar: Tensor, relation: Tensor) -> Tensor:
    """Return -log(sum over alike / sum over others), a term an anchor, rare ones weigh more."""
    itself = torch.eye(len(relation), dtype=torch.bool)
    alike = (relation[:, None] == relation[None, :]) & ~itself
    anchors = alike.any(1)
    if not bool(anchors.any()):
        return similar.sum() * 0.0
    lowest = torch.finfo(similar.dtype).min
    over_alike = similar.masked_fill(~alike, lowest)[anchors].logsumexp(1)
    over_all = similar.masked_fill(itself, lowest)[anchors].logsumexp(1)
    counts = torch.bincount(relation, minlength=5)
    weight = len(relation) / counts[relation][anchors].to(similar.dtype)
    return (weight * (over_all - over_alike)).mean() / weight.mean()


def weighted(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Return the sum of weight * loss."""
    return torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()


def log_sum(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Return a sum with the gradient of sum weight * log loss (docs/models.md A5.4).

    Each task counts by its weight, whatever the size of its loss, which is divided by its own
    value. The divisor has a floor, so that a loss near zero does not explode.
    """
    terms = [
        weights[name] * loss / loss.detach().clamp_min(BALANCE_FLOOR)
        for name, loss in losses.items()
        if weights[name] > 0
    ]
    return torch.stack(terms).sum()


class LogVariances(nn.Module):
    """Learned weights: the sum of weight * (loss * exp(-s) + s), one s a task.

    After Kendall, Gal and Cipolla, "Multi-task learning using uncertainty to weigh losses" (2018).
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.log_variance = nn.Parameter(torch.zeros(len(names)))

    def forward(self, losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
        terms = []
        for name, loss in losses.items():
            s = self.log_variance[self.names.index(name)]
            terms.append(weights[name] * (loss * torch.exp(-s) + s))
        return torch.stack(terms).sum()
