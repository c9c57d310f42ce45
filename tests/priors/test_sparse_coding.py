"""Sparse codes against scikit-learn, closed forms and optimality conditions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from invrestore.errors import DTypeError, RangeError, ShapeError
from invrestore.priors._sparse_coding import ista, omp

F64 = torch.float64


@pytest.fixture
def atoms(rng):
    D = torch.randn(40, 16, generator=rng, dtype=F64)
    return D / D.norm(dim=1, keepdim=True)


@pytest.fixture
def signals(rng):
    return torch.randn(60, 16, generator=rng, dtype=F64)


def reference(signals, atoms, **rule):
    from sklearn.linear_model import orthogonal_mp_gram

    X, D = signals.numpy(), atoms.numpy()
    code = orthogonal_mp_gram(D @ D.T, D @ X.T, norms_squared=np.sum(X**2, 1), **rule)
    return torch.from_numpy(np.atleast_2d(code.T))


def test_codes_of_fixed_sparsity_are_those_of_scikit_learn(signals, atoms):
    code = omp(signals, atoms, sparsity=6).dense(40)
    wanted = reference(signals, atoms, n_nonzero_coefs=6)
    assert torch.equal(code != 0, wanted != 0)
    torch.testing.assert_close(code, wanted, rtol=0, atol=1e-11)


def test_codes_of_bounded_error_are_those_of_scikit_learn(signals, atoms):
    code = omp(signals, atoms, error=1.5).dense(40)
    wanted = reference(signals, atoms, tol=1.5**2)
    assert torch.equal(code != 0, wanted != 0)
    torch.testing.assert_close(code, wanted, rtol=0, atol=1e-11)


def test_unit_weights_change_nothing(signals, atoms):
    plain = omp(signals, atoms, sparsity=7)
    weighted = omp(signals, atoms, sparsity=7, weights=torch.ones_like(signals))
    assert torch.equal(plain.support, weighted.support)
    torch.testing.assert_close(plain.values, weighted.values, rtol=0, atol=1e-11)


def test_entries_of_weight_zero_do_not_matter(signals, atoms, rng):
    known = (torch.rand(signals.shape, generator=rng) > 0.4).to(F64)
    other = torch.where(known > 0, signals, torch.randn(signals.shape, generator=rng, dtype=F64) * 100)
    a = omp(signals, atoms, sparsity=4, weights=known)
    b = omp(other, atoms, sparsity=4, weights=known)
    assert torch.equal(a.support, b.support)
    torch.testing.assert_close(a.values, b.values, rtol=0, atol=1e-10)


def test_weighted_codes_are_plain_ones_of_each_signals_own_dictionary(signals, atoms, rng):
    weights = torch.rand(signals.shape, generator=rng, dtype=F64) + 0.1
    together = omp(signals, atoms, sparsity=5, weights=weights).dense(40)
    for x, w, code in zip(signals, weights, together, strict=True):
        own = omp((w.sqrt() * x)[None], w.sqrt() * atoms, sparsity=5).dense(40)[0]
        torch.testing.assert_close(code, own, rtol=0, atol=1e-10)


def test_residual_is_orthogonal_to_the_chosen_atoms(signals, atoms):
    code = omp(signals, atoms, sparsity=5)
    residual = signals - code.decode(atoms)
    inner = (atoms[code.support] * residual[:, None]).sum(2)
    assert inner.abs().max() < 1e-12


def test_every_code_keeps_its_own_error_bound(signals, atoms, rng):
    error = torch.rand(60, generator=rng, dtype=F64) * 3 + 0.1
    code = omp(signals, atoms, error=error)
    assert ((signals - code.decode(atoms)).norm(dim=1) <= error * (1 + 1e-9)).all()
    for x, e, n in zip(signals, error, (code.values != 0).sum(1).tolist(), strict=True):
        if n > 1:
            shorter = omp(x[None], atoms, sparsity=n - 1)
            assert (x - shorter.decode(atoms)).norm() > e


def test_an_error_bound_that_holds_at_once_gives_empty_codes(signals, atoms):
    assert not omp(signals, atoms, error=1e3).values.any()


def test_codes_depend_on_their_signal_alone_whatever_the_chunk(signals, atoms):
    whole = omp(signals, atoms, error=1.0)
    for chunk in (1, 7, 59):
        part = omp(signals, atoms, error=1.0, chunk=chunk)
        assert torch.equal(whole.support, part.support)
        torch.testing.assert_close(whole.values, part.values, rtol=0, atol=1e-12)


def test_a_dictionary_that_spans_represents_in_full(signals, atoms):
    code = omp(signals, atoms)
    torch.testing.assert_close(code.decode(atoms), signals, rtol=0, atol=1e-9)


def test_equal_atoms_and_zero_signals_do_no_harm(signals, atoms):
    twice = torch.cat([atoms[:5], atoms[:5]])
    code = omp(torch.cat([signals, torch.zeros(1, 16, dtype=F64)]), twice, sparsity=10)
    assert torch.isfinite(code.values).all()
    assert not code.values[-1].any()
    best = torch.linalg.lstsq(atoms[:5].T, signals.T).solution.T @ atoms[:5]
    torch.testing.assert_close(code.decode(twice)[:-1], best, rtol=0, atol=1e-10)


def test_lengths_of_atoms_go_into_the_coefficients(signals, atoms, rng):
    length = torch.rand(40, 1, generator=rng, dtype=F64) + 0.5
    a, b = omp(signals, atoms, sparsity=4), omp(signals, length * atoms, sparsity=4)
    assert torch.equal(a.support, b.support)
    torch.testing.assert_close(a.decode(atoms), b.decode(length * atoms), rtol=0, atol=1e-11)


@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_of_coefficients_match_finite_differences(signals, atoms, rng, weighted):
    x, D = signals[:3].clone().requires_grad_(), atoms[:12].clone().requires_grad_()
    w = torch.rand(x.shape, generator=rng, dtype=F64) + 0.5 if weighted else None
    assert torch.autograd.gradcheck(lambda x, D: omp(x, D, sparsity=3, weights=w).decode(D), (x, D))


def test_single_precision_follows_double_and_half_keeps_its_type(signals, atoms):
    exact = omp(signals, atoms, sparsity=4).decode(atoms)
    single = omp(signals.float(), atoms.float(), sparsity=4)
    torch.testing.assert_close(single.decode(atoms.float()).double(), exact, rtol=0, atol=1e-4)
    half = omp(signals.bfloat16(), atoms.bfloat16(), sparsity=4)
    assert half.values.dtype == torch.bfloat16


def test_no_signals_give_no_codes(atoms):
    assert omp(torch.zeros(0, 16, dtype=F64), atoms, sparsity=3).values.shape == (0, 3)
    assert ista(torch.zeros(0, 16, dtype=F64), atoms, 0.1).shape == (0, 40)


@pytest.mark.parametrize("accelerate", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
def test_l1_codes_meet_the_optimality_conditions(signals, atoms, rng, accelerate, weighted):
    w = torch.rand(signals.shape, generator=rng, dtype=F64) + 0.2 if weighted else torch.ones_like(signals)
    lam = 0.3
    code = ista(
        signals, atoms, lam, steps=8000, tol=1e-12, accelerate=accelerate, weights=w if weighted else None
    )
    pull = (w * (signals - code @ atoms)) @ atoms.T
    assert (pull.abs() <= lam + 1e-6).all()
    used = code != 0
    torch.testing.assert_close(pull[used], lam * code[used].sign(), rtol=0, atol=1e-6)


def test_momentum_saves_steps(signals, atoms):
    def objective(code):
        return (0.5 * (signals - code @ atoms).square().sum() + 0.05 * code.abs().sum()).item()

    best = objective(ista(signals, atoms, 0.05, steps=5000, tol=0.0))
    fast, plain = (
        objective(ista(signals, atoms, 0.05, steps=60, tol=0.0, accelerate=a)) for a in (True, False)
    )
    assert fast - best < 0.2 * (plain - best)


def test_a_large_l1_weight_gives_zero_and_each_signal_has_its_own(signals, atoms):
    top = (signals @ atoms.T).abs().amax(1)
    assert not ista(signals, atoms, top * (1 + 1e-9)).any()
    lam = torch.where(torch.arange(60) % 2 == 0, 2 * top, 0.1 * top)
    code = ista(signals, atoms, lam)
    assert not code[::2].any()
    assert (code[1::2] != 0).any(1).all()


def test_l1_codes_differentiate(signals, atoms):
    x = signals[:2].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ista(x, atoms, 0.3, steps=30, tol=0.0), x)


BAD = [
    (lambda x, D: omp(x[0], D), ShapeError, r"x of shape \(N, n\)"),
    (lambda x, D: omp(x, D.T), ShapeError, "Transpose the dictionary"),
    (lambda x, D: omp(x.int(), D), DTypeError, "floating-point"),
    (lambda x, D: omp(x, D * 0), RangeError, "not zero"),
    (lambda x, D: omp(x, D, sparsity=0), RangeError, "sparsity >= 1"),
    (lambda x, D: omp(x, D, error=-1.0), RangeError, "error >= 0"),
    (lambda x, D: omp(x, D, error=torch.ones(7)), ShapeError, r"error of shape \(\) or \(60,\)"),
    (lambda x, D: omp(x, D, weights=torch.ones(60, 3)), ShapeError, r"weights of shape \(60, 16\)"),
    (lambda x, D: omp(x, D, weights=-torch.ones(60, 16)), RangeError, "weights >= 0"),
    (lambda x, D: ista(x, D, -1.0), RangeError, "lam >= 0"),
    (lambda x, D: ista(x, D, 0.1, steps=0), RangeError, "steps >= 1"),
    (lambda x, D: ista(x, D, 0.1, weights=torch.ones(3)), ShapeError, r"weights of shape \(60, 16\)"),
    (lambda x, D: ista(x, D, 0.1, weights=-torch.ones(60, 16)), RangeError, "weights >= 0"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_bad_input_is_refused(signals, atoms, call, error, message):
    with pytest.raises(error, match=message):
        call(signals, atoms)
