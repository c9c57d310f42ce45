"""``solve``: one call over all operators, priors and methods."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch

from invrestore._checks import (
    check_batch_tensor,
    check_count,
    check_device,
    check_nonnegative,
    check_rng,
)
from invrestore._types import PerImage, Tensor
from invrestore.errors import CapabilityError, ConvergenceError, DTypeError, ShapeError, UnknownNameError
from invrestore.fidelity import L2, Fidelity
from invrestore.operators import Identity, Mask, as_operator
from invrestore.priors import Capability, Prior, Tikhonov
from invrestore.solvers._admm import ADMM
from invrestore.solvers._base import Solver
from invrestore.solvers._cg import CG
from invrestore.solvers._diffpir import DiffPIR, DiffPIRState
from invrestore.solvers._direct import Direct, DirectState
from invrestore.solvers._fista import FISTA
from invrestore.solvers._gradient import GradientDescent
from invrestore.solvers._hqs import HQS
from invrestore.solvers._inputs import (
    as_fidelity,
    as_images,
    as_measurement,
    as_prior,
    as_sigma,
    check_measurement,
)
from invrestore.solvers._latent import LatentSearch
from invrestore.solvers._latent_state import LatentState
from invrestore.solvers._loop import Callback, Outcome, run
from invrestore.solvers._pdhg import PDHG
from invrestore.solvers._plug_and_play import schedule
from invrestore.solvers._problem import Problem
from invrestore.solvers._red import RED
from invrestore.solvers._solution import Solution, Status
from invrestore.solvers._weight import choose_lam

__all__ = ["METHODS", "solve", "solvers_for"]

METHODS: dict[str, type[Solver[Any]]] = {
    cls.name: cls for cls in (FISTA, PDHG, ADMM, HQS, DiffPIR, RED, CG, GradientDescent, LatentSearch, Direct)
}
"""``method=`` to solver class."""


def solvers_for(problem: Problem) -> list[str]:
    """Names of the methods that accept a problem."""
    fits = []
    for name, cls in METHODS.items():
        if not cls.needs <= problem.prior.capabilities:
            continue
        try:
            cls().check(problem)
        except CapabilityError:
            continue
        fits.append(name)
    return fits


def solve(
    y: Any,
    operator: Any,
    prior: Any,
    *,
    sigma: PerImage | None = None,
    fidelity: str | Fidelity = "auto",
    method: str | Solver[Any] = "auto",
    max_steps: int | None = None,
    tol: float | None = None,
    init: Tensor | None = None,
    truth: Tensor | None = None,
    restarts: int | None = None,
    samples: int | None = None,
    refine: bool = False,
    rng: torch.Generator | None = None,
    progress: bool | None = None,
    callback: Callback | None = None,
    throw: bool = True,
) -> Solution:
    """Restore images: argmin_x f(A x; y) + lam g(x), or what stands for it with a learned prior.

    Every image of a batch is solved on its own: its weight, noise level, step count and answer do not depend on
    its neighbours. The same call gives the same answer. Nothing is clamped.

    Gradients flow to ``y`` and to the tensors of operator and prior when any of them requires grad: through the
    unrolled iterations (memory grows with their number), implicitly through conjugate gradients and closed
    forms. A weight or noise level that ``solve`` chose counts as a constant.

    Args:
        y: Measurement, (B, *operator.output_shape), images in units of [0, 1]; also a numpy array (H, W[, C]) or a
            PIL image, which the answer then mentions.
        operator: An invrestore operator, a deepinv Physics, a scipy LinearOperator or sparse matrix, or any
            callable x -> y that autograd can differentiate.
        prior: A Prior, a name out of ``priors.available()``, a deepinv Denoiser or Prior, or a Restorer.
        sigma: Noise standard deviation in [0, 1], a number or (B,). None: estimated from ``y``. 0: the data hold
            exactly, as a constraint.
        fidelity: "auto", "l2", "l1", "huber", "poisson" or a Fidelity.
        method: "auto", a name out of ``solvers.METHODS``, or a Solver.
        max_steps: Step limit; None takes the method's default.
        tol: Relative change at which an image is done; None takes the method's default.
        init: Start images, (B, C, H, W), or for a latent prior latents (B, d) or (B, R, d); None takes a cheap one made
            from ``y``.
        truth: True images, (B, C, H, W), to record PSNR at every step.
        restarts: Starts of a latent search, None for what its prior says; other methods have one start.
        samples: Posterior samples of each image, at least 2, from a denoiser prior: the solution then holds them, their
            mean as ``x`` and their standard deviation. None: one answer.
        refine: Project the answer of a feed-forward restorer onto the images that fit the measurement, which never
            takes it further from the truth (see ``solvers.Direct``).
        rng: Source of randomness for methods that draw numbers, on any device; None is one seeded with 0. None of
            the classical methods draws any.
        progress: Show a progress bar.
        callback: ``callback(step, x)`` after every step; the answer True stops, any other goes on.
        throw: Raise ConvergenceError when an iterate is not finite; otherwise the status says so.

    Returns:
        A Solution; ``str(solution)`` tells what was chosen and why, and how it ended.

    Raises:
        ShapeError: A tensor does not fit.
        DTypeError: An argument has the wrong type.
        DeviceError: Tensors live on different devices.
        RangeError: A number is out of range or not finite.
        UnknownNameError: No prior, method or fidelity of that name.
        CapabilityError: The method cannot handle this operator, fidelity or prior, or draws no samples.
        ConvergenceError: The iteration diverged and ``throw`` is True; carries the solution so far.

    Example:
        >>> import invrestore as ir
        >>> y = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> s = ir.solve(y, ir.operators.Identity(), ir.priors.TV(lam=0.1), sigma=0.1)
        >>> s.x.shape, s.method
        (torch.Size([1, 3, 16, 16]), 'fista')
    """
    began = time.perf_counter()
    notes: list[str] = []
    y = as_measurement(y, notes)
    check_rng("solve", rng)
    if restarts is not None:
        check_count("solve", "restarts", restarts)
    if samples is not None:
        check_count("solve", "samples", samples, least=2)
    if max_steps is not None:
        check_count("solve", "max_steps", max_steps)
    check_nonnegative("solve", "tol", tol)
    if getattr(tol, "ndim", 0):
        raise ShapeError("solve", expected="tol as one number for the batch", found=str(tol))
    tol = None if tol is None else float(tol)
    if callback is not None and not callable(callback):
        raise DTypeError(
            "solve", expected="callback as a function of (step, x)", found=type(callback).__name__
        )
    physics = as_operator(operator)
    given = y.dtype
    if given in (torch.bfloat16, torch.float16):
        # Eight or eleven bits of mantissa cannot carry a few hundred small steps.
        y, physics = y.float(), physics.to(torch.float32)
        notes.append(f"y: iterated in float32, returned in {given}.")
    input_shape = check_measurement(y, physics)
    model = as_prior(prior)
    check_batch_tensor("solve", "lam", model.lam, y.shape[0])
    check_device("solve", y=y, prior=next(iter(model.tensors()), None))
    true_x = as_images("truth", truth, y, physics, input_shape)
    latent = model.can(Capability.LATENT)
    start = None if latent else as_images("init", init, y, physics, input_shape)

    differentiate = torch.is_grad_enabled() and any(
        t.requires_grad
        for t in (y, *physics.tensors(), *model.tensors(), *([start] if start is not None else []))
    )
    with nullcontext() if differentiate else torch.no_grad():
        noise = as_sigma(sigma, y, physics, model, notes)
        exact = bool((noise == 0).all())
        physics, misfit = as_fidelity(fidelity, y, physics, model, exact, notes)
        problem = Problem(y, physics, misfit, model, noise, input_shape, exact)
        solver = _pick_solver(method, problem, max_steps, samples, notes)
        if refine:
            solver = _refining(solver)
        _warn_of_objection(problem, notes)
        if isinstance(solver, DiffPIR) and rng is not None:
            seed = int(torch.randint(2**31, (), generator=rng, device=rng.device))
            solver = dataclasses.replace(solver, seed=seed)
        solver.check(problem)
        if isinstance(solver, LatentSearch):
            with _bar(progress, solver.name, max_steps or solver.budget(problem)) as tick:
                outcome = solver.search(
                    problem,
                    init=init,
                    restarts=restarts,
                    rng=rng,
                    max_steps=max_steps,
                    tol=tol,
                    truth=true_x,
                    callback=callback,
                    progress=tick,
                    notes=notes,
                )
            solution = _finish(solver, problem, outcome, notes, time.perf_counter() - began, throw)
            return dataclasses.replace(solution, x=solution.x.to(given))
        if restarts is not None and restarts > 1:
            raise CapabilityError(
                f"solve(method={solver.name!r})",
                expected="restarts=1, because the method has one start",
                found=f"restarts={restarts}",
                remedy="Restarts belong to latent priors.",
            )
        limit = max_steps or solver.budget(problem)
        tolerance = solver.default_tol if tol is None else float(tol)
        x0 = _start(problem) if start is None else start

        state = None
        if model.lam is None:
            problem, state = _weigh(solver, problem, x0, tolerance, notes)
        if state is None or differentiate:
            state = solver.init(problem, x0)
        else:
            state = solver.resume(problem, state)
        with _bar(progress, solver.name, limit) as tick:
            outcome = run(
                solver,
                problem,
                state,
                max_steps=limit,
                tol=tolerance,
                truth=true_x,
                callback=callback,
                progress=tick,
            )
    solution = _finish(solver, problem, outcome, notes, time.perf_counter() - began, throw)
    drawn = None if solution.samples is None else solution.samples.to(given)
    return dataclasses.replace(solution, x=solution.x.to(given), samples=drawn)


def _finish(
    solver: Solver[Any], problem: Problem, outcome: Outcome, notes: list[str], seconds: float, throw: bool
) -> Solution:
    search = outcome.state if isinstance(outcome.state, LatentState) else None
    lam = problem.prior.lam if search is None else search.lam
    if lam is not None:
        lam = torch.as_tensor(lam, dtype=problem.y.dtype, device=problem.y.device).expand(problem.batch)
    solution = Solution(
        x=outcome.x,
        status=outcome.status,
        method=solver.name,
        lam=None if problem.exact and search is None else lam,
        sigma=problem.sigma,
        steps=outcome.steps,
        converged=outcome.converged,
        history=outcome.history,
        seconds=seconds,
        choices=tuple(notes),
        z=None if search is None else search.z,
        losses=None if search is None else search.losses,
        stages=_stages(outcome.state),
        spread=None if search is None or search.losses.shape[1] < 2 else search.spread,
        samples=outcome.state.samples if isinstance(outcome.state, DiffPIRState) else None,
    )
    if outcome.status is Status.DIVERGED and throw:
        error = ConvergenceError(
            "solve",
            expected="finite iterates",
            found=f"NaN or infinity with method {solver.name!r} after step {int(outcome.steps.max())}",
            remedy="Check the operator with testing.check_operator, or take another method; error.solution holds "
            "the last finite images, throw=False returns them.",
        )
        error.solution = solution
        raise error
    return solution


def _stages(state: object) -> dict[str, Tensor]:
    return dict(state.stages) if isinstance(state, LatentState | DirectState) else {}


def _pick_solver(
    method: object, problem: Problem, max_steps: int | None, samples: int | None, notes: list[str]
) -> Solver[Any]:
    """The solver asked for, or the first that suits what operator, fidelity and prior declare."""
    if samples is not None:
        _check_draws_samples(method, problem)
    if isinstance(method, DiffPIR) and samples is not None:
        return dataclasses.replace(method, samples=samples)
    if isinstance(method, Solver):
        return method
    if not isinstance(method, str):
        raise DTypeError("solve", expected="method as a name or a Solver", found=type(method).__name__)
    if method == "auto" and samples is not None:
        method = "diffpir"
        notes.append("method: 'diffpir', because samples were asked for.")
    elif method == "auto":
        method, reason = _auto(problem)
        notes.append(f"method: {method!r}, because {reason}.")
    if method not in METHODS:
        raise UnknownNameError.suggest("solve", "method", method, ["auto", *METHODS])
    if method == "hqs":
        return schedule(problem, max_steps)
    if method == "diffpir":
        return DiffPIR(samples=samples or DiffPIR.samples, steps=max_steps or DiffPIR.steps)
    return METHODS[method]()


def _refining(solver: Solver[Any]) -> Direct:
    if not isinstance(solver, Direct):
        raise CapabilityError(
            f"solve(method={solver.name!r}, refine=True)",
            expected="a feed-forward restorer",
            found="a method that iterates on the data anyway",
            remedy="Leave refine out.",
        )
    return dataclasses.replace(solver, refine=True)


def _warn_of_objection(problem: Problem, notes: list[str]) -> None:
    """Say, in the answer and as a warning, that a trained prior was made for other problems."""
    reason = problem.prior.objection(problem.operator, problem.sigma)
    if reason:
        notes.append(f"prior: {reason}.")
        warnings.warn(f"solve: the prior may fail, because {reason}.", stacklevel=3)


def _check_draws_samples(method: object, problem: Problem) -> None:
    """Raise CapabilityError where samples are asked of a prior or a method that has none to give."""
    if not problem.prior.can(Capability.DENOISE):
        raise CapabilityError(
            "solve(samples=...)",
            expected="a denoiser prior",
            found=f"priors.{problem.prior.name}",
            remedy="Take 'denoiser', or priors.Denoiser(network); other priors have one answer.",
        )
    if isinstance(method, Solver):
        method = method.name
    if isinstance(method, str) and method in METHODS and method != DiffPIR.name:
        raise CapabilityError(
            f"solve(method={method!r}, samples=...)",
            expected=f"a method that samples: {DiffPIR.name!r}, or 'auto'",
            found=repr(method),
            remedy="Leave samples out for a single answer.",
        )


def _auto(problem: Problem) -> tuple[str, str]:
    prior = problem.prior
    if prior.can(Capability.RESTORE):
        return "restorer", "the prior is a feed-forward restorer"
    if prior.can(Capability.LATENT):
        return "latent", "the prior is a generator"
    if prior.can(Capability.DENOISE):
        if problem.has_data_prox:
            return "hqs", "the prior is a denoiser and the data step has a proximal map"
        return "fista", "the prior is a denoiser and the data have a gradient only"
    quadratic = isinstance(prior, Tikhonov) and isinstance(problem.fidelity, L2)
    if quadratic and problem.linear is not None and not problem.exact:
        return "cg", "operator, fidelity and prior make a quadratic problem"
    plain = isinstance(problem.operator, Identity) and isinstance(problem.fidelity, L2) and not problem.exact
    if plain and prior.can(Capability.PROX) and not prior.has_inner_problem:
        return "fista", "the problem is denoising, which one proximal map of the prior solves"
    if problem.linear is not None and prior.can(Capability.ANALYSIS):
        return "pdhg", "the operator is linear and the prior is a norm of a linear map"
    if problem.linear is not None and prior.can(Capability.PROX):
        if problem.data_prox_is_cheap:
            return "admm", "data and prior both have closed proximal maps"
        if problem.exact or problem.fidelity.curvature is None:
            return "pdhg", "the data term has a proximal map but no Lipschitz gradient"
        return "fista", "the data term is smooth and the prior has a proximal map"
    if prior.can(Capability.PROX):
        return "fista", "the operator is nonlinear and the prior has a proximal map"
    return "gradient", "operator and prior are differentiable"


def _start(problem: Problem) -> Tensor:
    """Start images: the measurement where it is an image, else what the operator makes of it cheaply."""
    y, A = problem.y, problem.linear
    if isinstance(A, Mask) and problem.exact and problem.prior.can(Capability.DENOISE):
        # Steps that stop short of a minimum remember where they began.
        return A.interpolate(y)
    if A is not None and not problem.prior.can(Capability.RESTORE):
        return A.initial(y, problem.input_shape)
    if tuple(y.shape[1:]) == problem.input_shape:
        return y.clone()
    return y.new_full((y.shape[0], *problem.input_shape), 0.5)


def _weigh(
    solver: Solver[Any], problem: Problem, x0: Tensor, tol: float, notes: list[str]
) -> tuple[Problem, Any]:
    """The problem with a weight for each image, and the state the search reached."""
    prior = problem.prior
    if not _takes_weight(prior):
        return problem, None
    if problem.exact:
        # A constraint leaves nothing to weigh: any positive number gives the same minimiser.
        return problem.with_prior(prior.with_lam(1.0)), None
    if prior.can(Capability.DENOISE):
        lam = solver.denoiser_lam(problem)
        share = float((lam / problem.sigma.square()).mean())
        notes.append(f"lam: {share:.3g} sigma^2, the weight that {solver.name!r} takes for a denoiser.")
        return problem.with_prior(prior.with_lam(lam)), None
    if isinstance(solver, HQS):
        raise CapabilityError(
            "solve(method='hqs')",
            expected="a prior with its weight lam",
            found=f"priors.{prior.name}(lam=None)",
            remedy="Set lam, or take method='auto', which can choose it.",
        )
    detached = Problem(
        problem.y.detach(), problem.operator, problem.fidelity, prior, problem.sigma, problem.input_shape
    )
    choice = choose_lam(solver, detached, x0.detach(), search_steps=60, search_tol=3 * tol)
    notes.append(f"lam: {choice.rule}.")
    return problem.with_prior(prior.with_lam(choice.lam)), choice.state


def _takes_weight(prior: Prior) -> bool:
    return prior.can(Capability.PROX) or prior.can(Capability.GRAD) or prior.can(Capability.ANALYSIS)


def _bar(progress: bool | None, name: str, limit: int) -> Any:
    """A context manager that gives the loop something to call, or nothing."""
    if not progress:
        return nullcontext(None)
    return _ProgressBar(name, limit)


class _ProgressBar:
    def __init__(self, name: str, limit: int) -> None:
        from rich.progress import Progress

        self._progress = Progress(transient=True)
        self._task = self._progress.add_task(name, total=limit)

    def __enter__(self) -> Callable[[int, int], object]:
        self._progress.start()
        return lambda step, _limit: self._progress.update(self._task, completed=step)

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
