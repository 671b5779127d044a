"""Sentiment-laden alignment: HRG-SSA's two contrastive losses (docs/models.md B5).

PSA draws the nodes of past utterances to the text of their emotion, MSA the modalities of an
utterance to each other, in the window of each utterance. Means, where the paper sums: a sum over
anchors would let a long window weigh more.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def alignment(a: Tensor, b: Tensor, there: Tensor, alike: Tensor | None = None) -> Tensor:
    """Return NT-Xent of two node sets [B, n, d] with cosine similarity and temperature 1.

    An anchor's positive is the same utterance in the other set, its negatives all other nodes of
    its window in both. `there` [B, n] marks the utterances that exist; `alike` [B, n, n] pairs that
    are no negatives of each other. Mean over the anchors that have a negative; 0 when none has.
    """
    n = a.shape[1]
    z = F.normalize(torch.cat((a, b), dim=1), dim=2)  # [B, 2n, d]
    similar = z @ z.transpose(1, 2)  # [B, 2n, 2n]
    exists = there.repeat(1, 2)
    negative = exists[:, None, :] & exists[:, :, None]
    other = torch.eye(n, dtype=torch.bool, device=a.device).repeat(2, 2)  # itself, its positive
    negative = negative & ~other
    if alike is not None:
        negative = negative & ~alike.repeat(1, 2, 2)
    anchors = exists & negative.any(2)
    if not bool(anchors.any()):
        return (a.sum() + b.sum()) * 0.0
    positive = torch.cat((similar.diagonal(n, 1, 2), similar.diagonal(-n, 1, 2)), dim=1)
    rest = similar.masked_fill(~negative, -torch.inf)
    # where no negative is, logsumexp of nothing has no gradient: those anchors are left out first
    total = torch.cat((rest[anchors], positive[anchors][:, None]), dim=1).logsumexp(1)
    return (total - positive[anchors]).mean()


def primary_alignment(nodes: Tensor, texts: Tensor, labels: Tensor) -> Tensor:
    """Return PSA of past nodes before the graph [B, W, M, d] and their emotions' texts.

    `texts` [C, d] are the emotions' and `labels` [B, W] the true ones, -1 in an empty slot and
    where unknown; the current utterance is not among them. Two utterances of one emotion have the
    same text, so neither is a negative of the other.
    """
    there = labels >= 0
    emotion = texts[labels.clamp_min(0)]  # [B, W, d]
    alike = labels[:, :, None] == labels[:, None, :]
    parts = [alignment(node, emotion, there, alike) for node in nodes.unbind(2)]
    return torch.stack(parts).sum()


def modality_alignment(nodes: Tensor, there: Tensor) -> Tensor:
    """Return MSA of nodes after the graph [B, n, M, d]; `there` [B, n] marks the full slots."""
    text, audio, video = nodes.unbind(2)
    pairs = ((audio, text), (video, text), (audio, video))
    return torch.stack([alignment(a, b, there) for a, b in pairs]).sum()
