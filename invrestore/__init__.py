"""Image restoration as an inverse problem: any operator, any prior, one call.

import invrestore as ir

y = ir.load_image("photo.png")
s = ir.solve(y, ir.operators.Blur(ir.kernels.gaussian(1.6)), ir.priors.TV(), sigma=0.02)
ir.save_image(s.x, "restored.png")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from invrestore._version import __version__

if TYPE_CHECKING:
    from invrestore import (
        corruptions,
        data,
        fidelity,
        kernels,
        metrics,
        networks,
        operators,
        priors,
        restorers,
        solvers,
        testing,
    )
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

# Loaded on first use, so that the command line can answer --help without torch.
_HOME = {
    "Fidelity": "fidelity",
    "LinearOperator": "operators",
    "Operator": "operators",
    "Prior": "priors",
    "Restorer": "restorers",
    "Solution": "solvers",
    "Solver": "solvers",
    "Status": "solvers",
    "load_image": "io",
    "psnr": "metrics",
    "save_image": "io",
    "solve": "solvers",
    "ssim": "metrics",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'invrestore' has no attribute {name!r}")
    home = "errors" if name.endswith("Error") else _HOME.get(name)
    module = import_module(f"invrestore.{home or name}")
    found = getattr(module, name) if home else module
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
