"""Sparse codes of many signals at once: orthogonal matching pursuit and iterative shrinkage on tensors.

Signals are rows, (N, n); a dictionary is (K, n), one atom a row. Loops run over the atoms of a code, never
over signals, and work goes in chunks whose size bounds the memory.
"""

from __future__ import annotations

import dataclasses

import torch
from torch.nn.functional import embedding_bag

from invrestore._checks import check_count, check_device, check_nonnegative, check_tensor
from invrestore._types import Tensor
from invrestore.errors import RangeError, ShapeError

__all__ = ["SparseCode", "check_signals", "ista", "omp"]

_CHUNK = {"cpu": 2048, "other": 131072}
"""Signals coded together: on a CPU their correlations with 256 atoms stay in the cache, a GPU wants many."""

_SEEN = 1e-4
"""Share of an atom's energy on the weighted entries below which a signal cannot choose it."""


@dataclasses.dataclass(frozen=True, eq=False)
class SparseCode:
    """Codes with at most S atoms each.

    Attributes:
        support: Numbers of the atoms, (N, S). Unused places hold atom 0 with coefficient 0.
        values: Their coefficients, (N, S).
    """

    support: Tensor
    values: Tensor

    def decode(self, atoms: Tensor) -> Tensor:
        """Signals ``sum_j values[:, j] * atoms[support[:, j]]``, (N, n)."""
        if self.support.shape[1] == 0:
            return self.values.new_zeros(self.support.shape[0], atoms.shape[1])
        atoms = atoms.to(self.values.dtype)
        return embedding_bag(self.support, atoms, per_sample_weights=self.values, mode="sum")

    def dense(self, count: int) -> Tensor:
        """The same codes as a full matrix, (N, count)."""
        return self.values.new_zeros(self.support.shape[0], count).scatter_add(1, self.support, self.values)


def check_signals(where: str, x: object, atoms: object) -> tuple[Tensor, Tensor]:
    """Return signals and atoms if they are (N, n) and (K, n) on one device and no atom is zero."""
    x, atoms = check_tensor(where, "x", x), check_tensor(where, "atoms", atoms)
    if x.ndim != 2:
        raise ShapeError(
            where,
            expected="x of shape (N, n), one signal a row",
            found=str(tuple(x.shape)),
            remedy="x.flatten(1)?",
        )
    if atoms.ndim != 2 or atoms.shape[1] != x.shape[1] or atoms.shape[0] == 0:
        remedy = "Transpose the dictionary?" if atoms.ndim == 2 and atoms.shape[0] == x.shape[1] else ""
        raise ShapeError(
            where,
            expected=f"atoms of shape (K, {x.shape[1]}), one atom a row",
            found=str(tuple(atoms.shape)),
            remedy=remedy,
        )
    check_device(where, x=x, atoms=atoms)
    size = atoms.detach().norm(dim=1)
    if not bool(((size > 0) & torch.isfinite(size)).all()):
        raise RangeError(
            where, expected="atoms that are finite and not zero", found="a zero, infinite or NaN atom"
        )
    return x, atoms


def _per_signal(where: str, name: str, value: float | Tensor, x: Tensor) -> Tensor:
    check_nonnegative(where, name, value)
    numbers = torch.as_tensor(value, dtype=x.dtype, device=x.device).detach()
    if numbers.ndim == 1 and numbers.shape[0] not in (1, x.shape[0]):
        raise ShapeError(
            where, expected=f"{name} of shape () or ({x.shape[0]},)", found=str(tuple(numbers.shape))
        )
    return numbers.expand(x.shape[0])


def _working(x: Tensor) -> torch.dtype:
    """Type to compute in: half precision cannot hold a Gram matrix."""
    return x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32


