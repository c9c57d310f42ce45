"""Latent search: known latents are found again, each image on its own, and networks stay as they were."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

import invrestore as ir
from invrestore.priors import Latent
from invrestore.solvers import Film, LatentSearch

SIZE = 6


def relu_decoder(latent=4, seed=0):
    """A decoder whose latents can be found from few pixels, with values in (0, 1)."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(latent, 24),
        nn.ReLU(),
        nn.Linear(24, 3 * SIZE * SIZE),
        nn.Sigmoid(),
        nn.Unflatten(1, (3, SIZE, SIZE)),
    ).double()


def linear_decoder(latent=4, seed=0):
    rng = torch.Generator().manual_seed(seed)
    G = nn.Sequential(nn.Linear(latent, 3 * SIZE * SIZE), nn.Unflatten(1, (3, SIZE, SIZE))).double()
    G[0].weight.data = 0.1 * torch.randn(G[0].weight.shape, generator=rng, dtype=torch.float64)
    G[0].bias.data = torch.full_like(G[0].bias, 0.5)
    return G


class Styled(nn.Module):
    """A style-based generator in miniature, with features after its first layer."""

    num_layers = 2
    latent_dim = 3

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.mapping = nn.Sequential(nn.Linear(3, 4), nn.LeakyReLU(0.2))
        self.synthesis = Synthesis()
        self.double()

    def forward(self, z):
        return self.synthesis(self.mapping(z))


class Synthesis(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 12), nn.Linear(4, 12)
        self.last = nn.Linear(12, 3 * SIZE * SIZE)

    def _of_layers(self, ws):
        return ws[:, None].expand(-1, 2, -1) if ws.ndim == 2 else ws

    def features(self, ws, layer):
        assert layer == 1
        return (torch.tanh(self.first(self._of_layers(ws)[:, 0])),)

    def forward(self, ws, features=None, layer=0):
        h = self.features(ws, 1)[0] if features is None else features
        mixed = h * torch.sigmoid(self.second(self._of_layers(ws)[:, 1]))
        return torch.sigmoid(self.last(mixed)).view(-1, 3, SIZE, SIZE)


def plain(G, latent=4, **options):
    """A prior without post-processing, so that tests see the search itself."""
    settings = {"adapt": 0, "consistency": False, "blend": "none", "importance": 0.0}
    settings |= {"restarts": 4, "candidates": 16, "evidence": 2.0}
    return Latent(G, latent_dim=latent, **settings | options)


@pytest.fixture
def mask(rng):
    return ir.operators.Mask(torch.rand(1, 1, SIZE, SIZE, generator=rng) < 0.4)


@pytest.fixture
def masks(rng):
    """A different mask for each of seven images."""
    return ir.operators.Mask(torch.rand(7, 1, SIZE, SIZE, generator=rng) < 0.5)


def latents(count, latent=4):
    return torch.randn(count, latent, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


# --- recovery ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("optimiser", "accuracy"), [("adam", 1e-3), ("nesterov", 1e-1), ("lbfgs", 1e-3)])
def test_a_known_latent_is_found_from_a_few_pixels(mask, optimiser, accuracy):
    prior = plain(relu_decoder(), optimiser=optimiser)
    z = latents(3)
    solution = ir.solve(mask(prior.generate(z)), mask, prior, sigma=0.0)
    assert solution.method == "latent"
    assert (solution.z - z).abs().max() < accuracy
    torch.testing.assert_close(solution.x, prior.generate(solution.z))


OPERATORS = {
    "blur": ir.operators.Blur(ir.kernels.gaussian(1.0).double()),
    "downsample": ir.operators.Downsample(2),
    "grayscale": ir.operators.Grayscale(),
    "value": ir.operators.Value(),
    "function": ir.operators.Callable(lambda x: x.clamp_min(1e-3).sqrt()),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_linear_and_nonlinear_operators_are_inverted(name):
    A, prior = OPERATORS[name], plain(relu_decoder())
    x = prior.generate(latents(2))
    assert (ir.solve(A(x), A, prior, sigma=0.0).x - x).abs().max() < 1e-3


@pytest.mark.parametrize("gradient", ["straight-through", "soft"])
def test_gradients_of_quantisation_and_jpeg_lead_to_the_image(gradient):
    prior = plain(relu_decoder(), candidates=1, restarts=1)
    x = prior.generate(latents(4))
    for A in (ir.operators.Quantize(9, gradient=gradient), ir.operators.JPEG(30, gradient=gradient)):
        start = ir.solve(A(x), A, prior, fidelity="l2", max_steps=1, tol=0.0)
        found = ir.solve(A(x), A, prior, fidelity="l2", max_steps=100)
        assert ir.psnr(found.x, x).mean() > ir.psnr(start.x, x).mean() + 5


def test_quantised_images_are_read_as_intervals_unless_told_otherwise():
    A, prior = ir.operators.Quantize(9), plain(relu_decoder())
    x = prior.generate(latents(3))
    found = ir.solve(A(x), A, prior)
    assert "interval of values" in str(found)
    assert float(ir.psnr(found.x, x).min()) > 30


def test_deepinv_physics_is_accepted(rng):
    import deepinv

    prior = plain(relu_decoder())
    x = prior.generate(latents(3))
    mask = (torch.rand(3, SIZE, SIZE, generator=rng) < 0.5).double()
    physics = deepinv.physics.Inpainting((3, SIZE, SIZE), mask=mask)
    solution = ir.solve(physics.A(x), physics, prior, sigma=0.0)
    assert (solution.x - x).abs().max() < 1e-3


def test_a_linear_generator_gives_the_ridge_solution(mask):
    G, lam = linear_decoder(), 0.03
    V, mean = G[0].weight, G[0].bias
    y = mask(torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3), dtype=torch.float64))
    known = mask.mask.expand(1, 3, -1, -1).flatten().double()
    M = V.T @ (known[:, None] * V) + lam * torch.eye(4, dtype=torch.float64)
    right = ((y.flatten(1) - known * mean) * known) @ V
    z = torch.linalg.solve(M, right.T).T
    prior = plain(G, lam=lam, optimiser="lbfgs")
    solution = ir.solve(y, mask, prior, sigma=0.0, tol=1e-9)
    torch.testing.assert_close(solution.z, z.detach(), rtol=0, atol=1e-6)
    torch.testing.assert_close(solution.lam, torch.full((2,), lam, dtype=torch.float64))


