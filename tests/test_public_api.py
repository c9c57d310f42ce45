"""The public surface: removing or renaming a name is a deliberate act that changes this file."""

import inspect

import invrestore as ir

FLAT = {
    "CapabilityError", "ConvergenceError", "DTypeError", "DeviceError", "Fidelity", "ImageFileError", "InvrestoreError",
    "LinearOperator", "Operator", "Prior", "RangeError", "Restorer", "ShapeError", "Solution", "Solver", "Status",
    "TrainingError", "UnknownNameError", "WeightsError", "__version__", "corruptions", "data", "fidelity", "kernels",
    "load_image", "metrics", "networks", "operators", "priors", "psnr", "restorers", "save_image", "solve", "solvers",
    "ssim", "testing",
}  # fmt: skip

NAMESPACES = {
    ir.operators: {
        "Blur", "Callable", "Compose", "Downsample", "Grayscale", "Identity", "JPEG", "LinearOperator", "Mask",
        "Operator", "Quantize", "SparseSampling", "Stack", "Value", "from_deepinv", "from_scipy", "stack",
    },
    ir.priors: {
        "Box", "Capability", "Denoiser", "Dictionary", "LowRank", "LowRankCompletion", "Prior", "PriorSum", "TGV", "TV",
        "Tikhonov", "Wavelet", "available", "from_deepinv", "load",
    },
    ir.fidelity: {"Fidelity", "Huber", "Interval", "L1", "L2", "Poisson", "Weighted"},
    ir.kernels: {"box", "disk", "from_file", "gaussian", "motion"},
    ir.corruptions: {"ClutteredBlock", "ColorNoise", "Gaussian", "Poisson", "SaltPepper", "Uniform"},
    ir.restorers: {"CoupledAtoms", "CoupledDictionary", "Restorer", "Unrolled"},
    ir.solvers: {"ADMM", "CG", "FISTA", "GradientDescent", "HQS", "METHODS", "PDHG", "RED", "Solver", "solve"},
    ir.testing: {"check_operator", "check_prior", "images", "kernels", "masks"},
    ir.metrics: {"psnr", "ssim"},
}  # fmt: skip


def test_the_flat_names_are_exactly_these():
    assert set(ir.__all__) == FLAT
    assert ir.__all__ == sorted(ir.__all__)


def test_every_namespace_has_its_names():
    for module, names in NAMESPACES.items():
        assert names <= set(module.__all__), f"{module.__name__} lacks {names - set(module.__all__)}"
        for name in module.__all__:
            assert hasattr(module, name)


def test_every_public_class_and_function_has_a_docstring():
    for module in NAMESPACES:
        for name in module.__all__:
            item = getattr(module, name)
            if inspect.isclass(item) or inspect.isfunction(item):
                assert item.__doc__, f"{module.__name__}.{name}"


def test_solve_has_the_documented_signature():
    names = list(inspect.signature(ir.solve).parameters)
    assert names == [
        "y", "operator", "prior", "sigma", "fidelity", "method", "max_steps", "tol", "init", "truth", "restarts",
        "samples", "refine", "rng",
        "progress", "callback", "throw",
    ]  # fmt: skip


def test_operators_and_priors_cannot_be_changed():
    import dataclasses

    import pytest
    import torch

    with pytest.raises(dataclasses.FrozenInstanceError):
        ir.operators.Mask(torch.ones(2, 2)).mask = torch.zeros(2, 2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        ir.priors.TV(0.1).lam = 0.2