def omp(
    x: Tensor,
    atoms: Tensor,
    *,
    sparsity: int | None = None,
    error: float | Tensor | None = None,
    weights: Tensor | None = None,
    chunk: int | None = None,
) -> SparseCode:
    """Orthogonal matching pursuit: greedily few atoms with ``||x - code @ atoms|| <= error``.

    Each step adds the atom most correlated with what is left of the signal and projects the signal onto all
    chosen atoms. With plain norms this is Batch-OMP: the Gram matrix stands for the signals, the inverse of
    the Cholesky factor of each chosen Gram block grows by a row a step, and signals that are done leave the
    chunk. With ``weights`` each signal sees its own dictionary, which Gram-Schmidt orthogonalises.

    The choice of atoms has no derivative. For a given choice the coefficients are a smooth function of ``x``
    and ``atoms``, and that is what gradients flow through.

    Args:
        x: Signals, (N, n).
        atoms: Dictionary, (K, n), of any norms but zero.
        sparsity: Most atoms a code may have; None allows min(n, K).
        error: Norm of the residual at which a code is good enough, a number or (N,); None goes on to
            ``sparsity`` or until nothing is left.
        weights: Weight >= 0 of each entry in the squared norm, (N, n); 0 marks entries that are not known.
        chunk: Signals handled together; None chooses by device.

    Returns:
        A SparseCode with S = sparsity columns.

    Raises:
        ShapeError: Axes do not fit together.
        RangeError: A zero atom, sparsity below 1, negative error or weights.

    Example:
        >>> code = omp(torch.tensor([[3.0, 4.0]]), torch.eye(2), sparsity=1)
        >>> code.support.tolist(), code.values.tolist()
        ([[1]], [[4.0]])

    Reference:
        Pati, Rezaiifar and Krishnaprasad (1993); Rubinstein, Zibulevsky and Elad (2008) for the Gram form,
        which keeps a Cholesky factor where we keep its inverse.
    """
    x, atoms = check_signals("omp", x, atoms)
    limit = (
        min(atoms.shape) if sparsity is None else min(check_count("omp", "sparsity", sparsity), *atoms.shape)
    )
    size = check_count("omp", "chunk", chunk) if chunk is not None else _chunk_size(x)
    if weights is not None and chunk is None:
        # Each signal then carries its own directions, n numbers for every atom.
        size //= 8
    if weights is not None:
        if weights.shape != x.shape:
            raise ShapeError(
                "omp", expected=f"weights of shape {tuple(x.shape)}", found=str(tuple(weights.shape))
            )
        if not bool((weights >= 0).all()):
            raise RangeError("omp", expected="weights >= 0", found=f"{float(weights.min())}")
    wanted = None if error is None else _per_signal("omp", "error", error, x)
    dtype = _working(x)
    with torch.no_grad():
        length = atoms.detach().to(dtype).norm(dim=1, keepdim=True)
        unit = atoms.detach().to(dtype) / length
        gram = unit @ unit.T
        supports, values = [], []
        for start in range(0, x.shape[0], size):
            part = slice(start, start + size)
            goal = None if wanted is None else wanted[part].to(dtype).square()
            signals = x[part].detach().to(dtype)
            if weights is None:
                chosen, found = _pursue(signals, unit, gram, limit, goal)
            else:
                chosen, found = _pursue_weighted(signals, unit, weights[part].detach().to(dtype), limit, goal)
            supports.append(chosen)
            values.append(found)
        if not supports:
            supports, values = (
                [torch.zeros(0, limit, dtype=torch.long, device=x.device)],
                [x.new_zeros(0, limit)],
            )
        support, value = torch.cat(supports), torch.cat(values)
        value = value / length[:, 0][support]
    if torch.is_grad_enabled() and (x.requires_grad or atoms.requires_grad):
        value = _refit(x.to(dtype), atoms.to(dtype), support, value != 0, weights)
    return SparseCode(support, value.to(x.dtype))


def _chunk_size(x: Tensor) -> int:
    return _CHUNK["cpu" if x.device.type == "cpu" else "other"]


def _pursue(x: Tensor, unit: Tensor, gram: Tensor, limit: int, goal: Tensor | None) -> tuple[Tensor, Tensor]:
    """Batch-OMP for unit atoms; row k of M holds q_k in terms of the chosen atoms, the q orthonormal."""
    run = _Run(x.square().sum(1), limit, goal)
    correlation = x[run.where] @ unit.T
    M = x.new_zeros(0, 0, run.where.shape[0])
    for k in range(limit):
        keep = run.begin(k)
        if keep is None:
            break
        if keep.numel():
            correlation, M = correlation[keep], M[:, :, keep]
        if k == M.shape[0]:
            # Most codes are short: room for more atoms is made when the first signal needs it.
            room = min(2 * k + 4, limit) - k
            M = torch.nn.functional.pad(M, (0, 0, 0, room, 0, room))
        best = correlation.abs().argmax(1)
        amount = correlation.gather(1, best[:, None])[:, 0]
        length2 = torch.ones_like(amount)
        if k:
            inner = (M[:k, :k] * gram[run.support[:k], best]).sum(1)
            length2 = 1 - inner.square().sum(0)
        scale = run.choose(k, best, length2)
        if k:
            M[k, :k] = -(inner[:, None] * M[:k, :k]).sum(0) * scale
        M[k, k] = scale
        amount = amount * scale
        step = amount * M[k, : k + 1]
        run.values[: k + 1] += step
        run.energy = torch.where(scale > 0, run.energy - amount.square(), 0.0)
        if k + 1 < limit:
            rows = run.support[: k + 1].T.contiguous()
            correlation -= embedding_bag(rows, gram, per_sample_weights=step.T.contiguous(), mode="sum")
    return run.finish()


