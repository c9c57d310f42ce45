"""What plug-and-play shows a denoiser that learns from it."""

import pytest
import torch

from invrestore.training._degradations import (
    Blurred,
    Compressed,
    Degradation,
    Degrader,
    Noisy,
    Reduced,
    Sparse,
)
from invrestore.training._plugged import seen_when_plugged


class Halver:
    """Counts its calls and darkens."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: torch.Tensor, sigma: object) -> torch.Tensor:
        self.calls += 1
        return x / 2


def grays(count: int, side: int = 24) -> torch.Tensor:
    """Images of one gray each, all different."""
    return torch.linspace(0.2, 0.8, count).view(count, 1, 1, 1).expand(count, 3, side, side).clone()


def show(
    network: object, clean: torch.Tensor, *problems: Degradation, steps: int = 8, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    return seen_when_plugged(
        network,  # type: ignore[arg-type]
        clean,
        Degrader(problems, informed=False),
        steps=steps,
        rng=torch.Generator().manual_seed(seed),
        host=torch.Generator().manual_seed(seed),
    )


def test_in_the_first_step_no_network_is_asked_and_the_first_level_is_told() -> None:
    network = Halver()
    x, level = show(network, grays(5), Sparse(keep=(0.5, 0.5), guided=0), steps=1)
    assert network.calls == 0
    assert x.shape == (5, 3, 24, 24)
    assert level.tolist() == pytest.approx([30 / 255] * 5)
    # Half of the pixels are as they were measured.
    assert float(((x - grays(5)).abs().amax(1) < 1e-6).float().mean()) >= 0.5


def test_all_steps_of_the_schedule_are_shown() -> None:
    told = set()
    for seed in range(40):
        network = Halver()
        x, level = show(network, grays(1), Reduced(factor=(2,), sigma=(0, 0)), steps=4, seed=seed)
        # One call of the network for each step before, none afterwards.
        told.add((network.calls, round(255 * float(level), 2)))
        # The data step holds the mean of the picture, whatever the network made of it.
        assert float(x.mean()) == pytest.approx(0.2, abs=0.01)
    calls, levels = zip(*sorted(told), strict=True)
    assert calls == (0, 1, 2, 3)
    assert levels == pytest.approx((70, 26.97, 10.39, 4), abs=0.01)


def test_images_keep_their_order_over_kinds_of_problems() -> None:
    clean = grays(16)
    x, level = show(
        lambda x, sigma: x,
        clean,
        Reduced(sigma=(0, 0)),
        Sparse(keep=(0.3, 0.6), guided=0),
        Blurred(side=(5, 9), sigma=(0.01, 0.02)),
        Compressed(quality=(50, 60)),
    )
    assert level.shape == (16,)
    assert level.unique().numel() > 4
    assert float((x.mean((1, 2, 3)) - clean[:, 0, 0, 0]).abs().max()) < 0.03


def test_where_one_call_is_the_restoration_it_is_shown_the_measurement() -> None:
    for seed in range(4):
        network = Halver()
        x, level = show(network, grays(3), Noisy(sigma=(0.1, 0.1)), seed=seed)
        assert level.tolist() == pytest.approx([0.1] * 3)
        assert float((x - grays(3)).std()) == pytest.approx(0.1, rel=0.1)


def test_no_gradient_flows_through_the_steps_before() -> None:
    weight = torch.ones((), requires_grad=True)
    x, level = show(lambda x, sigma: weight * x, grays(2), Blurred(side=(5, 5), sigma=(0.02, 0.02)), seed=1)
    assert not x.requires_grad
    assert not level.requires_grad
