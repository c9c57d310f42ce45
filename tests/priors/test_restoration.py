"""Restorers as direct solvers and as implicit priors, against Gaussian models solved in closed form."""

import warnings

import pytest
import torch
from torch import nn

import invrestore as ir
from invrestore import networks, operators, priors
from invrestore.errors import CapabilityError, DTypeError, RangeError, ShapeError
from invrestore.networks import Cascade, RestorationUNet
from invrestore.priors import Capability, FeedForward, Restoration
from invrestore.priors._feed_forward import network_input

SHAPE = (1, 4, 4)


def matrix(operator: operators.Operator, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    size = torch.Size(shape).numel()
    columns = operator(torch.eye(size, dtype=torch.float64).view(size, *shape))
    return columns.flatten(1).T


class Gaussian:
    """Images of covariance C, and the mean of x given s = H x + n, which is linear in s."""

    def __init__(self, operator: operators.LinearOperator, strength: float) -> None:
        n = torch.arange(16, dtype=torch.float64)
        self.C = 0.05 * torch.exp(-((n[:, None] - n).abs()) / 3)
        self.H = matrix(operator)
        noise = strength**2 * torch.eye(self.H.shape[0], dtype=torch.float64)
        self.K = self.C @ self.H.T @ torch.linalg.inv(self.H @ self.C @ self.H.T + noise)
        self.precision = torch.linalg.inv(self.H @ self.C @ self.H.T + noise)

    def __call__(self, s: torch.Tensor) -> torch.Tensor:
        return (s.flatten(1) @ self.K.T).view(-1, *SHAPE)


@pytest.fixture(params=["downsample", "mask", "identity"])
def trained_for(request: pytest.FixtureRequest, rng: torch.Generator) -> operators.LinearOperator:
    return {
        "downsample": operators.Downsample(2, filter="area"),
        "mask": operators.Mask(torch.rand(4, 4, generator=rng) < 0.6),
        "identity": operators.Identity(),
    }[request.param]


def images(rng: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=rng, dtype=torch.float64)


def test_gradient_is_that_of_minus_the_log_density_of_degraded_images(trained_for, rng) -> None:
    model = Gaussian(trained_for, 0.1)
    prior = Restoration(model, trained_for, strength=0.1, lam=0.3)
    x = images(rng, 3, *SHAPE)
    # lam * grad of 1/2 (H x)^T (H C H^T + strength^2 I)^-1 (H x).
    expected = 0.3 * x.flatten(1) @ (model.H.T @ model.precision @ model.H)
    torch.testing.assert_close(prior.grad(x).flatten(1), expected)


def test_gradient_descent_reaches_the_closed_form_minimum(trained_for, rng) -> None:
    model, sigma = Gaussian(trained_for, 0.4), 0.4
    A = operators.Blur(ir.kernels.gaussian(0.5, size=3).double())
    y = A(images(rng, 2, *SHAPE))
    prior = Restoration(model, trained_for, strength=0.4, lam=sigma**2)
    found = ir.solve(y, A, prior, sigma=sigma, method="gradient", max_steps=500, tol=1e-10)
    M = matrix(A)
    normal = M.T @ M + sigma**2 * model.H.T @ model.precision @ model.H
    expected = torch.linalg.solve(normal, M.T @ y.flatten(1).T).T
    torch.testing.assert_close(found.x.flatten(1), expected, rtol=1e-4, atol=1e-5)
    assert "objective" not in found.history


def test_red_reaches_the_closed_form_fixed_point(rng) -> None:
    H = operators.Downsample(2, filter="area")
    model, lam, s = Gaussian(H, 0.1), 0.02, 0.05
    A = operators.Mask(torch.rand(4, 4, generator=rng) < 0.7)
    y = A(images(rng, 2, *SHAPE))
    prior = Restoration(model, H, strength=0.1, lam=lam)
    method = ir.solvers.RED(strength=s)
    found = ir.solve(y, A, prior, sigma=0.05, method=method, max_steps=1000, tol=1e-12)
    # A^T (A x - y) + lam / s^2 k (x - R H x) = 0 with k = s^2 / (s^2 + strength^2).
    M = matrix(A)
    away = torch.eye(16, dtype=torch.float64) - model.K @ model.H
    weight = lam / (s**2 + 0.1**2)
    expected = torch.linalg.solve(M.T @ M + weight * away, M.T @ y.flatten(1).T).T
    torch.testing.assert_close(found.x.flatten(1), expected, rtol=1e-5, atol=1e-7)


def test_prox_averages_two_estimates_by_their_variances(rng) -> None:
    H = operators.Identity()
    prior = Restoration(lambda y: y.clamp(0.4, 0.6), H, strength=0.2, lam=0.01)
    v = images(rng, 2, 1, 3, 3)
    share = 0.01 * 4 / (0.01 * 4 + 0.2**2)
    torch.testing.assert_close(prior.prox(v, 4.0), (1 - share) * v + share * v.clamp(0.4, 0.6))
    torch.testing.assert_close(prior.prox(v, 4.0), prior.denoise(v, 0.2))
    each = prior.prox(v, torch.tensor([4.0, 0.0], dtype=torch.float64))
    torch.testing.assert_close(each[1], v[1])
    torch.testing.assert_close(each[0], prior.prox(v, 4.0)[0])


@pytest.mark.parametrize("method", ["gradient", "red", "hqs"])
def test_expansive_restorers_do_not_make_the_iteration_diverge(method, rng) -> None:
    H = operators.Identity()
    prior = Restoration(lambda y: 0.5 + 1.3 * (y - 0.5), H, strength=0.05)
    y = images(rng, 2, 1, 8, 8)
    A = operators.Blur(ir.kernels.gaussian(1.0).double())
    found = ir.solve(A(y), A, prior, sigma=0.02, method=method)
    assert found.x.abs().max() < 5


def test_image_for_which_no_step_helps_stays_where_it_is(rng) -> None:
    # F(x) = x - y + w (x - R(x)) turns every difference by a right angle: it only grows along -F ... + F.
    def turned(x: torch.Tensor) -> torch.Tensor:
        return x - torch.stack([-x[..., 1], x[..., 0]], -1) * 1e6

    prior = Restoration(turned, operators.Identity(), strength=1.0, lam=1.0)
    y = images(rng, 1, 1, 1, 2)
    solver = ir.solvers.GradientDescent(halvings=3)
    found = ir.solve(y, operators.Identity(), prior, sigma=0.1, method=solver, max_steps=5)
    torch.testing.assert_close(found.x, y)


def test_nonlinear_degradations_use_the_transposed_jacobian(rng) -> None:
    H = operators.JPEG(30)
    prior = Restoration(lambda y: 0.9 * y, H, strength=0.1, lam=0.5)
    x = images(rng, 1, 3, 8, 8)
    expected = 0.5 / 0.01 * H.vjp(x, H(x) - H(0.9 * H(x)))
    torch.testing.assert_close(prior.grad(x), expected)


@pytest.mark.parametrize("size", [(3, 5), (9, 8), (17, 12)])
def test_transforms_are_undone(size, rng) -> None:
    x = images(rng, 2, 3, *size)
    prior = Restoration(lambda y: 0.5 * y, operators.Identity(), transforms=5, strength=0.1, lam=0.02)
    torch.testing.assert_close(prior.restored(x), 0.5 * x)
    torch.testing.assert_close(prior.grad(x), 0.02 / 0.01 * 0.5 * x)


def test_transforms_average_what_depends_on_place_and_direction(rng) -> None:
    def marked(y: torch.Tensor) -> torch.Tensor:
        return y + torch.linspace(0, 1, y.shape[-1], dtype=y.dtype)

    x = images(rng, 3, 1, 16, 16)
    plain, averaged, again, other = (
        Restoration(marked, operators.Identity(), transforms=n, seed=seed).restored(x)
        for n, seed in ((0, 0), (16, 0), (16, 0), (16, 1))
    )
    assert float((averaged - x).std()) < 0.5 * float((plain - x).std())
    assert torch.equal(averaged, again)
    assert not torch.equal(averaged, other)
    alone = Restoration(marked, operators.Identity(), transforms=16).restored(x[1:2])
    torch.testing.assert_close(alone, averaged[1:2])


def test_hqs_goes_through_the_operators_with_new_transforms_at_each_step(rng) -> None:
    seen = []

    class Recorder:
        def restore(self, y: torch.Tensor, operator: operators.JPEG) -> torch.Tensor:
            seen.append((operator.quality, tuple(y.shape[-2:])))
            return y

    H = [operators.JPEG(q) for q in (10, 40, 90)]
    prior = Restoration(Recorder(), H, transforms=1)
    y = images(rng, 1, 3, 10, 12)
    found = ir.solve(y, operators.Mask(torch.ones(10, 12)), prior, sigma=0.1, max_steps=6)
    assert found.method == "hqs"
    assert [quality for quality, _ in seen] == [10, 10, 40, 40, 90, 90]
    assert {size for _, size in seen} == {(18, 20), (20, 18)}
    assert [prior.at(k, 6).seed for k in range(6)] == list(range(6))
    seen.clear()
    prior.restored(y)
    assert seen[0][0] == 90


def test_exact_data_leave_three_quarters_of_the_image_to_the_last_step(rng) -> None:
    keep = torch.rand(8, 8, generator=rng) < 0.5
    y = images(rng, 1, 3, 8, 8) * keep
    prior = Restoration(lambda s: torch.ones_like(s), operators.Identity(), strength=0.2)
    A = operators.Mask(keep)
    found = ir.solve(y, A, prior, sigma=0.0, max_steps=1)
    start = A.interpolate(y)
    share = 0.36 / 1.36
    torch.testing.assert_close(found.x, torch.where(keep, y, start + share * (1 - start)))
    assert ir.solve(y, A, prior, sigma=0.0).steps.tolist() == [40]


def test_restorers_networks_and_functions_are_accepted(rng) -> None:
    H, y = operators.Downsample(2), images(rng, 1, 3, 8, 8)
    restorer = ir.restorers.Unrolled(priors.Tikhonov(0.1), {"sigma": 0.05})
    torch.testing.assert_close(Restoration(restorer, H).restored(y), restorer.restore(H(y), H))
    network = RestorationUNet(widths=(4, 8), blocks=1, informed=True).eval().double()
    prior = Restoration(network, H, strength=0.07)
    torch.testing.assert_close(prior.restored(y), FeedForward(network).restore(H(y), H, 0.07))
    assert prior.can(Capability.GRAD, Capability.DENOISE, Capability.PROX)
    assert not prior.can(Capability.VALUE)
    assert prior.tensors() == []
    assert len(Restoration(network.train(), H).tensors()) > 0


def test_impossible_priors_are_refused() -> None:
    with pytest.raises(DTypeError, match=r"operator as the one the network was trained for.*Downsample\(4\)"):
        Restoration(lambda y: y)
    with pytest.raises(DTypeError, match="a Restorer, a network or a callable"):
        Restoration(3, operators.Identity())
    with pytest.raises(DTypeError, match="or some of them, got int"):
        Restoration(lambda y: y, 3)
    with pytest.raises(DTypeError, match="or some of them"):
        Restoration(lambda y: y, [operators.Identity(), 3])
    with pytest.raises(RangeError, match="transforms >= 0"):
        Restoration(lambda y: y, operators.Identity(), transforms=-1)
    with pytest.raises(DTypeError, match="seed as an int"):
        Restoration(lambda y: y, operators.Identity(), seed=0.5)
    with pytest.raises(RangeError, match="strength > 0"):
        Restoration(lambda y: y, operators.Identity(), strength=0.0)
    with pytest.raises(DTypeError, match=r"networks\.RestorerNetwork"):
        FeedForward(nn.Identity())


# Direct restoration -----------------------------------------------------------------------------------------


def tiny(informed: bool = True, seed: int = 0) -> RestorationUNet:
    torch.manual_seed(seed)
    network = RestorationUNet(widths=(4, 8), blocks=1, informed=informed).eval().double()
    nn.init.normal_(network.tail.weight, std=0.05)
    return network.requires_grad_(False)


def test_solve_calls_the_network_once_on_what_it_was_trained_on(rng) -> None:
    A, y = operators.Identity(), images(rng, 2, 3, 9, 7)
    prior = FeedForward(tiny(), degradations=({"kind": "noise", "sigma": (0.0, 0.2)},))
    found = ir.solve(y, A, prior, sigma=0.1)
    planes = [y, y, torch.ones(2, 1, 9, 7), torch.full((2, 1, 9, 7), 0.1)]
    torch.testing.assert_close(found.x, prior.network(torch.cat(planes, 1).double()))
    assert found.method == "restorer"
    assert found.steps.tolist() == [1, 1]


def test_networks_of_the_papers_see_white_where_pixels_are_unknown(rng) -> None:
    mask = torch.rand(1, 1, 6, 6, generator=rng) < 0.5
    y = images(rng, 1, 3, 6, 6) * mask
    seen = network_input(y, operators.Mask(mask), informed=False)
    torch.testing.assert_close(seen, torch.where(mask, y, 1.0))


def test_informed_networks_see_filled_holes_the_mask_and_no_noise_they_were_not_told_of(rng) -> None:
    mask = torch.rand(1, 1, 6, 6, generator=rng) < 0.5
    A = operators.Mask(mask)
    y = images(rng, 1, 3, 6, 6)
    seen = network_input(y, A, informed=True)
    torch.testing.assert_close(seen[:, :3], A.initial(y, (3, 6, 6)))
    torch.testing.assert_close(seen[:, 3:6], y * mask)
    torch.testing.assert_close(seen[:, 6:7], mask.double())
    assert not seen[:, 7:].any()
    prior = FeedForward(tiny(), degradations=({"kind": "sparse", "keep": (0.01, 0.9)},))
    torch.testing.assert_close(prior.restore(A(y), A, 0.3), prior.restore(A(y), A, 0.0))


def test_informed_networks_see_blur_undone_by_the_smooth_inverse(rng) -> None:
    A = operators.Blur(ir.kernels.gaussian(1.0).double())
    y = images(rng, 2, 3, 12, 12)
    seen = network_input(y, A, torch.tensor([0.03, 0.06], dtype=torch.float64), informed=True)
    weights = torch.tensor([0.03, 0.06], dtype=torch.float64).div(0.11).square()
    torch.testing.assert_close(seen[:, :3], A.smooth_inverse(y, weights))
    exact = network_input(y, A, 0.0, informed=True)
    assert exact.isfinite().all()
    torch.testing.assert_close(seen[:, 7].mean((1, 2)), torch.tensor([0.03, 0.06], dtype=torch.float64))


def test_coding_errors_are_not_told_as_noise(rng) -> None:
    y = images(rng, 1, 3, 8, 8)
    assert not network_input(y, operators.JPEG(20), 0.1, informed=True)[:, 7].any()
    prior = FeedForward(tiny(), degradations=TRAINED)
    found = ir.solve(y, operators.JPEG(20), prior)
    torch.testing.assert_close(found.x, prior.restore(y, operators.JPEG(20), 0.0))


@pytest.mark.parametrize("informed", [False, True])
@pytest.mark.parametrize(
    "operator", [operators.Downsample(2), operators.Grayscale(), operators.Value(), operators.Quantize(5)]
)
def test_every_operator_gives_an_input_of_the_image_s_size(informed, operator, rng) -> None:
    x = images(rng, 2, 3, 8, 8)
    assert network_input(operator(x), operator, informed=informed).shape == (2, 8 if informed else 3, 8, 8)


@pytest.mark.parametrize("informed", [False, True])
def test_gray_images_reach_a_colour_network_as_three_equal_channels(informed, rng) -> None:
    y = images(rng, 2, 1, 8, 8)
    prior = FeedForward(tiny(informed))
    three = prior.restore(y.expand(-1, 3, -1, -1).contiguous(), operators.Identity())
    torch.testing.assert_close(prior.restore(y, operators.Identity()), three.mean(1, keepdim=True))
    with pytest.raises(ShapeError, match="1 or 3 channels, got 2"):
        prior.restore(images(rng, 1, 2, 8, 8), operators.Identity())


def test_images_of_a_batch_do_not_influence_each_other(rng) -> None:
    mask = torch.rand(3, 1, 8, 8, generator=rng) < 0.5
    y = images(rng, 3, 3, 8, 8) * mask
    prior = FeedForward(tiny())
    together = prior.restore(y, operators.Mask(mask))
    alone = torch.cat([prior.restore(y[i : i + 1], operators.Mask(mask[i])) for i in range(3)])
    torch.testing.assert_close(together, alone)


def test_cascade_shows_its_first_image_in_the_solution(rng) -> None:
    torch.manual_seed(0)
    network = Cascade("RestorationUNet", {"widths": (4, 8), "blocks": 1}, width=4).eval().double()
    nn.init.normal_(network.refiner.layers[-1].weight, std=0.1)
    prior, y = FeedForward(network), images(rng, 1, 3, 8, 8)
    found = ir.solve(y, operators.Identity(), prior, sigma=0.1, refine=True)
    first, second = network.stages(y)
    torch.testing.assert_close(found.stages["first"], first)
    torch.testing.assert_close(found.stages["restored"], second)


TRAINED = (
    {"kind": "noise", "sigma": (0.0, 0.2)},
    {"kind": "jpeg", "quality": (5, 60), "subsampling": ("4:2:0",)},
    {"kind": "blur", "side": (3, 9), "sigma": (0.0, 0.05)},
)


@pytest.mark.parametrize(
    ("operator", "sigma", "reason"),
    [
        (operators.Downsample(2), 0.1, "trained for noise, jpeg, blur, and the operator is Downsample"),
        (operators.JPEG(90), 0.1, "trained for quality 5 to 60, and the quality is 90"),
        (operators.JPEG(30, subsampling="4:4:4"), 0.0, "trained for chroma 4:2:0, and the JPEG has 4:4:4"),
        (operators.Identity(), 0.5, "trained for sigma 0 to 0.2, and the sigma is 0.5"),
        (operators.Blur(ir.kernels.box(11)), 0.0, "kernel side 1 to 9, and the kernel side is 11"),
        (operators.JPEG(30), 0.9, ""),
        (operators.Identity(), 0.2, ""),
    ],
)
def test_restorers_object_to_what_they_were_not_trained_for(operator, sigma, reason) -> None:
    found = FeedForward(tiny(), degradations=TRAINED).objection(operator, torch.tensor([sigma]))
    assert reason in found
    assert bool(reason) == bool(found)


def test_restorers_of_reduced_images_object_to_other_factors_and_levels() -> None:
    prior = FeedForward(tiny(), degradations=({"kind": "reduced", "factor": (2, 3, 4), "sigma": (0.0, 0.1)},))
    assert prior.objection(operators.Downsample(3), torch.tensor([0.1])) == ""
    assert "factor 2 to 4, and the factor is 8" in prior.objection(operators.Downsample(8), torch.zeros(1))
    assert "the sigma is 0.3" in prior.objection(operators.Downsample(2), torch.tensor([0.3]))


def hole(side: int, width: int | None = None) -> operators.Mask:
    mask = torch.ones(1, 1, 40, 40)
    mask[..., 2 : 2 + side, 3 : 3 + (width or side)] = 0
    return operators.Mask(mask)


def test_restorers_of_squares_object_to_other_holes(rng) -> None:
    prior = FeedForward(tiny(), degradations=({"kind": "block", "size": (8, 16)},))
    assert prior.objection(hole(12), torch.zeros(1)) == ""
    assert prior.objection(hole(10, 14), torch.zeros(1)) == ""
    assert "side of the hole 8 to 16, and the side of the hole is 30" in prior.objection(
        hole(30), torch.zeros(1)
    )
    scattered = operators.Mask(torch.rand(1, 1, 40, 40, generator=rng) < 0.7)
    assert "one square hole, and the missing pixels are scattered" in prior.objection(
        scattered, torch.zeros(1)
    )
    both = operators.Mask(torch.cat([hole(12).mask, hole(20).mask]))
    assert "is 20" in prior.objection(both, torch.zeros(2))


def test_sparse_restorers_object_to_masks_with_other_shares(rng) -> None:
    prior = FeedForward(tiny(), degradations=({"kind": "sparse", "keep": (0.01, 0.2)},))
    dense = operators.Mask(torch.rand(20, 20, generator=rng) < 0.7)
    assert "share of known pixels" in prior.objection(dense, torch.zeros(1))
    assert prior.objection(operators.SparseSampling((3, 20, 20), keep=0.2), torch.zeros(1)) == ""
    assert FeedForward(tiny()).objection(dense, torch.zeros(1)) == ""


def test_solve_warns_with_the_reason_and_notes_it(rng) -> None:
    prior = FeedForward(tiny().float(), degradations=TRAINED)
    y = torch.rand(1, 3, 4, 4, generator=rng)
    with pytest.warns(UserWarning, match="may fail, because it was trained for .* is Downsample"):
        found = ir.solve(y, operators.Downsample(2), prior, sigma=0.0)
    assert "the operator is Downsample" in str(found)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ir.solve(y, operators.JPEG(20), prior)


# Refinement -------------------------------------------------------------------------------------------------


def psnr(x: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    return ir.psnr(x, truth)


@pytest.mark.parametrize(
    "operator",
    [
        operators.SparseSampling((3, 16, 16), keep=0.3),
        operators.Downsample(2),
        operators.Grayscale(),
        operators.Blur(ir.kernels.gaussian(0.7).double()),
        operators.Identity(),
    ],
    ids=lambda o: o.name,
)
def test_refinement_never_takes_noiseless_linear_answers_further_from_the_truth(operator, rng) -> None:
    truth = images(rng, 3, 3, 16, 16)
    y = operator(truth)
    prior = FeedForward(tiny())
    plain = ir.solve(y, operator, prior, sigma=0.0)
    refined = ir.solve(y, operator, prior, sigma=0.0, refine=True)
    assert bool((psnr(refined.x, truth) >= psnr(plain.x, truth)).all())
    torch.testing.assert_close(operator(refined.x), y, rtol=0, atol=1e-6)
    torch.testing.assert_close(refined.stages["restored"], plain.x)


def test_refinement_of_noisy_data_stops_at_the_noise_level(rng) -> None:
    A = operators.Blur(ir.kernels.gaussian(1.0).double())
    truth = images(rng, 3, 3, 24, 24)
    y = ir.corruptions.Gaussian(0.05)(A(truth), rng)
    prior = FeedForward(tiny())
    plain, refined = (ir.solve(y, A, prior, sigma=0.055, refine=flag).x for flag in (False, True))

    def misfit(x: torch.Tensor) -> torch.Tensor:
        return (A(x) - y).flatten(1).square().mean(1).sqrt()

    assert bool((misfit(plain) > 0.06).all())
    torch.testing.assert_close(
        misfit(refined), torch.full((3,), 0.055, dtype=torch.float64), rtol=1e-3, atol=0
    )
    assert bool((psnr(refined, truth) >= psnr(plain, truth)).all())
    close = ir.solve(y, operators.Identity(), FeedForward(tiny()), sigma=0.9, refine=True)
    torch.testing.assert_close(close.x, close.stages["restored"])


@pytest.mark.parametrize("operator", [operators.Quantize(5), operators.JPEG(20, subsampling="4:4:4")])
def test_refinement_of_rounded_data_stays_in_their_intervals(operator, rng) -> None:
    truth = torch.nn.functional.avg_pool2d(images(rng, 2, 3, 36, 36), 5, 1, 0)
    y = operator(truth)
    plain, refined = (ir.solve(y, operator, FeedForward(tiny()), refine=flag).x for flag in (False, True))
    assert bool((psnr(refined, truth) > psnr(plain, truth)).all())


def test_refinement_is_refused_where_there_is_nothing_to_project_onto(rng) -> None:
    y = images(rng, 1, 3, 8, 8)
    with pytest.raises(CapabilityError, match=r"refine=True.*a feed-forward restorer"):
        ir.solve(y, operators.Identity(), priors.TV(0.1), sigma=0.1, refine=True)
    with pytest.raises(CapabilityError, match=r"a linear operator, Quantize or JPEG.*priors\.Restoration"):
        ir.solve(y, lambda x: x**2, FeedForward(tiny()), sigma=0.1, refine=True)


def test_shipped_restorers_load_by_name_with_their_degradations(monkeypatch, tmp_path) -> None:
    card = networks.Card(
        name="mine",
        architecture="RestorationUNet",
        arguments={"widths": [4, 8], "blocks": 1, "informed": True},
        sha256="",
        channels=3,
        sigma_range=None,
        parameters=0,
        data="",
        licence="",
        metrics={},
        training="",
        recipe="",
        commit="",
        reference="",
        degradations=({"kind": "jpeg", "quality": [5, 60]},),
    )
    networks.save(tiny().float(), tmp_path / "mine.safetensors", card)
    monkeypatch.setenv("INVRESTORE_WEIGHTS", str(tmp_path))
    prior = priors.load("mine")
    assert isinstance(prior, FeedForward)
    assert prior.degradations == ({"kind": "jpeg", "quality": [5, 60]},)
    found = ir.solve(torch.rand(1, 3, 16, 16), operators.JPEG(10), "mine")
    assert found.method == "restorer"
