"""Forward models ``y = A(x)``: what happened to the image."""

from invrestore.operators._base import LinearOperator, Operator
from invrestore.operators._blur import Blur
from invrestore.operators._callable import Callable, as_operator
from invrestore.operators._color import Grayscale, Value
from invrestore.operators._compose import Adjoint, Compose, Scaled, Stack, Sum, compose, stack
from invrestore.operators._downsample import Downsample
from invrestore.operators._gradient import Gradient
from invrestore.operators._identity import Identity
from invrestore.operators._interop import from_deepinv, from_scipy
from invrestore.operators._jpeg import JPEG, JPEGTransform
from invrestore.operators._mask import Mask, SparseSampling
from invrestore.operators._quantize import Quantize
from invrestore.operators._wavelet import WaveletTransform, wavelet_names

__all__ = [
    "JPEG",
    "Adjoint",
    "Blur",
    "Callable",
    "Compose",
    "Downsample",
    "Gradient",
    "Grayscale",
    "Identity",
    "JPEGTransform",
    "LinearOperator",
    "Mask",
    "Operator",
    "Quantize",
    "Scaled",
    "SparseSampling",
    "Stack",
    "Sum",
    "Value",
    "WaveletTransform",
    "as_operator",
    "compose",
    "from_deepinv",
    "from_scipy",
    "stack",
    "wavelet_names",
]
