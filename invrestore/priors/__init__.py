"""What images look like: penalties, denoisers, generators and restorers under one contract."""

from invrestore.priors._base import Capability, Prior
from invrestore.priors._box import Box
from invrestore.priors._catalogue import available, load
from invrestore.priors._deepinv import FromDeepinv, as_prior_or_none, from_deepinv
from invrestore.priors._denoiser import Denoiser
from invrestore.priors._dictionary import Dictionary
from invrestore.priors._feed_forward import FeedForward
from invrestore.priors._latent import Latent
from invrestore.priors._low_rank import LowRank, LowRankCompletion
from invrestore.priors._restoration import Restoration
from invrestore.priors._restorer import RestorerPrior
from invrestore.priors._sum import PriorSum
from invrestore.priors._tgv import TGV
from invrestore.priors._tikhonov import Tikhonov
from invrestore.priors._tv import TV
from invrestore.priors._wavelet import Wavelet

__all__ = [
    "TGV",
    "TV",
    "Box",
    "Capability",
    "Denoiser",
    "Dictionary",
    "FeedForward",
    "FromDeepinv",
    "Latent",
    "LowRank",
    "LowRankCompletion",
    "Prior",
    "PriorSum",
    "Restoration",
    "RestorerPrior",
    "Tikhonov",
    "Wavelet",
    "as_prior_or_none",
    "available",
    "from_deepinv",
    "load",
]
