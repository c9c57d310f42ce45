"""Poisson blending, transplant of the value channel, back-projection and importance weights."""

import colorsys

import pytest
import torch

import invrestore as ir
from invrestore.solvers import (
    back_project,
    importance_weights,
    poisson_blend,
    smooth_chroma,
    transplant_value,
)


def images(rng, *shape):
    return torch.rand(*shape, generator=rng, dtype=torch.float64)


@pytest.fixture
def centre():
    mask = torch.ones(1, 1, 12, 10, dtype=torch.float64)
    mask[..., 3:9, 2:7] = 0
    return mask


def test_blending_keeps_known_pixels_and_ignores_a_constant_offset(rng, centre):
    x, y = images(rng, 2, 3, 12, 10), images(rng, 2, 3, 12, 10)
    blended = poisson_blend(x, y, centre)
    assert torch.equal(blended * centre, y * centre)
    torch.testing.assert_close(poisson_blend(x + 0.3, y, centre), blended, rtol=0, atol=1e-10)


def test_blending_returns_the_truth_for_a_source_that_is_off_by_a_harmonic_function(rng, centre):
    truth = images(rng, 1, 1, 12, 10)
    rows, columns = torch.meshgrid(
        torch.arange(12, dtype=torch.float64), torch.arange(10, dtype=torch.float64), indexing="ij"
    )
    harmonic = 0.02 * rows - 0.01 * columns + 0.1
    blended = poisson_blend(truth + harmonic, truth, centre)
    torch.testing.assert_close(blended, truth, rtol=0, atol=1e-10)


def test_blending_solves_the_dense_system_also_at_borders_of_the_image(rng):
    x, y = images(rng, 1, 1, 5, 4), images(rng, 1, 1, 5, 4)
    mask = torch.ones(5, 4, dtype=torch.bool)
    mask[0:3, 0:2] = False
    blended = poisson_blend(x, y, mask[None, None])[0, 0]
    # Squared differences of neighbouring corrections, minimised by brute force over the hole.
    holes = [(i, j) for i in range(5) for j in range(4) if not mask[i, j]]
    base = torch.where(mask, y[0, 0] - x[0, 0], 0.0)
    rows, right = [], []
    for i in range(5):
        for j in range(4):
            for a, b in ((i + 1, j), (i, j + 1)):
                if a < 5 and b < 4:
                    row = torch.zeros(len(holes), dtype=torch.float64)
                    known = 0.0
                    for (r, c), sign in (((i, j), 1.0), ((a, b), -1.0)):
                        if (r, c) in holes:
                            row[holes.index((r, c))] += sign
                        else:
                            known += sign * float(base[r, c])
                    rows.append(row)
                    right.append(-known)
    solved = torch.linalg.lstsq(torch.stack(rows), torch.tensor(right, dtype=torch.float64)[:, None]).solution
    for (i, j), e in zip(holes, solved[:, 0], strict=True):
        assert float(blended[i, j]) == pytest.approx(float(x[0, 0, i, j] + e), abs=1e-9)


def test_channels_without_known_pixels_keep_the_source(rng):
    x, y = images(rng, 1, 2, 6, 6), images(rng, 1, 2, 6, 6)
    mask = torch.ones(1, 2, 6, 6)
    mask[:, 1] = 0
    blended = poisson_blend(x, y, mask)
    assert torch.equal(blended[:, 0], y[:, 0])
    assert torch.equal(blended[:, 1], x[:, 1])


def test_each_image_of_a_batch_is_blended_as_if_alone(rng):
    x, y = images(rng, 3, 2, 9, 8), images(rng, 3, 2, 9, 8)
    mask = torch.rand(3, 1, 9, 8, generator=rng) < torch.tensor([0.2, 0.5, 0.9]).view(3, 1, 1, 1)
    together = poisson_blend(x, y, mask)
    for k in range(3):
        alone = poisson_blend(x[k : k + 1], y[k : k + 1], mask[k : k + 1])
        torch.testing.assert_close(together[k], alone[0], rtol=0, atol=1e-10)


def test_transplant_keeps_hue_and_saturation_and_sets_value(rng):
    x, v = images(rng, 1, 3, 4, 4), images(rng, 1, 1, 4, 4)
    result = transplant_value(x, v)
    for before, after, value in zip(
        x[0].flatten(1).T.tolist(), result[0].flatten(1).T.tolist(), v.flatten().tolist(), strict=True
    ):
        h, s, _ = colorsys.rgb_to_hsv(*before)
        assert colorsys.rgb_to_hsv(*after) == pytest.approx((h, s, value), abs=1e-9)


