"""Image restoration as an inverse problem: any operator, any prior, one call.

    import invrestore as ir

    y = ir.load_image("photo.png")
    s = ir.solve(y, ir.operators.Blur(ir.kernels.gaussian(1.6)), ir.priors.TV(), sigma=0.02)
    ir.save_image(s.x, "restored.png")
"""

from invrestore import corruptions, data, fidelity, kernels, metrics, networks, operators, priors, restorers, solvers, testing
from invrestore._version import __version__
from invrestore.errors import (
    CapabilityError,
    ConvergenceError,
    DeviceError,
    DTypeError,
    ImageFileError,
    InvrestoreError,
    RangeError,
    ShapeError,
    TrainingError,
    UnknownNameError,
    WeightsError,
)
from invrestore.fidelity import Fidelity
from invrestore.io import load_image, save_image
from invrestore.metrics import psnr, ssim
from invrestore.operators import LinearOperator, Operator
from invrestore.priors import Prior
from invrestore.restorers import Restorer
from invrestore.solvers import Solution, Solver, Status, solve

__all__ = [
    "CapabilityError",
    "ConvergenceError",
    "DTypeError",
    "DeviceError",
    "Fidelity",
    "ImageFileError",
    "InvrestoreError",
    "LinearOperator",
    "Operator",
    "Prior",
    "RangeError",
    "Restorer",
    "ShapeError",
    "Solution",
    "Solver",
    "Status",
    "TrainingError",
    "UnknownNameError",
    "WeightsError",
    "__version__",
    "corruptions",
    "data",
    "fidelity",
    "kernels",
    "load_image",
    "metrics",
    "networks",
    "operators",
    "priors",
    "psnr",
    "restorers",
    "save_image",
    "solve",
    "solvers",
    "ssim",
    "testing",
]
