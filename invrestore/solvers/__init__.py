"""How the minimum is found: one loop, one file for each method, and ``solve`` above them."""

from invrestore.solvers._admm import ADMM
from invrestore.solvers._base import Solver, State
from invrestore.solvers._blend import (
    back_project,
    importance_weights,
    poisson_blend,
    smooth_chroma,
    transplant_value,
)
from invrestore.solvers._cg import CG
from invrestore.solvers._diffpir import DiffPIR
from invrestore.solvers._direct import Direct
from invrestore.solvers._film import Film
from invrestore.solvers._fista import FISTA
from invrestore.solvers._gradient import GradientDescent
from invrestore.solvers._hqs import HQS
from invrestore.solvers._latent import LatentSearch
from invrestore.solvers._latent_state import LatentState
from invrestore.solvers._pdhg import PDHG
from invrestore.solvers._problem import Problem
from invrestore.solvers._red import RED
from invrestore.solvers._solution import Solution, Status
from invrestore.solvers._solve import METHODS, solve, solvers_for

__all__ = [
    "ADMM",
    "CG",
    "FISTA",
    "HQS",
    "METHODS",
    "PDHG",
    "RED",
    "DiffPIR",
    "Direct",
    "Film",
    "GradientDescent",
    "LatentSearch",
    "LatentState",
    "Problem",
    "Solution",
    "Solver",
    "State",
    "Status",
    "back_project",
    "importance_weights",
    "poisson_blend",
    "smooth_chroma",
    "solve",
    "solvers_for",
    "transplant_value",
]