def test_importance_weights_enter_the_least_squares_problem():
    known = torch.ones(1, 1, SIZE, SIZE, dtype=torch.float64)
    known[..., 0:2, 0:2] = 0
    A = ir.operators.Mask(known)
    G = linear_decoder()
    y = A(torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3), dtype=torch.float64))
    share = 0.7
    W = known * (1 - share + share * ir.solvers.importance_weights(known))
    w = W.expand(1, 3, -1, -1).flatten().square()
    V = G[0].weight.detach()
    z = torch.linalg.solve(V.T @ (w[:, None] * V), V.T @ (w * (y - 0.5).flatten()))
    solution = ir.solve(y, A, plain(G, lam=0.0, importance=share, optimiser="lbfgs"), sigma=0.0, tol=1e-10)
    torch.testing.assert_close(solution.z[0], z, rtol=0, atol=1e-6)


# --- the objective ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fidelity", ["l2", "l1", "huber"])
def test_the_answer_minimises_the_objective_as_it_is_written(fidelity, mask):
    G, lam = relu_decoder(), 0.05
    torch.manual_seed(5)
    D = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 1), nn.Sigmoid()).double()
    prior = plain(G, lam=lam, discriminator=D, discriminator_output="probability", optimiser="lbfgs")
    y = mask(torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3), dtype=torch.float64))
    solution = ir.solve(y, mask, prior, fidelity=fidelity, sigma=0.1, tol=1e-8, max_steps=600)

    def objective(z):
        x = G(z)
        real = D(x)[:, 0]
        density = torch.distributions.Normal(0, 1).log_prob(z).sum(1)
        data = {"l2": ir.fidelity.L2(), "l1": ir.fidelity.L1(), "huber": ir.fidelity.Huber()}[fidelity]
        return data.value(mask(x), y) + lam * (torch.log(1 - real) - torch.log(real) - density)

    with torch.no_grad():
        best = objective(solution.z)
        rng = torch.Generator().manual_seed(0)
        for scale in (1e-2, 1e-1, 1.0):
            nearby = solution.z + scale * torch.randn(200, 4, generator=rng, dtype=torch.float64)
            assert (objective(nearby) >= best - 1e-6).all()


def test_the_discriminator_draws_the_answer_towards_images_it_believes():
    G = linear_decoder()
    y = torch.full((1, 3, SIZE, SIZE), 0.5, dtype=torch.float64)
    A = ir.operators.Identity()

    def bright(x):
        return 50 * x.flatten(1).mean(1)

    without = ir.solve(y, A, plain(G, lam=0.1), sigma=0.1)
    drawn = ir.solve(y, A, plain(G, lam=0.1, discriminator=bright), sigma=0.1)
    off = ir.solve(y, A, plain(G, lam=0.1, discriminator=bright, discriminator_weight=0.0), sigma=0.1)
    assert drawn.x.mean() > without.x.mean() + 1e-3
    torch.testing.assert_close(off.x, without.x)


def test_the_weight_found_is_the_noise_level_or_what_the_generator_cannot_explain(rng):
    prior, A = plain(linear_decoder()), ir.operators.Identity()
    x = prior.generate(latents(2))
    y = x + 0.2 * torch.randn(x.shape, generator=rng, dtype=torch.float64)
    explained = ir.solve(y, A, prior, sigma=0.3)
    torch.testing.assert_close(explained.lam, torch.full((2,), 0.09, dtype=torch.float64))
    unexplained = ir.solve(y, A, prior, sigma=0.01)
    misfit = (unexplained.x - y).flatten(1).square().mean(1)
    # 108 samples, 4 latent dimensions, 2 errors for each: 13.5 samples to an error.
    torch.testing.assert_close(unexplained.lam, 1e-4 + 13.5 * (misfit - 1e-4), rtol=1e-3, atol=0)
    alone = ir.solve(y, A, plain(linear_decoder(), evidence=100.0), sigma=0.01)
    torch.testing.assert_close(alone.lam, (alone.x - y).flatten(1).square().mean(1), rtol=1e-3, atol=0)


