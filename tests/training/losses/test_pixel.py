"""Distances pixel by pixel against values computed by hand."""

import pytest
import torch
from torch.autograd import gradcheck

from invrestore.errors import UnknownNameError
from invrestore.training import losses


def test_pixel_losses_equal_the_hand_computed_values() -> None:
    x = torch.tensor([[[[0.0, 1.0], [2.0, 4.0]]]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[[[1.0, 1.0], [0.0, 1.0]]]], dtype=torch.float64)
    assert losses.l1(x, target).item() == (1 + 0 + 2 + 3) / 4
    assert losses.mse(x, target).item() == (1 + 0 + 4 + 9) / 4
    known = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]]], dtype=torch.float64)
    assert losses.corresponding_points(x, target, known).item() == (1 + 9) / 2
    assert losses.corresponding_points(x, target, known, "l1").item() == (1 + 3) / 2
    shifted = x.detach() + 0.3
    shifted.requires_grad_()
    for loss in (losses.l1, losses.mse):
        assert gradcheck(loss, (shifted, target))
    for distance in ("l2", "l1"):
        assert gradcheck(lambda v, d=distance: losses.corresponding_points(v, target, known, d), (shifted,))


def test_corresponding_points_count_each_channel_of_a_known_pixel_and_bear_an_empty_mask() -> None:
    x, target = torch.ones(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    known = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    assert losses.corresponding_points(x, target, known).item() == 1.0
    assert losses.corresponding_points(x, target, torch.zeros_like(known)).item() == 0.0
    with pytest.raises(UnknownNameError, match="distance out of 'l1', 'l2'"):
        losses.corresponding_points(x, target, known, "l3")  # type: ignore[arg-type]
