"""``invrestore priors``: what can stand after ``--prior``."""

from __future__ import annotations

from invrestore.cli._options import Debug

__all__ = ["priors"]

_FORMULAS = {
    "tv": "total variation: flat areas with sharp edges",
    "tgv": "total generalised variation: smooth slopes with sharp edges",
    "wavelet": "few large wavelet coefficients; options wavelet=db4 (any orthogonal one) and levels=N",
    "tikhonov": "small gradients in the mean square: smooth everywhere, linear and fast",
}


def priors(debug: Debug = False) -> None:
    """List the priors there are, and the cards of the trained ones."""
    from rich.console import Console
    from rich.table import Table

    from invrestore import networks
    from invrestore import priors as catalogue

    console = Console()
    formulas = Table("name", "what it favours", title="Formulas", title_justify="left", box=None)
    for name, text in _FORMULAS.items():
        formulas.add_row(name, text)
    console.print(formulas)
    names = [name for name in catalogue.available() if name not in _FORMULAS]
    if not names:
        console.print("\nTrained priors: none in this installation.")
        return
    trained = Table(
        "name", "network", "parameters", "noise levels", "trained on", "licence", "scores", box=None
    )
    trained.title, trained.title_justify = "\nTrained, inside the package", "left"
    known = networks.available()
    for name in names:
        if name not in known:
            trained.add_row(name)
            continue
        card = networks.card(name)
        levels = "" if card.sigma_range is None else f"{card.sigma_range[0]:g} to {card.sigma_range[1]:g}"
        scores = ", ".join(
            f"{k} {v:g}" if isinstance(v, float) else f"{k}: {v}" for k, v in card.metrics.items()
        )
        trained.add_row(
            name, card.architecture, f"{card.parameters:,}", levels, card.data, card.licence, scores
        )
    console.print(trained)
