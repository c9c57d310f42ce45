"""Wrong calls are refused before the first iteration, with what was expected, what came and what to do."""

import numpy as np
import pytest
import torch

import invrestore as ir
from invrestore.solvers import ADMM, FISTA, HQS, PDHG, RED

TV = ir.priors.TV
X = torch.full((2, 3, 12, 10), 0.5)


def blur(**options):
    return ir.operators.Blur(ir.kernels.gaussian(1.0), **options)


def call(y=X, operator=None, prior=None, **options):
    return lambda: ir.solve(
        y, operator or ir.operators.Identity(), prior or TV(lam=0.1), **{"sigma": 0.1} | options
    )


def with_value(value):
    y = X.clone()
    y[0, 0, 0, 0] = value
    return y


WRONG = {
    "channels last": (call(X.permute(0, 2, 3, 1)), ir.ShapeError, r"permute\(0, 3, 1, 2\)"),
    "no batch axis": (call(X[0]), ir.ShapeError, r"y\[None\]"),
    "no axes": (call(torch.tensor(0.5)), ir.ShapeError, "at least one sample"),
    "empty batch": (call(X[:0]), ir.ShapeError, "at least one sample"),
    "no pixels": (call(X[..., :0]), ir.ShapeError, "at least one sample"),
    "8-bit tensor": (call((X * 255).byte()), ir.DTypeError, r"x\.float\(\) / 255"),
    "integer tensor": (call(X.long()), ir.DTypeError, "floating-point"),
    "8-bit values in a float tensor": (call(X * 255), ir.RangeError, "Divide 8-bit values by 255"),
    "16-bit values in a float tensor": (call(X * 65535), ir.RangeError, "16-bit ones by 65535"),
    "NaN": (call(with_value(torch.nan)), ir.RangeError, r"1 NaN value\(s\).*operators\.Mask"),
    "infinity": (call(with_value(torch.inf)), ir.RangeError, "infinite"),
    "list": (call([[0.5]]), ir.DTypeError, "torch.Tensor, numpy array or PIL image"),
    "path": (call("photo.png"), ir.DTypeError, "load_image"),
    "array of integers": (call(np.zeros((4, 4), dtype=np.int64)), ir.DTypeError, "uint8, uint16, float32"),
    "array of five axes": (call(np.zeros((1, 1, 1, 4, 4))), ir.ShapeError, r"\(H, W\)"),
    "sigma in 8-bit units": (call(sigma=25), ir.RangeError, "25/255 = 0.098"),
    "negative sigma": (call(sigma=-0.1), ir.RangeError, "sigma >= 0"),
    "NaN sigma": (call(sigma=float("nan")), ir.RangeError, "finite"),
    "sigma of another batch": (call(sigma=torch.full((3,), 0.1)), ir.ShapeError, r"\(2,\)"),
    "sigma map": (call(sigma=torch.full((2, 1, 12, 10), 0.1)), ir.ShapeError, r"\(\) or \(B,\)"),
    "sigma as text": (call(sigma="0.1"), ir.DTypeError, "number or tensor"),
    "sigma zero for one image only": (call(sigma=torch.tensor([0.0, 0.1])), ir.RangeError, "in two calls"),
    "negative lam": (lambda: TV(lam=-1.0), ir.RangeError, "lam >= 0"),
    "NaN lam": (lambda: TV(lam=float("nan")), ir.RangeError, "finite"),
    "lam of another batch": (call(prior=TV(lam=torch.ones(3))), ir.ShapeError, "one number for each image"),
    "max_steps zero": (call(max_steps=0), ir.RangeError, "max_steps >= 1"),
    "max_steps as float": (call(max_steps=10.5), ir.DTypeError, "as an int"),
    "negative tol": (call(tol=-1e-3), ir.RangeError, "tol >= 0"),
    "restarts of a method with one start": (call(restarts=4), ir.CapabilityError, "latent priors"),
    "rng as a number": (call(rng=0), ir.DTypeError, "torch.Generator"),
    "misspelt prior": (call(prior="tvv"), ir.UnknownNameError, "Did you mean 'tv'"),
    "unknown prior": (call(prior="nosuch"), ir.UnknownNameError, "'wavelet'"),
    "prior class": (call(prior=TV), ir.DTypeError, r"Write TV\(\)"),
    "prior of another kind": (call(prior=3), ir.DTypeError, r"priors\.Denoiser"),
    "unknown method": (call(method="pdgh"), ir.UnknownNameError, "Did you mean 'pdhg'"),
    "method of another kind": (call(method=3), ir.DTypeError, "name or a Solver"),
    "unknown fidelity": (call(fidelity="l3"), ir.UnknownNameError, "'l1'"),
    "fidelity of another kind": (call(fidelity=2), ir.DTypeError, "Fidelity or a name"),
    "operator of another kind": (call(operator=3), ir.DTypeError, "operator"),
    "operator class": (call(operator=ir.operators.Identity), ir.DTypeError, "operator"),
    "mask of another size": (
        call(operator=ir.operators.Mask(torch.ones(5, 5))),
        ir.ShapeError,
        r"same height and width",
    ),
    "empty mask": (lambda: ir.operators.Mask(torch.zeros(12, 10)), ir.RangeError, "at least one pixel"),
    "kernel summing to 0": (
        lambda: ir.operators.Blur(torch.tensor([[1.0, -1.0]])),
        ir.RangeError,
        "sum",
    ),
    "kernel of NaN": (lambda: ir.operators.Blur(torch.full((3, 3), torch.nan)), ir.RangeError, "finite"),
    "y of another size": (
        call(operator=blur(), init=X[..., :5]),
        ir.ShapeError,
        "expected init|expected truth",
    ),
    "truth of another size": (call(truth=X[:1]), ir.ShapeError, "truth of shape"),
    "NaN start": (call(init=with_value(torch.nan)), ir.RangeError, "init with finite values"),
    "constraint for fista": (call(operator=blur(), sigma=0.0, method="fista"), ir.CapabilityError, "'pdhg'"),
    "constraint on a nonlinear operator": (
        call(y=X[:, :1], operator=ir.operators.Value(), prior=ir.priors.LowRank(lam=0.1), sigma=0.0),
        ir.CapabilityError,
        "nonlinear operator exactly; give a small sigma",
    ),
    "measurements of a stack that knows no image": (
        call(y=X.flatten(1), operator=ir.operators.stack(ir.operators.Identity())),
        ir.ShapeError,
        r"such as a stack.*input_shape=\(C, H, W\)",
    ),
    "nonlinear operator for pdhg": (call(operator=torch.sin, method="pdhg"), ir.CapabilityError, "'fista'"),
    "cg for a prior that is not quadratic": (call(method="cg"), ir.CapabilityError, "Tikhonov"),
    "red for a prior that is no denoiser": (
        call(method="red"),
        ir.CapabilityError,
        "denoise.*Methods that accept",
    ),
    "hqs without a weight": (call(prior=TV(), method="hqs"), ir.CapabilityError, "Set lam"),
    "prox without a weight": (lambda: TV().prox(X), ir.CapabilityError, r"priors\.TV\(lam=\.\.\.\)"),
    "hqs from a level in 8 bits": (
        lambda: HQS(first=49),
        ir.RangeError,
        r"first in \(0, 1\].*49/255 = 0.192",
    ),
    "hqs to level 0": (lambda: HQS(last=0.0), ir.RangeError, "last > 0"),
    "hqs without steps": (lambda: HQS(steps=0), ir.RangeError, "steps >= 1"),
    "negative weight of hqs": (lambda: HQS(weight=-1.0), ir.RangeError, "weight >= 0"),
    "negative scale of hqs": (lambda: HQS(scale=-1.0), ir.RangeError, "scale >= 0"),
    "momentum of 1 in hqs": (lambda: HQS(momentum=1.0), ir.RangeError, r"momentum in \[0, 1\)"),
    "negative momentum of hqs": (lambda: HQS(momentum=-0.1), ir.RangeError, "momentum >= 0"),
    "negative floor of hqs": (lambda: HQS(floor=-1.0), ir.RangeError, "floor >= 0"),
    "admm without penalty": (lambda: ADMM(rho=0.0), ir.RangeError, "rho > 0"),
    "pdhg without balance": (lambda: PDHG(balance=0.0), ir.RangeError, "balance > 0"),
    "pdhg relaxed too far": (lambda: PDHG(relaxation=2.0), ir.RangeError, r"relaxation in \(0, 2\)"),
    "pdhg that never moves": (
        lambda: PDHG(inner_reduction=1.0),
        ir.RangeError,
        r"inner_reduction in \[0, 1\)",
    ),
    "pdhg of no accuracy": (lambda: PDHG(inner_rtol=float("nan")), ir.RangeError, "inner_rtol > 0"),
    "admm of infinite scale": (lambda: ADMM(scale=float("inf")), ir.RangeError, "scale > 0 and finite"),
    "fista without a step": (lambda: FISTA(first_step=0.0), ir.RangeError, "first_step > 0"),
    "fista with negative halvings": (lambda: FISTA(backtracks=-1), ir.RangeError, "backtracks >= 0"),
    "red of a level in 8 bits": (lambda: RED(strength=25.0), ir.RangeError, "25/255 = 0.098"),
    "weight of a denoiser far from a noise variance": (
        call(operator=blur(), prior=ir.priors.Denoiser(lambda x, s: x, lam=5.0), method="fista"),
        ir.RangeError,
        r"lam is a noise variance, about 0.23 sigma\^2",
    ),
    "tile off the grid": (lambda: ir.priors.Denoiser(lambda x, s: x, tile=100), ir.RangeError, "of 32"),
    "negative tile": (lambda: ir.priors.Denoiser(lambda x, s: x, tile=-32), ir.RangeError, "tile >= 0"),
    "tile no larger than its overlap": (
        lambda: ir.priors.Denoiser(lambda x, s: x, tile=64),
        ir.RangeError,
        "overlap < tile",
    ),
    "denoiser that is no function": (lambda: ir.priors.Denoiser(3), ir.DTypeError, "callable"),
    "colour network on 4 channels": (
        call(torch.rand(1, 4, 8, 8), prior=ir.priors.Denoiser(lambda x, s: x, channels=3)),
        ir.ShapeError,
        "1 or 3 channels",
    ),
}


