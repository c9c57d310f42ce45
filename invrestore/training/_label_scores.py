"""How well a high-level network says what images show."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invrestore.errors import ShapeError

__all__ = ["confusion", "label_loss", "mean_iou", "score_labels"]


def label_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    ignore: int | None = None,
    weight: Tensor | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """Mean cross-entropy of logits and class numbers.

    Args:
        logits: (B, K), or (B, K, H, W).
        labels: (B,), or (B, H, W), int64.
        ignore: Number that stands for no class.
        weight: Weight of each class (K,).
        smoothing: Share of each label's weight that is spread over all classes.

    Raises:
        ShapeError: The network gave logits of another shape than the labels ask for.
    """
    wanted = (labels.shape[0], *labels.shape[1:])
    if logits.ndim != labels.ndim + 1 or (logits.shape[0], *logits.shape[2:]) != wanted:
        raise ShapeError(
            "training.label_loss",
            expected=f"logits of shape ({wanted[0]}, K{''.join(f', {n}' for n in wanted[1:])})",
            found=str(tuple(logits.shape)),
            remedy="A classifier gives (B, K), a segmenter (B, K, H, W).",
        )
    return F.cross_entropy(
        logits.float(),
        labels,
        weight=weight,
        ignore_index=-100 if ignore is None else ignore,
        label_smoothing=smoothing,
    )


def confusion(predicted: Tensor, labels: Tensor, classes: int, ignore: int | None = None) -> Tensor:
    """Count pairs (true class, predicted class).

    Args:
        predicted: Class numbers of any shape.
        labels: True class numbers, of the same shape.
        classes: Number of classes K.
        ignore: Number in labels that is left out.

    Returns:
        Counts (K, K), int64; rows are true classes.
    """
    kept = labels != (-1 if ignore is None else ignore)
    pairs = labels[kept].long() * classes + predicted[kept].long()
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes)


def mean_iou(counts: Tensor) -> Tensor:
    """Mean over classes of intersection over union, TP / (TP + FP + FN).

    Classes that neither occur nor are predicted do not count.

    Args:
        counts: Confusion matrices (..., K, K) summed over the images of a set.

    Returns:
        Scores (...) in [0, 1].

    Example:
        >>> mean_iou(torch.tensor([[2, 1], [0, 1]]))
        tensor(0.5833)
    """
    hits = counts.diagonal(dim1=-2, dim2=-1).float()
    union = counts.sum(-1) + counts.sum(-2) - hits
    present = union > 0
    return (hits / union.clamp(min=1)).sum(-1) / present.sum(-1).clamp(min=1)


@torch.no_grad()
def score_labels(
    network: nn.Module,
    images: Sequence[Tensor],
    labels: Sequence[int | Tensor],
    ignore: int | None = None,
) -> float:
    """Top-1 accuracy of a classifier, or mean intersection over union of a segmenter, in percent.

    Args:
        network: Maps an image (1, 3, H, W) to logits.
        images: Images (1, 3, H, W).
        labels: Class number of each image, or its map (H, W).
        ignore: Number in maps that stands for no class.
    """
    correct, counts = 0, torch.zeros((), dtype=torch.int64)
    for image, label in zip(images, labels, strict=True):
        logits = network(image)
        if isinstance(label, Tensor):
            counts = counts + confusion(logits.argmax(1)[0], label, logits.shape[1], ignore)
        else:
            correct += int(logits.argmax(1)) == label
    return 100 * (float(mean_iou(counts)) if counts.ndim else correct / len(images))
