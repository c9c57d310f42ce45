"""What images look like: penalties, denoisers, generators and restorers under one contract."""

from invrestore.priors._base import Capability, Prior

__all__ = ["Capability", "Prior"]
