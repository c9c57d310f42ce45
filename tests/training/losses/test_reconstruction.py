"""Distances between an image and its reconstruction against values computed by hand."""

import pytest
import torch

from invrestore.training import losses


def test_multiscale_distance_averages_over_scales() -> None:
    x = torch.zeros(1, 1, 4, 4)
    target = torch.zeros(1, 1, 4, 4)
    target[0, 0, 0, :2] = torch.tensor([4.0, -4.0])
    # Full size: 8 / 16. Half size: the two cancel.
    assert float(losses.multiscale_l1(x, target, scales=1)) == pytest.approx(0.5)
    assert float(losses.multiscale_l1(x, target, scales=2)) == pytest.approx(0.25)
    assert float(losses.multiscale_l1(x, x + 0.5, scales=3)) == pytest.approx(0.5)


def test_feature_distance_is_relative_and_leaves_the_target_alone() -> None:
    features = [torch.tensor([1.0, 3.0], requires_grad=True), torch.tensor([2.0], requires_grad=True)]
    target = [torch.tensor([2.0, 2.0], requires_grad=True), torch.tensor([-2.0], requires_grad=True)]
    distance = losses.feature_distance(features, target)
    assert float(distance.detach()) == pytest.approx((1 / 2 + 4 / 2) / 2)
    distance.backward()
    assert features[0].grad is not None
    assert target[0].grad is None
