"""The command ``invrestore``: parses, calls the library, prints. torch loads when there is work."""

from invrestore.cli._app import main

__all__ = ["main"]