@pytest.mark.parametrize("case", WRONG, ids=lambda name: name.replace(" ", "-"))
def test_wrong_call_is_refused_with_a_remedy(case):
    wrong, error, message = WRONG[case]
    with pytest.raises(error, match=message) as caught:
        wrong()
    assert isinstance(caught.value, ir.InvrestoreError)
    assert caught.value.expected
    assert caught.value.found


def test_there_are_at_least_forty_wrong_calls():
    assert len(WRONG) >= 40


def test_arrays_and_pictures_are_converted_and_the_answer_says_so():
    from PIL import Image

    array = np.full((12, 10, 3), 128, dtype=np.uint8)
    for picture in (array, Image.fromarray(array), array[..., 0], array.astype(np.uint16) * 257):
        solution = ir.solve(picture, ir.operators.Identity(), TV(lam=0.1), sigma=0.1)
        assert float(solution.x.mean()) == pytest.approx(128 / 255, abs=1e-3)
        assert "divided by" in str(solution)


def test_inputs_are_left_as_they_were(rng):
    y = torch.rand(1, 3, 16, 16, generator=rng)
    kernel = ir.kernels.gaussian(1.0)
    before = y.clone(), kernel.clone()
    ir.solve(y, ir.operators.Blur(kernel), TV())
    assert torch.equal(y, before[0])
    assert torch.equal(kernel, before[1])
