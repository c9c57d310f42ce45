"""What images look like: penalties, denoisers, generators and restorers under one contract."""

from invrestore.priors._base import Capability, Prior
from invrestore.priors._catalogue import available, load
from invrestore.priors._deepinv import FromDeepinv, as_prior_or_none, from_deepinv
from invrestore.priors._denoiser import Denoiser
from invrestore.priors._restorer import RestorerPrior

__all__ = [
    "Capability",
    "Denoiser",
    "FromDeepinv",
    "Prior",
    "RestorerPrior",
    "as_prior_or_none",
    "available",
    "from_deepinv",
    "load",
]
