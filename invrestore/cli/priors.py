"""``invrestore priors``: what can stand after ``--prior``."""

from __future__ import annotations

from invrestore.cli._options import Debug

__all__ = ["priors"]


def priors(debug: Debug = False) -> None:
    """List the priors there are, and the cards of the trained ones."""
    from rich.table import Table
    from rich.text import Text

    from invrestore import networks
    from invrestore import priors as catalogue
    from invrestore.cli._catalogue import PRIOR_OPTIONS
    from invrestore.cli._tables import wide_console

    names = catalogue.available()
    # Weights of classifiers restore nothing.
    trained = [name for name in networks.available() if name in names]
    formulas = Table("name", "what it is", "options", title="Formulas", title_justify="left", box=None)
    for name in names:
        if name not in trained:
            summary = (type(catalogue.load(name)).__doc__ or "").partition("\n")[0].replace("``", "")
            options = ", ".join(f"{key}=..." for key in PRIOR_OPTIONS.get(name, ()))
            formulas.add_row(name, Text(summary), options)
    console = wide_console()
    console.print(formulas)
    print()
    if not trained:
        print("Trained: none in this installation.")
        return
    titles = ("network", "parameters", "noise levels", "trained on", "licence", "scores")
    table = Table(title="Trained, inside the package", title_justify="left", box=None)
    table.add_column("name", no_wrap=True)
    for title in titles:
        table.add_column(title)
    for name in trained:
        card = networks.card(name)
        levels = "" if card.sigma_range is None else f"{card.sigma_range[0]:g} to {card.sigma_range[1]:g}"
        scores = ", ".join(
            f"{k} {v:g}" if isinstance(v, float) else f"{k}: {v}" for k, v in card.metrics.items()
        )
        row = (name, card.architecture, f"{card.parameters:,}", levels, card.data, card.licence, scores)
        table.add_row(*map(Text, row))
    console.print(table)
