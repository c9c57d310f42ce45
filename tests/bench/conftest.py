"""A small suite on generated images, with methods that take no time to speak of."""

import dataclasses

import pytest
import torch

from invrestore import io
from invrestore.bench import METHODS, SUITES, ImageSet, Method, Protocol, Row, Suite, Task
from invrestore.bench._degradations import Hole, Noisy

EVERY_KIND = frozenset({"noise", "mask"})


def shrink(problem, *, share=1.0):
    return problem.view * share


def constant(problem):
    return torch.full_like(problem.view, 0.5)


def broken(problem):
    raise AttributeError("out of order")


MADE = {
    "shrink": Method("shrink", "Shrink", "classical", shrink, EVERY_KIND, grid={"share": (0.8, 0.9, 1.0)}),
    "constant": Method("constant", "Constant", "classical", constant, EVERY_KIND),
    "broken": Method("broken", "Broken", "classical", broken, EVERY_KIND),
    "coloured": Method("coloured", "Colour only", "classical", constant, EVERY_KIND, channels=(3,)),
    "absent": Method("absent", "Absent", "peer", constant, EVERY_KIND, module="no_such_package"),
    "published": Method("published", "Published", "peer", constant, EVERY_KIND, peers=True),
}

SMALL = Suite(
    name="small",
    title="Small",
    summary="Generated images.",
    images=(ImageSet("pictures", "Pictures", "pictures"), ImageSet("gray", "Gray", "pictures", gray=True)),
    tuning=(ImageSet("others", "Others", "others"),),
    tasks=(
        Task("noise-1", "weak", Noisy(0.05), curve="noise", level=1),
        Task("noise-2", "strong", Noisy(0.2), curve="noise", level=2),
        Task("hole", "hole", Hole(6)),
    ),
    protocol=Protocol("Rounded to 8 bits."),
    rows=(Row("shrink"), Row("constant")),
    batch=2,
    axis="level",
)


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The small suite, its methods and a data folder for it."""
    for name, method in MADE.items():
        monkeypatch.setitem(METHODS, name, method)
    monkeypatch.setitem(SUITES, "small", SMALL)
    for folder, count in (("pictures", 5), ("others", 2)):
        (tmp_path / "data" / folder).mkdir(parents=True)
        for k in range(count):
            rng = torch.Generator().manual_seed(k + 10 * count)
            x = torch.rand((1, 3, 4, 4), generator=rng)
            x = torch.nn.functional.interpolate(x, (16, 16), mode="bilinear")
            io.save_image(x, tmp_path / "data" / folder / f"p{k}.png")
    return dataclasses.replace(SMALL)
