"""Image restoration as an inverse problem: any operator, any prior, one call."""

from invrestore._version import __version__

__all__ = ["__version__"]