def test_transplant_makes_black_gray():
    assert (
        transplant_value(torch.zeros(1, 3, 1, 1), torch.full((1, 1, 1, 1), 0.5)).flatten().tolist()
        == [0.5] * 3
    )


OPERATORS = {
    "mask": ir.operators.Mask(torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0)) < 0.5),
    "grayscale": ir.operators.Grayscale(),
    "downsample": ir.operators.Downsample(4),
    "quantise": ir.operators.Quantize(5),
    "value": ir.operators.Value(),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_back_projection_meets_the_data_and_comes_nearer_to_the_truth(name, rng):
    operator = OPERATORS[name]
    truth, x = images(rng, 2, 3, 16, 16), images(rng, 2, 3, 16, 16)
    y = operator(truth)
    projected = back_project(x, y, operator)
    if name == "quantise":  # the ends of an interval may round to either side
        assert (projected - y).abs().max() <= 0.125
    else:
        torch.testing.assert_close(operator(projected), y, rtol=0, atol=1e-9)
    if name != "value":  # not a convex set
        assert ((projected - truth).flatten(1).norm(dim=1) < (x - truth).flatten(1).norm(dim=1)).all()


def test_back_projection_of_jpeg_comes_nearer_to_the_truth_and_to_the_data(rng):
    operator = ir.operators.JPEG(30)
    truth, x = (0.25 + 0.5 * images(rng, 1, 3, 16, 16) for _ in range(2))
    y = operator(truth)
    projected = back_project(x, y, operator)
    assert (operator(projected) - y).norm() < 0.7 * (operator(x) - y).norm()
    assert (projected - truth).norm() < (x - truth).norm()


def test_bounds_of_a_fidelity_come_before_those_of_the_operator(rng):
    x = images(rng, 1, 1, 3, 3)
    bounds = ir.fidelity.Interval(torch.full_like(x, 0.4), torch.full_like(x, 0.5))
    clipped = back_project(x, x, ir.operators.Identity(), bounds)
    assert torch.equal(clipped, x.clamp(0.4, 0.5))


def test_importance_is_the_share_of_holes_in_the_square_of_each_known_pixel():
    mask = torch.ones(1, 1, 9, 11)
    mask[0, 0, 4, 4:6] = 0
    weights = importance_weights(mask)[0, 0]
    for i in range(9):
        for j in range(11):
            square = mask[0, 0, max(i - 3, 0) : i + 4, max(j - 3, 0) : j + 4]
            expected = 0.0 if mask[0, 0, i, j] == 0 else float((1 - square).mean())
            assert float(weights[i, j]) == pytest.approx(expected, abs=1e-6)


WRONG = {
    "images of different sizes": (
        lambda: poisson_blend(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 5), torch.ones(4, 4)),
        ir.ShapeError,
        "y of x's shape",
    ),
    "mask of another size": (
        lambda: poisson_blend(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4), torch.ones(5, 4)),
        ir.ShapeError,
        "a mask that fits",
    ),
    "gray picture for a transplant": (
        lambda: transplant_value(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)),
        ir.ShapeError,
        r"x \(B, 3, H, W\)",
    ),
    "even window": (lambda: importance_weights(torch.ones(1, 1, 4, 4), 6), ir.ShapeError, "odd window"),
    "nonlinear operator without projection": (
        lambda: back_project(
            torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2), ir.operators.Callable(torch.sin)
        ),
        ir.CapabilityError,
        "Quantize, JPEG or Value",
    ),
}


@pytest.mark.parametrize("case", WRONG, ids=lambda name: name.replace(" ", "-"))
def test_wrong_call_is_refused(case):
    wrong, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        wrong()


def test_smoothed_colours_keep_any_measured_luma_and_constant_colours_stay(rng):
    for weights in ((0.299, 0.587, 0.114), (1.0, 2.0, -0.5)):
        A = ir.operators.Grayscale(weights)
        x, y = (torch.rand(2, c, 9, 7, generator=rng, dtype=torch.float64) for c in (3, 1))
        torch.testing.assert_close(A(smooth_chroma(x, y, A, 1.5)), y)
    # The same colour everywhere is smooth already.
    colour = torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64).view(1, 3, 1, 1)
    gray = x[:1, :1].expand(-1, 3, -1, -1)
    A = ir.operators.Grayscale()
    torch.testing.assert_close(smooth_chroma(gray + colour, A(gray + colour), A, 1.5), gray + colour)