def _pursue_weighted(
    x: Tensor, unit: Tensor, weights: Tensor, limit: int, goal: Tensor | None
) -> tuple[Tensor, Tensor]:
    """OMP where signal i has the atoms ``sqrt(weights[i]) * unit``; Q = M times the chosen ones."""
    root = weights.sqrt()
    residual = root * x
    run = _Run(residual.square().sum(1), limit, goal)
    root, residual = root[run.where], residual[run.where]
    # Atoms that a signal sees next to nothing of would be blown up by their normalisation.
    seen = root.square() @ unit.square().T
    visible = seen > _SEEN * root.square().amax(1, keepdim=True)
    length = torch.where(visible, seen.clamp_min(torch.finfo(x.dtype).tiny).rsqrt(), 0.0)
    count, n = residual.shape
    M, Q = x.new_zeros(0, 0, count), x.new_zeros(0, count, n)
    for k in range(limit):
        keep = run.begin(k)
        if keep is None:
            break
        if keep.numel():
            root, residual, length = root[keep], residual[keep], length[keep]
            M, Q = M[:, :, keep], Q[:, keep]
        if k == M.shape[0]:
            room = min(2 * k + 4, limit) - k
            M = torch.nn.functional.pad(M, (0, 0, 0, room, 0, room))
            Q = torch.nn.functional.pad(Q, (0, 0, 0, 0, 0, room))
        best = (((root * residual) @ unit.T) * length).abs().argmax(1)
        atom = root * unit[best]
        whole = atom.square().sum(1)
        inner = (Q[:k] * atom).sum(2)
        atom = atom - (inner[:, :, None] * Q[:k]).sum(0)
        # The second pass keeps the directions orthogonal when the atoms left are nearly dependent.
        more = (Q[:k] * atom).sum(2)
        atom = atom - (more[:, :, None] * Q[:k]).sum(0)
        length2 = atom.square().sum(1)
        tiny = torch.finfo(x.dtype).tiny
        scale = run.choose(k, best, length2 / whole.clamp_min(tiny)) * whole.clamp_min(tiny).rsqrt()
        Q[k] = atom * scale[:, None]
        M[k, :k] = -((inner + more)[:, None] * M[:k, :k]).sum(0) * scale
        M[k, k] = scale
        amount = (Q[k] * residual).sum(1)
        run.values[: k + 1] += amount * M[k, : k + 1]
        residual = residual - amount[:, None] * Q[k]
        run.energy = torch.where(scale > 0, residual.square().sum(1), 0.0)
    return run.finish()


class _Run:
    """Bookkeeping of a pursuit: which signals go on, their codes so far, and where finished codes go.

    Attributes:
        energy: Squared residual of each signal that goes on.
        where: Its row in the result.
        support: Atoms chosen for it, (limit, signals).
        values: Their coefficients, (limit, signals).
    """

    def __init__(self, energy: Tensor, limit: int, goal: Tensor | None) -> None:
        eps = torch.finfo(energy.dtype).eps
        # What rounding leaves of a signal that is represented in full is not a signal.
        rest = energy * (8 * eps) ** 2
        rest = rest if goal is None else torch.maximum(goal, rest)
        self.dependent = 64 * eps
        self.codes = torch.zeros(energy.shape[0], limit, dtype=torch.long, device=energy.device)
        self.found = energy.new_zeros(energy.shape[0], limit)
        self.where = (energy > rest).nonzero()[:, 0]
        self.energy, self.rest = energy[self.where], rest[self.where]
        self.support = torch.zeros(limit, self.where.shape[0], dtype=torch.long, device=energy.device)
        self.values = energy.new_zeros(limit, self.where.shape[0])

    def begin(self, k: int) -> Tensor | None:
        """Drop signals that are done; None when all are, an empty tensor when too few to be worth a copy."""
        going = self.energy > self.rest
        left = int(going.sum())
        if left == 0:
            return None
        if left > 0.9 * going.shape[0]:
            return going.new_zeros(0, dtype=torch.long)
        self._store()
        keep = going.nonzero()[:, 0]
        self.where, self.energy, self.rest = self.where[keep], self.energy[keep], self.rest[keep]
        self.support, self.values = self.support[:, keep], self.values[:, keep]
        return keep

    def choose(self, k: int, best: Tensor, length2: Tensor) -> Tensor:
        """Enter the k-th atoms; 1 / length of their new directions, 0 for signals that are done.

        A signal whose best atom depends on its others can gain nothing more and is done as well.
        """
        going = (self.energy > self.rest) & (length2 > self.dependent)
        self.support[k] = torch.where(going, best, 0)
        return torch.where(going, length2.clamp_min(self.dependent).rsqrt(), 0.0)

    def finish(self) -> tuple[Tensor, Tensor]:
        """Supports and values of all signals, (N, limit)."""
        self._store()
        return self.codes, self.found

    def _store(self) -> None:
        self.codes[self.where] = self.support.T
        self.found[self.where] = self.values.T


