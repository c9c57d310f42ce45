"""Losses on codes against values computed by hand."""

import math

import pytest
import torch

from invrestore.training import losses


def test_divergence_of_codes() -> None:
    mean, log_variance = (
        torch.tensor([[1.0, 0.0], [0.0, 0.0]]),
        torch.tensor([[0.0, math.log(4)], [0.0, 0.0]]),
    )
    expected = (0.5 * 1 + 0.5 * (4 - math.log(4) - 1)) / 2
    assert float(losses.kl_to_normal(mean, log_variance)) == pytest.approx(expected)


def test_distance_of_codes_ignores_their_length() -> None:
    z = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    assert float(losses.code_distance(3 * z, z)) == pytest.approx(0)
    assert float(losses.code_distance(torch.tensor([[0.0, 1.0], [0.0, 1.0]]), z)) == pytest.approx(0.5)
