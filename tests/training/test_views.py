"""Damaged pictures that an encoder learns to see through."""

import pytest
import torch
from torch import Tensor

from invrestore.training._views import View, damaged_views


def pictures(count: int = 64, channels: int = 3, size: int = 16) -> Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0))


def views(clean: Tensor, seed: int = 1) -> list[View]:
    return list(damaged_views(clean, torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("count", [1, 3, 7, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_picture_is_seen_once_and_in_order(count: int, channels: int) -> None:
    clean = pictures(count, channels)
    seen = views(clean)
    assert all(view.seen.shape == view.clean.shape for view in seen)
    # Reduced pictures are dealt to the factors in turn, so only the set of pictures is kept there.
    given = sorted(map(tuple, clean.flatten(1).tolist()))
    assert sorted(map(tuple, torch.cat([view.clean for view in seen]).flatten(1).tolist())) == given


def test_exact_data_are_put_into_another_picture() -> None:
    for view in views(pictures()):
        if view.project is None:
            continue
        torch.testing.assert_close(view.project(view.clean), view.clean, atol=1e-5, rtol=0)
        other = torch.full_like(view.clean, 0.5)
        before, after = ((x - view.clean).square().sum() for x in (other, view.project(other)))
        assert after < 0.999 * before, "known samples are right afterwards"
        torch.testing.assert_close(view.project(view.project(other)), view.project(other))


def test_gray_pictures_show_no_colour() -> None:
    gray = views(pictures())[0]
    assert torch.equal(gray.seen, gray.seen[:, :1].expand_as(gray.seen))
    assert gray.project is not None
    # The mean over channels is not luma, but a gray picture has luma of its own value.
    torch.testing.assert_close(gray.project(gray.seen), gray.seen)


def test_holes_show_nothing_of_what_is_inside() -> None:
    clean = pictures()
    one, two = (views(clean)[1], views(1 - clean)[1])
    assert one.project is not None
    assert two.project is not None
    known = (one.project(torch.zeros_like(one.clean)) - one.clean).abs().amax(1) < 1e-6
    share = known.float().mean((1, 2))
    assert bool(((share > 0.5) & (share < 0.97)).all())
    centre = known[:, 8, 8]
    assert not bool(centre[::2].any()), "every other hole is in the middle"
    torch.testing.assert_close(
        one.seen + two.seen, torch.ones_like(clean[: len(one.seen)]), atol=1e-4, rtol=0
    )


def test_damage_follows_the_random_numbers() -> None:
    drawn = []
    for a, b, c in zip(views(pictures()), views(pictures()), views(pictures(), seed=2), strict=True):
        assert torch.equal(a.seen, b.seen)
        drawn.append(not torch.equal(a.seen, c.seen))
    # Colours are always taken away, and sizes are reduced, in the same way.
    assert drawn == [False, True, True, False, False, False, True, True]