def _refit(x: Tensor, atoms: Tensor, support: Tensor, used: Tensor, weights: Tensor | None) -> Tensor:
    """Least-squares coefficients on given supports, differentiable in signals and atoms."""
    chosen = atoms[support] * used[:, :, None]
    weighted = chosen if weights is None else chosen * weights.to(x.dtype)[:, None]
    block = weighted @ chosen.mT + torch.diag_embed((~used).to(x.dtype))
    target = (weighted @ x[:, :, None]).squeeze(2)
    values: Tensor = torch.linalg.solve(block, target) * used
    return values


def ista(
    x: Tensor,
    atoms: Tensor,
    lam: float | Tensor,
    *,
    steps: int = 100,
    tol: float = 1e-4,
    accelerate: bool = True,
    weights: Tensor | None = None,
    chunk: int | None = None,
) -> Tensor:
    """Codes argmin_a 1/2 ||x - a @ atoms||^2 + lam ||a||_1 by iterative shrinkage, (N, K).

    Args:
        x: Signals, (N, n).
        atoms: Dictionary, (K, n).
        lam: Weight, >= 0, a number or (N,). At max |atoms @ x| and above the code is zero.
        steps: Most iterations.
        tol: Stops when no signal's code moves by more than this, relative to its size.
        accelerate: Nesterov momentum (FISTA) with a restart where it points uphill; False is plain ISTA.
        weights: Weight >= 0 of each entry in the squared norm, (N, n).
        chunk: Signals handled together; None chooses by device.

    Raises:
        ShapeError: Axes do not fit together.
        RangeError: A zero atom, negative lam or weights, steps below 1.

    Example:
        >>> ista(torch.tensor([[3.0, -0.5]]), torch.eye(2), 1.0).round(decimals=3).tolist()
        [[2.0, 0.0]]

    Reference:
        Daubechies, Defrise and De Mol (2004); Beck and Teboulle (2009); O'Donoghue and Candès (2015) for the
        restart, here of each signal on its own.
    """
    x, atoms = check_signals("ista", x, atoms)
    check_count("ista", "steps", steps)
    check_nonnegative("ista", "tol", tol)
    bound = _per_signal("ista", "lam", lam, x)
    size = check_count("ista", "chunk", chunk) if chunk is not None else _chunk_size(x)
    if weights is not None:
        if weights.shape != x.shape:
            raise ShapeError(
                "ista", expected=f"weights of shape {tuple(x.shape)}", found=str(tuple(weights.shape))
            )
        if not bool((weights >= 0).all()):
            raise RangeError("ista", expected="weights >= 0", found=f"{float(weights.min())}")
    dtype = _working(x)
    D = atoms.to(dtype)
    smaller = (D if D.shape[0] < D.shape[1] else D.T).detach()
    # The margin covers the rounding of the largest eigenvalue.
    curvature = 1.0001 * torch.linalg.eigvalsh(smaller @ smaller.T)[-1]
    parts = []
    for start in range(0, x.shape[0], size):
        part = slice(start, start + size)
        seen = None if weights is None else weights[part].to(dtype)
        parts.append(
            _shrink(x[part].to(dtype), D, bound[part].to(dtype), curvature, steps, tol, accelerate, seen)
        )
    return torch.cat(parts).to(x.dtype) if parts else x.new_zeros(0, atoms.shape[0])


def _shrink(
    x: Tensor,
    D: Tensor,
    lam: Tensor,
    curvature: Tensor,
    steps: int,
    tol: float,
    accelerate: bool,
    weights: Tensor | None,
) -> Tensor:
    top = curvature if weights is None else curvature * weights.amax(1, keepdim=True).clamp_min(1e-30)
    step = (1 / top).expand(x.shape[0], 1)
    bound = lam[:, None] * step
    a = x.new_zeros(x.shape[0], D.shape[0])
    ahead, t = a, torch.ones_like(step)
    for count in range(steps):
        residual = ahead @ D - x
        if weights is not None:
            residual = residual * weights
        moved = ahead - step * (residual @ D.T)
        new = moved - moved.clamp(-bound, bound)
        change = new - a
        if accelerate:
            uphill = ((ahead - new) * change).sum(1, keepdim=True) > 0
            t = torch.where(uphill, 1.0, t)
            t_next = (1 + (1 + 4 * t**2).sqrt()) / 2
            ahead = new + ((t - 1) / t_next) * change
            t = t_next
        else:
            ahead = new
        a = new
        # Every tenth step only, because the test waits for the device.
        if count % 10 == 9 and bool((change.detach().norm(dim=1) <= tol * new.detach().norm(dim=1)).all()):
            break
    return a
