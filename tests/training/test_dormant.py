"""Channels of residual blocks that nothing raises above zero are found, drawn anew, and in the end taken out."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from invrestore.networks._blocks import ResidualBlock
from invrestore.training import Optimizer, Outcome, Recipe, Stage, Task, fit, load_checkpoint, make_fabric
from invrestore.training._dormant import listen, redraw, silence

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning:lightning.*")

WIDTH = 16
SILENT = [2, 3, 11]


def network(silent: list[int]) -> nn.Sequential:
    """Two residual blocks; the given channels of the second answer no positive input."""
    torch.manual_seed(0)
    net = nn.Sequential(ResidualBlock(WIDTH), ResidualBlock(WIDTH))
    with torch.no_grad():
        for block in net:
            block.second.weight.normal_(std=0.03)
            # What all pixels share raises no channel.
            block.first.weight -= block.first.weight.mean(dim=(1, 2, 3), keepdim=True)
        net[1].first.weight[silent] = -net[1].first.weight[silent].abs()
    return net


def images(seed: int = 0) -> Tensor:
    return 1 + 0.1 * torch.randn(2, WIDTH, 8, 8, generator=torch.Generator().manual_seed(seed))


def hidden(net: nn.Sequential, x: Tensor) -> Tensor:
    """What the second block has between its convolutions, before the ReLU."""
    out: Tensor = net[1].first(net[0](x))
    return out


def stepped(net: nn.Sequential) -> torch.optim.Adam:
    """An optimiser with a memory of one step."""
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)
    net(images(1)).square().sum().backward()
    optimizer.step()
    return optimizer


def revived(net: nn.Sequential, optimizer: torch.optim.Optimizer, average: nn.Module | None = None) -> int:
    with listen(net) as activity, torch.no_grad():
        for seed in range(3):
            net(images(seed))
    return redraw(net, average, optimizer, activity, torch.Generator().manual_seed(0))


def test_silent_channels_speak_again_and_the_answer_stays() -> None:
    net = network(SILENT)
    optimizer, x = stepped(net), images(5)
    with torch.no_grad():
        before, weights = net(x), [p.clone() for p in net.parameters()]
        assert (hidden(net, x)[:, SILENT] <= 0).all()
        assert revived(net, optimizer) == len(SILENT)
        torch.testing.assert_close(net(x), before)
        share = (hidden(net, x)[:, SILENT] > 0).float().mean(dim=(0, 2, 3))
    # Their mean input does not count: it would raise all pixels or none.
    assert ((share > 0.2) & (share < 0.8)).all()
    others = [i for i in range(WIDTH) if i not in SILENT]
    for old, new in zip(weights[:2], list(net.parameters())[:2], strict=True):
        assert torch.equal(old, new)
    assert torch.equal(net[1].first.weight[others], weights[2][others])
    assert torch.equal(net[1].second.weight[:, others], weights[3][:, others])
    assert (net[1].second.weight[:, SILENT] == 0).all()


def test_they_learn_again() -> None:
    net = network(SILENT)
    optimizer = stepped(net)

    def gradient() -> Tensor:
        net.zero_grad()
        net(images(5)).square().sum().backward()
        return net[1].second.weight.grad[:, SILENT]

    assert (gradient() == 0).all()
    revived(net, optimizer)
    assert (gradient().abs().amax(dim=(0, 2, 3)) > 0).all()


def test_the_average_and_the_memory_of_the_optimiser_follow() -> None:
    net, average = network(SILENT), network([])
    optimizer = stepped(net)
    revived(net, optimizer, average)
    assert torch.equal(average[1].first.weight[SILENT], net[1].first.weight[SILENT])
    assert (average[1].second.weight[:, SILENT] == 0).all()
    first, second = (optimizer.state[net[1].get_submodule(name).weight] for name in ("first", "second"))
    for key in ("exp_avg", "exp_avg_sq"):
        assert (first[key][SILENT] == 0).all()
        assert (first[key][0] != 0).any()
        assert (second[key][:, SILENT] == 0).all()
        assert (second[key][:, 0] != 0).any()


def test_a_network_that_is_awake_stays_as_it_is() -> None:
    net = network([])
    before = [p.clone() for p in net.parameters()]
    assert revived(net, stepped(network([]))) == 0
    assert all(torch.equal(p, q) for p, q in zip(before, net.parameters(), strict=True))


def test_silenced_channels_say_nothing_when_something_else_wakes_them() -> None:
    net = network(SILENT)
    known, strange = images(5), -images(5)
    with torch.no_grad():
        before = net(known)
        with listen(net) as activity:
            net(known)
        assert (hidden(net, strange)[:, SILENT] > 0).any()
        woken = net(strange)
        assert silence(net, activity) == len(SILENT)
        assert torch.equal(net(known), before)
        assert not torch.allclose(net(strange), woken)
        spoken = net(strange)
        net[1].first.weight[SILENT] = 0
        assert torch.equal(net(strange), spoken)


class Denoising(Task):
    """A toy with silent channels."""

    def __init__(self, silent: list[int]) -> None:
        self.players = {"net": network(silent)}
        self.averaged = ("net",)

    def losses(
        self, players: Mapping[str, nn.Module], stage: Stage, rng: torch.Generator
    ) -> Iterator[tuple[str, Tensor]]:
        x = 1 + 0.1 * torch.randn(stage.batch, WIDTH, 8, 8, generator=rng)
        yield "net", (players["net"](x) - 1).square().mean()

    def evaluate(self, players: Mapping[str, nn.Module], *, few: bool = False) -> dict[str, float]:
        return {}

    def samples(self, players: Mapping[str, nn.Module]) -> Tensor | None:
        return None


def fitted(folder: Path, *, revive: int | None, start: str = "", **options: Any) -> tuple[Outcome, list[str]]:
    settings = Recipe(
        name="toy",
        stages=(Stage(patch=8, batch=2),),
        optimizer=Optimizer(lr=1e-3, warmup=0),
        steps=9,
        start=start,
        revive=revive,
        licence="",
    )
    said: list[str] = []
    fabric = make_fabric(settings, "cpu")
    outcome = fit(Denoising(SILENT), settings, folder, fabric=fabric, say=said.append, **options)
    return outcome, said


def trained(folder: Path, **options: Any) -> list[str]:
    """What is said of silent channels while a training lasts."""
    return [line for line in fitted(folder, **options)[1] if "anew" in line]


def test_at_the_end_what_is_still_silent_is_taken_out(tmp_path: Path) -> None:
    whole, said = fitted(tmp_path / "whole", revive=None)
    assert "step 9: 3 silent channels taken out" in said
    weight = whole.players["net"][1].second.weight
    assert (weight[:, SILENT] == 0).all()
    assert (weight[:, 0] != 0).any()
    part, said = fitted(tmp_path / "parts", revive=None, pause_step=5)
    assert not any("silent" in line for line in said)
    assert (part.players["net"][1].second.weight[:, SILENT] != 0).any()
    # A checkpoint is of the training, not of what is exported: going on and asking again give the same.
    for _ in range(2):
        again, said = fitted(tmp_path / "parts", revive=None, resume=True)
        assert torch.equal(again.players["net"][1].second.weight, weight)


def test_training_looks_every_so_many_steps_and_at_once_when_it_starts_from_weights(tmp_path: Path) -> None:
    assert trained(tmp_path / "a", revive=4) == ["step 4: 3 silent channels drawn anew"]
    assert trained(tmp_path / "b", revive=4, start="x") == ["step 0: 3 silent channels drawn anew"]
    assert trained(tmp_path / "c", revive=None, start="x") == []


def test_a_resumed_training_draws_the_same(tmp_path: Path) -> None:
    trained(tmp_path / "whole", revive=4)
    for stop in (3, 4, 5, None):
        trained(tmp_path / "parts", revive=4, resume=True, pause_step=stop)
    whole, parts = (
        load_checkpoint(tmp_path / name / "checkpoint.safetensors").tensors for name in ("whole", "parts")
    )
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