def test_the_objective_for_an_unknown_error_is_smooth_and_follows_its_weight(mask):
    from invrestore.solvers._latent_objective import Group
    from invrestore.solvers._problem import Problem

    prior = plain(linear_decoder())
    y = mask(torch.full((1, 3, SIZE, SIZE), 0.5, dtype=torch.float64))
    sigma = torch.tensor([0.05], dtype=torch.float64)
    problem = Problem(y, mask, ir.fidelity.L2(), prior, sigma, (3, SIZE, SIZE))
    group = Group(problem, prior, torch.arange(1), 8)

    def at(error):
        x = (y + error).requires_grad_()
        value = group.evaluate(group.whole, x, torch.zeros(1, dtype=torch.float64))
        (slope,) = torch.autograd.grad(value.total.sum(), x)
        return value, slope, x

    for error in (0.01, 0.049999, 0.050001, 0.3):
        value, slope, x = at(error)
        expected = mask(x - y).detach() / group.lam(group.whole, value.data.detach())
        torch.testing.assert_close(slope, expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(at(0.05 + 1e-9)[0].total, at(0.05 - 1e-9)[0].total, rtol=0, atol=1e-5)


# --- batches, restarts, stopping ----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"optimiser": "lbfgs"}, {"adapt": 12, "prune": False}], ids=str)
def test_a_batch_equals_its_images_solved_alone(options, masks):
    prior = plain(relu_decoder(), **options)
    truth = torch.rand(7, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x = 0.7 * prior.generate(latents(7)) + 0.3 * truth
    y = masks(x)
    together = ir.solve(y, masks, prior, sigma=0.0, max_steps=150)
    steps = []
    for k in range(7):
        A = ir.operators.Mask(masks.mask[k : k + 1])
        alone = ir.solve(y[k : k + 1], A, prior, sigma=0.0, max_steps=150)
        steps.append(int(alone.steps))
        torch.testing.assert_close(together.x[k], alone.x[0], rtol=0, atol=1e-6)
        torch.testing.assert_close(together.z[k], alone.z[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(together.losses[k], alone.losses[0], rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(together.spread[k], alone.spread[0], rtol=0, atol=1e-5)
    assert together.steps.tolist() == steps
    assert options.get("optimiser") or len(set(steps)) > 1


@pytest.mark.parametrize("operator", ["mask", "function"])
def test_the_answer_does_not_depend_on_how_the_work_is_cut(masks, operator):
    # A function may hold its masks where nobody sees them: then the batch is kept whole.
    shape = (3, SIZE, SIZE)
    hidden = ir.operators.Callable(lambda x: masks(x) * 1.0, input_shape=shape, output_shape=shape)
    A = masks if operator == "mask" else hidden
    whole, cut = plain(relu_decoder()), plain(relu_decoder(), chunk=3)
    y = masks(whole.generate(latents(7)))
    first, second = (ir.solve(y, A, p, sigma=0.0, max_steps=60) for p in (whole, cut))
    torch.testing.assert_close(first.x, second.x, rtol=0, atol=1e-7)
    assert first.steps.tolist() == second.steps.tolist()


def test_every_restart_reports_its_loss_and_the_best_one_is_kept(mask):
    prior = plain(relu_decoder(), prune=False)
    y = mask(prior.generate(latents(3)))
    solution = ir.solve(y, mask, prior, sigma=0.0, restarts=6, max_steps=30, tol=0.0)
    assert solution.losses.shape == (3, 6)
    misfit = 0.5 * (mask(solution.stages["raw"]) - y).flatten(1).square().sum(1)
    torch.testing.assert_close(solution.losses.amin(1), misfit, rtol=1e-6, atol=0)
    one = ir.solve(y, mask, prior, sigma=0.0, restarts=1, max_steps=30, tol=0.0)
    assert (solution.losses.amin(1) <= one.losses[:, 0] + 1e-12).all()
    # The first restart of six is the single one: starts are ordered by data loss.
    torch.testing.assert_close(solution.losses[:, 0], one.losses[:, 0], rtol=1e-6, atol=1e-12)


def test_a_descent_in_bfloat16_ends_in_images_of_full_precision():
    torch.manual_seed(0)
    model = ir.networks.FaceGAN(16, 3, 8, (16, 16), (4, 8), (4, 8), mapping_layers=2)
    model = model.eval().requires_grad_(False)
    truth = model(torch.randn(2, 8))
    operator = ir.operators.Downsample(2)
    found = {}
    for precision in ("full", "bfloat16"):
        prior = Latent(model.generator, model.discriminator, precision=precision, adapt=0, consistency=False)
        found[precision] = ir.solve(operator(truth), operator, prior, sigma=0.01, max_steps=60)
    quick, full = found["bfloat16"], found["full"]
    assert torch.equal(quick.stages["raw"], model.generator.synthesis(quick.z))
    assert not torch.equal(quick.z, full.z)
    assert (ir.metrics.psnr(quick.x, truth) > ir.metrics.psnr(full.x, truth) - 0.5).all()


def test_a_better_table_of_starts_begins_lower(mask):
    G = relu_decoder()
    y = mask(plain(G).generate(latents(5)))
    losses = [
        ir.solve(y, mask, plain(G, candidates=n, restarts=1), sigma=0.0, max_steps=1, tol=0.0).losses.sum()
        for n in (1, 64)
    ]
    assert losses[1] < 0.7 * losses[0]


def test_restarts_that_fall_behind_are_dropped(mask):
    prior = plain(relu_decoder(), restarts=8)
    y = mask(prior.generate(latents(2)))
    calls = {"n": 0}

    def count(module, inputs, output):
        calls["n"] += len(output)

    handle = prior.generator.register_forward_hook(count)
    spent = []
    for prune in (False, True):
        calls["n"] = 0
        settings = plain(prior.generator, restarts=8, prune=prune)
        ir.solve(y, mask, settings, sigma=0.0, max_steps=200, tol=0.0)
        spent.append(calls["n"])
    handle.remove()
    assert spent[1] < 0.5 * spent[0]


def test_the_solution_says_whether_the_search_came_to_its_end(mask):
    prior = plain(relu_decoder(), optimiser="lbfgs", restarts=1)
    y = mask(prior.generate(latents(2)))
    full = ir.solve(y, mask, prior, sigma=0.0, max_steps=400)
    assert full.status is ir.Status.CONVERGED
    assert (full.steps < 400).all()
    short = ir.solve(y, mask, prior, sigma=0.0, max_steps=20)
    assert short.status is ir.Status.MAX_STEPS
    assert short.steps.tolist() == [20, 20]


def test_the_same_seed_gives_the_same_answer_bit_for_bit(mask):
    prior = plain(relu_decoder())
    y = mask(prior.generate(latents(2)))
    runs = [
        ir.solve(y, mask, prior, sigma=0.0, max_steps=20, rng=torch.Generator().manual_seed(s)).z
        for s in (3, 3, 4)
    ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    default = [ir.solve(y, mask, prior, sigma=0.0, max_steps=20).z for _ in range(2)]
    assert torch.equal(*default)


def test_the_spread_shows_where_the_data_leave_the_image_open():
    class Ambiguous(nn.Module):
        """The left half says how large |z| is, the right half its sign."""

        latent_dim = 1

        def forward(self, z):
            left = (z.abs() / 4).view(-1, 1, 1, 1).expand(-1, 3, 4, 2)
            right = torch.sigmoid(4 * z).view(-1, 1, 1, 1).expand(-1, 3, 4, 2)
            return torch.cat([left, right], -1)

    known = torch.zeros(1, 1, 4, 4)
    known[..., :2] = 1
    A = ir.operators.Mask(known)
    prior = Latent(Ambiguous(), restarts=8, prune=False)
    y = A(prior.generate(torch.tensor([[1.2]])))
    solution = ir.solve(y, A, prior, sigma=0.0)
    assert float(solution.spread[..., :2].max()) < 1e-3
    assert float(solution.spread[..., 2:].min()) > 0.3
    assert ir.solve(y, A, prior, sigma=0.0, restarts=1).spread is None, "0 would claim that all is known"


# --- starts and spaces --------------------------------------------------------------------------------------------


def test_a_given_latent_is_where_the_search_starts(mask):
    prior = plain(relu_decoder(), restarts=1)
    z = latents(3)
    y = mask(prior.generate(z))
    for init in (z, z[:, None]):
        found = ir.solve(y, mask, prior, sigma=0.0, init=init, max_steps=1, tol=0.0)
        torch.testing.assert_close(found.z, z)


def test_the_encoder_gives_a_start_and_looks_again_at_its_reconstruction(mask):
    G = linear_decoder()
    pinv = torch.linalg.pinv(G[0].weight.detach())
    seen = []

    def encoder(x):
        seen.append(x)
        return (x.flatten(1) - 0.5) @ pinv.T, "its variance"

    prior = plain(G, encoder=encoder, candidates=1, restarts=1, encoder_rounds=6)
    x = prior.generate(latents(2))
    losses = []
    for rounds in (1, 6):
        chosen = plain(G, encoder=encoder, candidates=1, restarts=1, encoder_rounds=rounds)
        losses.append(ir.solve(mask(x), mask, chosen, sigma=0.0, max_steps=1, tol=0.0).losses.sum())
    assert losses[1] < 0.5 * losses[0]
    # Later rounds see the measurement where it is known and the reconstruction in the holes.
    torch.testing.assert_close(mask(seen[-1]), mask(x))
    whole = ir.solve(mask(x), mask, prior, sigma=0.0, init=x, max_steps=1, tol=0.0)
    assert float(whole.losses.max()) < 1e-12


def test_styles_of_layers_are_left_alone_where_colours_are_not_measured():
    prior = plain(Styled(), latent=3)
    x = prior.generate(latents(1, 3))
    for A, path in ((ir.operators.Grayscale(), "w, 4"), (ir.operators.Downsample(2), "w, then w+, 4")):
        choices = ir.solve(A(x), A, prior, sigma=0.0, max_steps=20).choices
        assert any(f"search: {path} restart" in choice for choice in choices)


def mean_image(G):
    """The image of the mean style, from more latents than the search takes."""
    z = torch.randn(100_000, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return G.synthesis(G.mapping(z).mean(0, keepdim=True)).detach()


@pytest.mark.parametrize(("settings", "at_mean"), [({}, True), ({"mean_start": False}, False)])
def test_one_restart_without_an_encoder_begins_at_the_mean_style(settings, at_mean, mask):
    G = Styled()
    prior = plain(G, latent=3, space="w", restarts=1, **settings)
    # The first look at the images is before the first step.
    seen = []
    ir.solve(
        mask(G(latents(2, 3))), mask, prior, sigma=0.0, max_steps=1, callback=lambda _, x: seen.append(x)
    )
    assert (float((seen[0] - mean_image(G)).abs().max()) < 1e-2) == at_mean


def test_an_encoder_begins_except_on_gray_data_which_show_it_no_colours():
    G = Styled()
    code = G.mapping(latents(1, 3)).detach() + 1.0

    def encoder(x):
        return code.expand(len(x), -1)

    encoder.space = "w"
    prior = plain(G, latent=3, encoder=encoder, candidates=1, restarts=1)
    x = G.synthesis(code).detach()
    for A, start in ((ir.operators.Downsample(2), x), (ir.operators.Grayscale(), mean_image(G))):
        seen = []
        ir.solve(
            A(x), A, prior, sigma=0.0, max_steps=1, callback=lambda _, image, seen=seen: seen.append(image)
        )
        assert float((seen[0] - start).abs().max()) < 1e-2


def test_the_prior_says_how_many_steps_a_search_takes(mask):
    prior = plain(relu_decoder(), steps=7)
    y = mask(prior.generate(latents(1)))
    assert ir.solve(y, mask, prior, sigma=0.0, tol=0.0).steps.tolist() == [7]
    assert ir.solve(y, mask, prior, sigma=0.0, tol=0.0, max_steps=5).steps.tolist() == [5]


def test_a_search_that_used_its_steps_up_is_not_told_to_take_more(mask):
    prior = plain(relu_decoder(), steps=7)
    text = str(ir.solve(mask(prior.generate(latents(1))), mask, prior, sigma=0.0))
    assert "stopped at max_steps" in text
    assert "may make worse" in text
    assert "Raise max_steps" not in text


@pytest.mark.parametrize("space", ["z", "w", "w+", "auto"])
def test_styles_are_searched_where_the_generator_has_them(space, mask):
    prior = plain(Styled(), latent=3, space=space, restarts=6)
    x = prior.generate(latents(2, 3))
    solution = ir.solve(mask(x), mask, prior, sigma=0.0, max_steps=600)
    assert (solution.x - x).abs().max() < 2e-2
    assert solution.z.shape == {"z": (2, 3), "w": (2, 4)}.get(space, (2, 2, 4))


def test_richer_spaces_fit_images_better_that_the_generator_cannot_make():
    A = ir.operators.Identity()
    y = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    losses = [
        ir.solve(
            y, A, plain(Styled(), latent=3, lam=1e-4, **how), sigma=0.05, max_steps=400, tol=0.0
        ).losses.amin(1)
        for how in ({"space": "z"}, {"space": "w+"}, {"space": "w+", "layer": 1, "layer_radius": 2.0})
    ]
    assert (losses[1] < losses[0]).all()
    assert (losses[2] < losses[1]).all()


def test_a_layer_moves_no_farther_than_its_ball():
    G = relu_decoder()
    y = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    prior = plain(G, layer=2, layer_radius=0.3, lam=0.0)
    solution = ir.solve(y, ir.operators.Identity(), prior, sigma=0.05, tol=0.0, max_steps=400)
    h = G[:2](solution.z)
    # The last layers are injective: the layer's output behind the image can be computed back.
    painted = torch.logit(solution.stages["raw"].flatten(1)) - G[2].bias
    found = torch.linalg.lstsq(G[2].weight.detach(), painted.T.detach()).solution.T
    moved = (found - h).norm(dim=1) / h.norm(dim=1)
    assert (moved <= 0.3 + 1e-6).all()
    assert (moved > 0.25).all()


def test_latents_stay_on_the_sphere_or_in_the_box():
    G = linear_decoder()
    y = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    A = ir.operators.Identity()
    with pytest.raises(ir.RangeError, match="space='z'"):
        plain(G, confine="sphere", space="w")
    sphere = ir.solve(y, A, plain(G, confine="sphere"), sigma=0.1).z
    torch.testing.assert_close(sphere.norm(dim=1), torch.full((2,), 2.0, dtype=torch.float64))
    assert float(ir.solve(y, A, plain(G, confine="clip", bound=0.1), sigma=0.1).z.abs().max()) <= 0.1
    assert float(ir.solve(10 * y / 4, A, plain(G, distribution="uniform"), sigma=0.1).z.abs().max()) <= 1


# --- after the search -----------------------------------------------------------------------------------------------


def test_exact_data_hold_exactly_in_the_answer_and_every_stage_is_kept(mask):
    prior = Latent(relu_decoder(), latent_dim=4, adapt=5)
    truth = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    solution = ir.solve(mask(truth), mask, prior, sigma=0.0, max_steps=40)
    assert list(solution.stages) == ["raw", "adapted", "consistent", "blended"]
    torch.testing.assert_close(mask(solution.x), mask(truth), rtol=0, atol=0)
    assert torch.equal(solution.x, solution.stages["blended"])
    torch.testing.assert_close(
        solution.x, ir.solvers.poisson_blend(solution.stages["adapted"], mask(truth), mask.mask)
    )
    down = ir.operators.Downsample(2)
    solution = ir.solve(down(truth), down, prior, sigma=0.0, max_steps=40)
    assert list(solution.stages) == ["raw", "adapted", "consistent", "blended"]
    torch.testing.assert_close(down(solution.x), down(truth), rtol=0, atol=1e-9)


def test_plain_map_is_what_remains_when_every_part_is_off(mask):
    prior = Latent(
        relu_decoder(),
        latent_dim=4,
        space="z",
        candidates=1,
        restarts=1,
        adapt=0,
        consistency=False,
        blend="none",
    )
    solution = ir.solve(mask(prior.generate(latents(1))), mask, prior, sigma=0.0, max_steps=40)
    assert list(solution.stages) == ["raw"]
    assert torch.equal(solution.x, solution.stages["raw"])
    assert solution.losses.shape == (1, 1)


def test_quantised_data_hold_exactly_in_the_answer():
    A = ir.operators.Quantize(5)
    truth = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    solution = ir.solve(A(truth), A, Latent(relu_decoder(), latent_dim=4, adapt=0), max_steps=40)
    lower, upper = A.interval(A(truth))
    assert ((solution.x >= lower) & (solution.x <= upper)).all()


def test_brightness_is_transplanted_when_asked_for():
    A = ir.operators.Grayscale()
    prior = Latent(relu_decoder(), latent_dim=4, adapt=0, consistency=False, blend="value")
    y = A(prior.generate(latents(1)))
    solution = ir.solve(y, A, prior, sigma=0.0, max_steps=40)
    torch.testing.assert_close(solution.x.amax(1, keepdim=True), y)


def test_gray_pictures_get_smooth_colours_and_keep_their_luma():
    A = ir.operators.Grayscale()
    prior = Latent(relu_decoder(), latent_dim=4, adapt=0)
    truth = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    solution = ir.solve(A(truth), A, prior, sigma=0.0, max_steps=40)
    assert list(solution.stages) == ["raw", "consistent", "blended"]
    torch.testing.assert_close(A(solution.x), A(truth))
    rough, smooth = (solution.stages[name] - A(truth) for name in ("consistent", "blended"))
    assert smooth.diff(dim=-1).abs().mean() < 0.5 * rough.diff(dim=-1).abs().mean()


AVERAGED = {
    "noise": (ir.operators.Identity(), 0.1, 0.85),
    "blur and noise": (ir.operators.Blur(ir.kernels.gaussian(1.0).double()), 0.1, 0.85),
    "reduced": (ir.operators.Downsample(2), 0.0, 0.5),
    "levels": (ir.operators.Quantize(5), None, 0.7),
    "jpeg": (ir.operators.JPEG(20), None, 0.7),
    "gray": (ir.operators.Grayscale(), 0.0, 0.0),
    "gray and noise": (ir.operators.Grayscale(), 0.1, 0.0),
    "hole": (ir.operators.Mask((torch.arange(SIZE) < 1).expand(SIZE, SIZE)), 0.0, 0.0),
    "scattered": (ir.operators.Mask((torch.arange(SIZE) % 3 == 0).expand(SIZE, SIZE)), 0.0, 0.7),
}


@pytest.mark.parametrize("name", AVERAGED)
def test_the_answer_of_a_denoiser_is_averaged_in_where_it_knows_something(name):
    operator, sigma, share = AVERAGED[name]
    denoiser = ir.priors.Denoiser(lambda x, s: 0.9 * x + 0.05)
    prior = Latent(relu_decoder(), latent_dim=4, adapt=0, denoiser=denoiser)
    y = operator(linear_decoder(seed=3)(latents(2)).clamp(0, 1))
    s = ir.solve(y, operator, prior, sigma=sigma, max_steps=20)
    alone = ir.solve(y, operator, dataclasses.replace(prior, denoiser=None), sigma=sigma, max_steps=20)
    assert ("averaged" in s.stages) == (share > 0)
    other = ir.solve(y, operator, denoiser, sigma=sigma).x
    if name != "jpeg":
        torch.testing.assert_close(s.x, (1 - share) * alone.x + share * other)
    if name == "reduced":
        torch.testing.assert_close(operator(s.x), y, atol=1e-6, rtol=0)
    if name == "levels":
        lower, upper = operator.interval(y)
        assert ((s.x >= lower) & (s.x <= upper)).all()


def test_masks_of_a_batch_decide_each_for_itself():
    masks = torch.zeros(2, 1, SIZE, SIZE)
    masks[0, :, 0, 0] = 1
    masks[1, :, :, ::3] = 1
    denoiser = ir.priors.Denoiser(lambda x, s: 0.9 * x + 0.05)
    prior = Latent(relu_decoder(), latent_dim=4, denoiser=denoiser)
    truth = linear_decoder(seed=3)(latents(2)).clamp(0, 1)
    together = ir.solve(
        ir.operators.Mask(masks)(truth), ir.operators.Mask(masks), prior, sigma=0.0, max_steps=10
    )
    for k in range(2):
        A = ir.operators.Mask(masks[k : k + 1])
        alone = ir.solve(A(truth[k : k + 1]), A, prior, sigma=0.0, max_steps=10)
        torch.testing.assert_close(together.x[k : k + 1], alone.x)
        assert ("averaged" in alone.stages) == ("adapted" in alone.stages) == (k == 1)


def test_rounded_data_are_not_adapted_to_where_a_denoiser_answers():
    A, denoiser = ir.operators.Quantize(5), ir.priors.Denoiser(lambda x, s: 0.9 * x + 0.05)
    y = A(linear_decoder(seed=3)(latents(1)).clamp(0, 1))
    for given, share, adapted in ((denoiser, None, False), (denoiser, 0.0, True), (None, None, True)):
        prior = Latent(relu_decoder(), latent_dim=4, denoiser=given, denoised=share)
        assert ("adapted" in ir.solve(y, A, prior, max_steps=10).stages) == adapted


def test_the_share_of_the_denoiser_can_be_set(mask):
    denoiser = ir.priors.Denoiser(lambda x, s: 0.9 * x + 0.05)
    prior = Latent(relu_decoder(), latent_dim=4, adapt=0, denoiser=denoiser, denoised=1.0)
    y = mask(linear_decoder(seed=3)(latents(2)).clamp(0, 1))
    found = ir.solve(y, mask, prior, sigma=0.0, max_steps=20).x
    torch.testing.assert_close(found, ir.solve(y, mask, denoiser, sigma=0.0).x)


def test_adaptation_reaches_images_the_generator_cannot_make():
    A = ir.operators.Downsample(2)
    truth = torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    prior = plain(relu_decoder(), adapt=100, adapt_rate=2e-2)
    stages = ir.solve(A(truth), A, prior, sigma=0.0, max_steps=100).stages
    before, after = ((A(stages[n]) - A(truth)).flatten(1).norm(dim=1) for n in ("raw", "adapted"))
    assert (after < 0.2 * before).all()


def test_large_holes_are_not_adapted_to_unless_asked_for(rng):
    sizes = torch.rand(1, 1, SIZE, SIZE, generator=rng) < 0.4, torch.zeros(1, 1, SIZE, SIZE)
    sizes[1][..., 0, 0] = 1
    for known, adapted in zip(sizes, (True, False), strict=True):
        A = ir.operators.Mask(known)
        for adapt, expected in ((None, adapted), (2, True)):
            prior = plain(relu_decoder(), adapt=adapt)
            y = A(prior.generate(latents(1)))
            stages = ir.solve(y, A, prior, sigma=0.0, max_steps=5).stages
            assert ("adapted" in stages) == expected


def test_adaptation_stops_at_the_noise_level(rng):
    A, sigma = ir.operators.Identity(), 0.1
    prior = plain(relu_decoder(), adapt=400, adapt_rate=3e-3)
    other = plain(relu_decoder(seed=9)).generate(latents(3))
    y = other + sigma * torch.randn(other.shape, generator=rng, dtype=torch.float64)
    stages = ir.solve(y, A, prior, sigma=sigma, max_steps=100).stages
    residual = (stages["adapted"] - y).flatten(1).square().mean(1).sqrt()
    assert ((stages["raw"] - y).flatten(1).square().mean(1).sqrt() > 1.1 * sigma).all()
    assert (residual <= sigma).all()
    assert (residual > 0.9 * sigma).all()


def test_a_function_cannot_be_adapted_and_is_not(mask):
    G = relu_decoder()
    prior = Latent(lambda z: G(z), latent_dim=4, adapt=50)
    solution = ir.solve(mask(prior.generate(latents(1)).detach()), mask, prior, sigma=0.0, max_steps=20)
    assert "adapted" not in solution.stages


# --- networks and errors --------------------------------------------------------------------------------------------


def networks_with_everything():
    torch.manual_seed(0)
    G = nn.Sequential(
        nn.Linear(4, 3 * SIZE * SIZE), nn.BatchNorm1d(3 * SIZE * SIZE), nn.Unflatten(1, (3, SIZE, SIZE))
    )
    D = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3 * SIZE * SIZE, 1))
    E = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 4))
    G[0].weight.grad = torch.ones_like(G[0].weight)
    G[0].bias.requires_grad_(False)
    E.eval()
    return G, D, E


def photograph(networks):
    return [
        (
            [m.training for m in n.modules()],
            [(p.requires_grad, None if p.grad is None else p.grad.clone()) for p in n.parameters()],
            copy.deepcopy(n.state_dict()),
        )
        for n in networks
    ]


def same(first, second):
    for (modes, flags, state), (modes2, flags2, state2) in zip(first, second, strict=True):
        assert modes == modes2
        assert [f for f, _ in flags] == [f for f, _ in flags2]
        for (_, a), (_, b) in zip(flags, flags2, strict=True):
            assert (a is None and b is None) or torch.equal(a, b)
        assert all(torch.equal(v, state2[k]) for k, v in state.items())


@pytest.mark.parametrize("end", ["normal", "interrupt", "error"])
def test_weights_gradients_flags_and_modes_are_untouched(end, mask):
    networks = networks_with_everything()
    before = photograph(networks)
    prior = Latent(*networks, latent_dim=4, adapt=3, restarts=2, output_range=(-2, 2))
    y = mask(torch.rand(2, 3, SIZE, SIZE))
    errors = {"interrupt": KeyboardInterrupt, "error": ValueError}

    def stop(step, x):
        if step == 3 and end in errors:
            raise errors[end]

    if end in errors:
        with pytest.raises(errors[end]):
            ir.solve(y, mask, prior, sigma=0.0, max_steps=10, callback=stop)
    else:
        ir.solve(y, mask, prior, sigma=0.0, max_steps=10, callback=stop)
    same(before, photograph(networks))


class NoGradient(torch.autograd.Function):
    """Identity whose gradient is NaN for the rows where ``bad`` holds."""

    @staticmethod
    def forward(ctx, z, bad):
        ctx.save_for_backward(bad)
        return z.clone()

    @staticmethod
    def backward(ctx, grad):
        (bad,) = ctx.saved_tensors
        return torch.where(bad[:, None], torch.nan, grad), None


@pytest.mark.parametrize("optimiser", ["adam", "nesterov", "lbfgs"])
def test_nan_gradients_are_an_error_with_the_best_iterate_kept(optimiser, mask):
    G = relu_decoder()
    calls = {"n": 0}

    def fragile(z):
        calls["n"] += 1
        return G(NoGradient.apply(z, torch.full(z.shape[:1], calls["n"] > 20)))

    prior = plain(fragile, optimiser=optimiser, restarts=2)
    y = mask(plain(G).generate(latents(2)))
    with pytest.raises(ir.ConvergenceError, match="finite") as caught:
        ir.solve(y, mask, prior, sigma=0.0)
    kept = caught.value.solution
    assert kept.status is ir.Status.DIVERGED
    assert torch.isfinite(kept.x).all()
    calls["n"] = 0
    first = ir.solve(y, mask, plain(G, optimiser=optimiser, restarts=2), sigma=0.0, max_steps=1, tol=0.0)
    assert (kept.losses.amin(1) < first.losses.amin(1)).all()


def test_one_restart_that_fails_leaves_the_others_whole(mask):
    G = relu_decoder()
    prior = plain(lambda z: G(NoGradient.apply(z, z[:, 0] > 0)), restarts=8)
    z = latents(4)
    z[:, 0] = -z[:, 0].abs() - 0.5
    solution = ir.solve(mask(G(z).detach()), mask, prior, sigma=0.0)
    assert solution.status is not ir.Status.DIVERGED
    assert float(ir.psnr(solution.x, G(z).detach()).min()) > 30


def test_the_solution_is_written_with_everything_in_it(tmp_path, mask):
    from safetensors.torch import load_file

    prior = plain(relu_decoder())
    y = mask(prior.generate(latents(2)))
    solution = ir.solve(y, mask, prior, sigma=0.0, max_steps=30, restarts=2)
    solution.save(tmp_path / "s.safetensors")
    stored = load_file(tmp_path / "s.safetensors")
    for name in ("z", "losses", "spread"):
        assert torch.equal(stored[name], getattr(solution, name))
    assert torch.equal(stored["stages.raw"], solution.stages["raw"])


def test_history_has_one_row_for_each_look_and_psnr_where_the_truth_is_given(masks):
    prior = plain(relu_decoder(), chunk=4)
    x = prior.generate(latents(7))
    solution = ir.solve(masks(x), masks, prior, sigma=0.0, truth=x, max_steps=100)
    rows = len(solution.history["step"])
    assert {n: tuple(v.shape) for n, v in solution.history.items()} == {
        n: (rows, 7) for n in ("step", "misfit", "psnr")
    }
    assert torch.isfinite(solution.history["psnr"]).all()
    torch.testing.assert_close(solution.history["psnr"][-1], ir.psnr(solution.stages["raw"], x))


def test_a_callback_sees_better_and_better_images_and_may_stop(mask):
    prior = plain(relu_decoder())
    x = prior.generate(latents(2))
    errors = []

    def look(step, image):
        errors.append(float((mask(image) - mask(x)).square().sum()))
        return step == 12

    solution = ir.solve(mask(x), mask, prior, sigma=0.0, callback=look)
    assert solution.status is ir.Status.STOPPED
    assert len(errors) == 12
    assert errors[-1] < errors[0]


def test_a_film_becomes_a_sheet_and_an_animation(tmp_path, mask):
    from PIL import Image

    prior = plain(relu_decoder())
    film = Film(every=5)
    solution = ir.solve(
        mask(prior.generate(latents(2))), mask, prior, sigma=0.0, max_steps=20, tol=0.0, callback=film
    )
    assert film.steps[:5] == [1, 5, 10, 15, 20]
    film.add(solution.x)
    sheet = film.sheet(tmp_path / "film.png", columns=4, side=12)
    assert sheet.shape == (1, 3, 2 * 12, 4 * 12)
    film.gif(tmp_path / "film.gif", seconds=1.0, side=12)
    with Image.open(tmp_path / "film.gif") as picture:
        assert picture.size == (24, 12)
        assert picture.n_frames >= 2
    with pytest.raises(ir.ImageFileError, match="free"):
        film.gif(tmp_path / "film.gif")
    with pytest.raises(ir.ImageFileError, match=r"\.gif"):
        film.gif(tmp_path / "film.png")
    with pytest.raises(ir.CapabilityError, match="callback=film"):
        Film().sheet(tmp_path / "none.png")


def test_the_search_is_one_step_of_the_common_loop(mask):
    prior = plain(relu_decoder())
    y = mask(prior.generate(latents(2)))
    through = ir.solve(y, mask, prior, sigma=0.0, method=LatentSearch())
    assert torch.equal(through.x, ir.solve(y, mask, prior, sigma=0.0, method="latent").x)


Y = torch.full((2, 3, SIZE, SIZE), 0.5, dtype=torch.float64)


def call(prior=None, y=Y, operator=None, **options):
    return lambda: ir.solve(
        y, operator or ir.operators.Identity(), prior or plain(relu_decoder()), **{"sigma": 0.1} | options
    )


WRONG = {
    "measurement of another size": (call(y=Y[..., :5]), ir.ShapeError, r"images \(3, 6, 5\)"),
    "generator of something else": (call(plain(lambda z: [z])), ir.ShapeError, "got list"),
    "generator in another range": (
        call(plain(nn.Sequential(linear_decoder(), nn.Hardtanh(), nn.Threshold(2.0, -1.0)))),
        ir.RangeError,
        r"output_range=\(-1, 1\)",
    ),
    "generator of NaN": (call(plain(lambda z: linear_decoder()(z) * torch.nan)), ir.RangeError, "NaN"),
    "generator without gradient": (
        call(plain(lambda z: linear_decoder()(z).detach())),
        ir.CapabilityError,
        "autograd can differentiate",
    ),
    "discriminator of something else": (
        call(plain(relu_decoder(), discriminator=lambda x: x.mean())),
        ir.ShapeError,
        "a logit",
    ),
    "encoder to another length": (
        call(plain(relu_decoder(), encoder=lambda x: x.flatten(1))),
        ir.ShapeError,
        "latents of length 4",
    ),
    "encoder to nothing": (call(plain(relu_decoder(), encoder=lambda x: None)), ir.ShapeError, "an encoder"),
    "latents of another length": (call(init=torch.zeros(2, 5)), ir.ShapeError, r"\(2, 4\)"),
    "image as a start without an encoder": (call(init=Y), ir.ShapeError, "has an encoder"),
    "NaN start": (call(init=torch.full((2, 4), torch.nan)), ir.RangeError, "init with finite"),
    "poisson blending without a mask": (
        call(plain(relu_decoder(), blend="poisson")),
        ir.CapabilityError,
        "a Mask",
    ),
    "colours without a gray picture": (
        call(plain(relu_decoder(), blend="chroma")),
        ir.CapabilityError,
        "Grayscale",
    ),
    "detail without a reduced picture": (
        call(plain(relu_decoder(), blend="detail")),
        ir.CapabilityError,
        "a Downsample",
    ),
    "transplant without a gray picture": (
        call(plain(relu_decoder(), blend="value")),
        ir.CapabilityError,
        "Grayscale or Value",
    ),
    "weight for a fidelity that is no norm": (call(fidelity="poisson"), ir.CapabilityError, "lam=None"),
    "share above 1": (lambda: plain(relu_decoder(), denoised=1.5), ir.RangeError, r"denoised in \[0, 1\]"),
    "no denoiser": (lambda: plain(relu_decoder(), denoiser="tv"), ir.DTypeError, "a denoiser prior, got str"),
    "denoiser of other channels": (
        call(plain(relu_decoder(), denoiser=ir.priors.Denoiser(ir.networks.UNet(4, (4, 8), 1).eval()))),
        ir.ShapeError,
        "4",
    ),
    "no restarts": (call(restarts=0), ir.RangeError, "restarts >= 1"),
    "another method": (call(method="fista"), ir.CapabilityError, "'latent'"),
    "search without a generator": (call(ir.priors.TV(0.1), method="latent"), ir.CapabilityError, "latent"),
    "samples": (call(samples=4), ir.CapabilityError, "a denoiser prior"),
}


@pytest.mark.parametrize("case", WRONG, ids=lambda name: name.replace(" ", "-"))
def test_wrong_call_is_refused_with_a_remedy(case):
    wrong, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        wrong()
