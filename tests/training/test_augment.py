import pytest
import torch

from invrestore.training import Augment, Augmentation

KINDS = ("color", "translation", "cutout")


@pytest.mark.parametrize("kinds", [*((kind,) for kind in KINDS), KINDS])
def test_gradients_pass_and_agree_with_finite_differences(kinds: tuple, rng: torch.Generator) -> None:
    x = torch.rand(2, 3, 8, 8, generator=rng).double().requires_grad_()
    alter = Augment(kinds).draw(x, rng)
    double = Augmentation(
        **{k: v.double() if v is not None and v.is_floating_point() else v for k, v in vars(alter).items()}
    )
    assert torch.autograd.gradcheck(double, (x,))


@pytest.mark.parametrize("kind", KINDS)
def test_images_are_altered_each_in_its_own_way(kind: str, rng: torch.Generator) -> None:
    x = torch.rand(1, 3, 16, 16, generator=rng).expand(8, -1, -1, -1)
    out = Augment((kind,)).draw(x, rng)(x)
    assert len({tuple(image.flatten().tolist()) for image in out}) >= 6


def test_one_alteration_serves_real_and_generated_images_alike(rng: torch.Generator) -> None:
    real, fake = torch.rand(2, 4, 3, 16, 16, generator=rng)
    alter = Augment().draw(real, rng)
    torch.testing.assert_close(
        alter(real) - alter(fake), alter(real - fake + 0.5) - alter(torch.full_like(real, 0.5))
    )
    torch.testing.assert_close(alter[1:3](real[1:3]), alter(real)[1:3])


def test_shifts_move_by_whole_pixels_and_bring_in_zeros() -> None:
    x = torch.arange(1.0, 17.0).view(1, 1, 4, 4)
    out = Augmentation(shift=torch.tensor([[1, -2]]))(x)
    expected = torch.zeros(1, 1, 4, 4)
    expected[0, 0, 1:, :2] = x[0, 0, :3, 2:]
    assert torch.equal(out, expected)


def test_hole_is_a_square_of_half_the_side() -> None:
    out = Augmentation(hole=torch.tensor([[4, 4], [0, 7]]))(torch.ones(2, 1, 8, 8))
    assert torch.equal(out[0, 0, 2:6, 2:6], torch.zeros(4, 4))
    assert [int(image.sum()) for image in out] == [64 - 16, 64 - 2 * 3]


def test_colours_by_hand() -> None:
    x = torch.tensor([0.2, 0.5, 0.8]).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    one, half, zero = (torch.full((1, 1, 1, 1), value) for value in (1.0, 0.5, 0.0))
    assert torch.allclose(Augmentation(half, one, one)(x), x + 0.5)
    assert torch.allclose(Augmentation(zero, half, one)(x), 0.5 + 0.5 * (x - 0.5))
    assert torch.allclose(Augmentation(zero, one, zero)(x), torch.full_like(x, 0.5))


def test_draws_stay_within_their_ranges(rng: torch.Generator) -> None:
    alter = Augment().draw(torch.zeros(4000, 1, 32, 16), rng)
    for values, low, high in (
        (alter.brightness, -0.25, 0.25),
        (alter.saturation, 0, 2),
        (alter.contrast, 0.5, 1.5),
        (alter.shift[:, 0], -4, 4),
        (alter.shift[:, 1], -2, 2),
        (alter.hole[:, 0], 0, 31),
        (alter.hole[:, 1], 0, 15),
    ):
        assert low <= float(values.min()) < low + 0.05 * (high - low) + 1e-9
        assert high - 0.05 * (high - low) - 1e-9 < float(values.max()) <= high


def test_nothing_asked_for_is_nothing_done(rng: torch.Generator) -> None:
    x = torch.rand(2, 3, 8, 8, generator=rng)
    assert torch.equal(Augment(()).draw(x, rng)(x), x)
