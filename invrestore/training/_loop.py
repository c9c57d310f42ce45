"""The one training loop."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from invrestore.errors import TrainingError
from invrestore.io import save_image
from invrestore.training._checkpoint import Checkpoint, latest_checkpoint, save_checkpoint
from invrestore.training._dormant import Activity, listen, redraw, silence
from invrestore.training._optim import Muon
from invrestore.training._recipe import Optimizer, Recipe, Stage
from invrestore.training._task import Task

__all__ = ["Outcome", "fit", "make_fabric"]

_CLOCK_EVERY = 10  # Steps between readings of the clock when several processes must agree on it
_LOOKS = 16  # Batches on which a channel must be silent to count as such
_EXPLODED = 1e3  # A mean loss so many times 1 + the first one has left for good


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes:
        players: Averaged networks by name, on the CPU, in evaluation mode.
        step: Steps done in all parts of the run.
        seconds: Time trained in all parts of the run.
        finished: Whether the schedule came to its end.
    """

    players: dict[str, nn.Module]
    step: int
    seconds: float
    finished: bool


def make_fabric(recipe: Recipe, accelerator: str = "auto", devices: int | str = 1) -> Any:
    """Build the Lightning Fabric for a recipe: device, precision, and one process for each device."""
    from lightning.fabric import Fabric

    on_gpu = accelerator in ("cuda", "gpu") or (accelerator == "auto" and torch.cuda.is_available())
    device = torch.device("cuda" if on_gpu else "cpu")
    fabric = Fabric(
        accelerator=accelerator,
        devices=devices,
        precision="bf16-mixed" if recipe.computes_in_bfloat16(device) else "32-true",
    )
    fabric.launch()
    return fabric


def fit(
    task: Task,
    recipe: Recipe,
    folder: str | Path,
    *,
    fabric: Any,
    resume: bool = False,
    pause_step: int | None = None,
    pause_minutes: float | None = None,
    say: Callable[[str], None] = print,
) -> Outcome:
    """Train a task by a recipe.

    The learning rate follows half a cosine of the progress, the larger of steps done / steps and time trained
    / minutes, so a run that is given M minutes ends at rate zero on any machine. A run folder holds
    `recipe.json`, `log.jsonl`, the last two checkpoints and sample sheets.

    Args:
        task: Networks, data and losses.
        recipe: Schedule, optimiser and effort.
        folder: Run folder; made if it is missing.
        fabric: Result of :func:`make_fabric`.
        resume: Go on from the newest intact checkpoint of the folder; without one the training starts afresh.
        pause_step: Save and stop at this step, to be resumed later.
        pause_minutes: Save and stop after this many minutes of this call, to be resumed later.
        say: Receives one line of progress at a time.

    Returns:
        The averaged networks and how far they came.

    Raises:
        TrainingError: The folder holds another run and resume is off; no checkpoint is intact; the checkpoint
            belongs to other networks; or a loss is not finite, or a thousand times what the first line of
            this call's log says, in which case the last good checkpoint is kept.
    """
    folder = Path(folder)
    state = _start(task, recipe, folder, fabric, resume, say)
    if fabric.is_global_zero:
        (folder / "recipe.json").write_text(recipe.model_dump_json(indent=2) + "\n")
    rng = torch.Generator(device=fabric.device)
    meter = _Meter(task, state, fabric)
    started = saved_at = shown_at = time.perf_counter()
    before = state.seconds
    progress, finished = 0.0, False
    while True:
        if fabric.world_size == 1 or state.step % _CLOCK_EVERY == 0:
            state.seconds = fabric.broadcast(before + time.perf_counter() - started)
        progress = _progress(recipe, state.step, state.seconds)
        finished = progress >= 1
        by_step = pause_step is not None and state.step >= pause_step
        by_time = pause_minutes is not None and state.seconds - before >= 60 * pause_minutes
        if finished or by_step or by_time:
            break
        stage = recipe.stage(progress)
        meter.begin(stage)
        _set_rates(state.optimizers, recipe, state.step, progress)
        if _due(recipe, state.step):
            count = _revive(task, state, stage, recipe, rng, fabric)
            if count and fabric.is_global_zero:
                say(f"step {state.step}: {count} silent channels drawn anew")
        _seed(rng, recipe.seed, state.step, fabric.global_rank)
        _update(task, state, stage, rng, fabric, meter.totals)
        state.average(recipe.ema)
        state.step += 1
        if state.step % recipe.log_every == 0:
            line = meter.line(progress)
            if fabric.is_global_zero:
                with (folder / "log.jsonl").open("a") as log:
                    log.write(json.dumps(line) + "\n")
                say("  ".join(f"{key} {value:.5g}" for key, value in line.items()))
            if time.perf_counter() - saved_at > 60 * recipe.save_minutes:
                saved_at = time.perf_counter()
                state.require_finite()
                if fabric.is_global_zero:
                    save_checkpoint(folder, state.checkpoint(recipe))
            now = time.perf_counter()
            if recipe.show_minutes is not None and now - shown_at > 60 * recipe.show_minutes:
                state.require_finite()
                if fabric.is_global_zero:
                    _show(task, state, folder, say)
                # Looking is no training: the clock stands still meanwhile.
                shown_at = time.perf_counter()
                started += shown_at - now
                meter.last_time += shown_at - now
    meter.require_finite()
    state.require_finite()
    if fabric.is_global_zero and state.step > meter.first_step:
        save_checkpoint(folder, state.checkpoint(recipe))
    if finished:
        count = _silence(task, state, recipe.stage(1.0), recipe, rng, fabric)
        if count and fabric.is_global_zero:
            say(f"step {state.step}: {count} silent channels taken out")
    players = {name: state.averages[name].cpu() for name in task.averaged}
    return Outcome(players, state.step, state.seconds, finished)


def _show(task: Task, state: _State, folder: Path, say: Callable[[str], None]) -> None:
    """Score the averaged networks on a few test images, into the log, and save a sample sheet."""
    players = {name: deepcopy(network).cpu() for name, network in state.averages.items()}
    scores = {f"few_{name}": value for name, value in task.evaluate(players, few=True).items()}
    if scores:
        line = {"step": state.step, "minutes": state.seconds / 60, **scores}
        with (folder / "log.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        say("  ".join(f"{key} {value:.5g}" for key, value in line.items()))
    sheet = task.samples(players)
    if sheet is not None:
        save_image(sheet, folder / f"samples-{state.step}.png", force=True)


class _State:
    """Everything that a checkpoint must hold."""

    def __init__(self, task: Task, recipe: Recipe, fabric: Any) -> None:
        self.step = 0
        self.seconds = 0.0
        self.raw = {name: module.to(fabric.device).train() for name, module in task.players.items()}
        self.averages = {
            name: deepcopy(self.raw[name]).eval().requires_grad_(False) for name in task.averaged
        }
        self.players: dict[str, nn.Module] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.limits = {name: recipe.optimizer_of(name).clip_norm for name in self.raw}
        for name, module in self.raw.items():
            optimizer = _optimizer(module, recipe.optimizer_of(name))
            compiled = torch.compile(module) if recipe.compile else module
            self.players[name], self.optimizers[name] = fabric.setup(compiled, optimizer)

    @torch.no_grad()
    def average(self, decay: float) -> None:
        """Move the averages towards the networks; young averages move faster."""
        share = 1 - min(decay, (1 + self.step) / (10 + self.step))
        for name, average in self.averages.items():
            torch._foreach_lerp_(list(average.parameters()), list(self.raw[name].parameters()), share)
            for mine, theirs in zip(average.buffers(), self.raw[name].buffers(), strict=True):
                mine.copy_(theirs)

    def _tensors(self) -> dict[str, Tensor]:
        tensors: dict[str, Tensor] = {}
        for kind, modules in (("network", self.raw), ("average", self.averages)):
            for name, module in modules.items():
                tensors.update({f"{kind}/{name}/{key}": value for key, value in module.state_dict().items()})
        for name, optimizer in self.optimizers.items():
            for index, entry in optimizer.state_dict()["state"].items():
                tensors.update({f"optimizer/{name}/{index}/{key}": value for key, value in entry.items()})
        return tensors

    def require_finite(self) -> None:
        """Raise TrainingError if a weight is not finite: a bad checkpoint must not replace a good one."""
        for name, module in self.raw.items():
            if not all(bool(torch.isfinite(value).all()) for value in module.state_dict().values()):
                raise _diverged(f"finite weights of {name}", "others", self.step)

    def checkpoint(self, recipe: Recipe) -> Checkpoint:
        """Return the state after a whole step."""
        return Checkpoint(self.step, self.seconds, self._tensors(), recipe.model_dump(mode="json"))

    def restore(self, saved: Checkpoint) -> None:
        """Take over a checkpoint of the same networks and kind of optimiser."""
        for kind, modules in (("network", self.raw), ("average", self.averages)):
            for name, module in modules.items():
                prefix = f"{kind}/{name}/"
                tensors = {
                    k.removeprefix(prefix): v for k, v in saved.tensors.items() if k.startswith(prefix)
                }
                try:
                    module.load_state_dict(tensors)
                except RuntimeError as error:
                    raise TrainingError(
                        "fit",
                        expected=f"a checkpoint of the same {name}",
                        found="other tensors",
                        remedy="Resume with the recipe that began the run, or choose another run folder.",
                    ) from error
        for name, optimizer in self.optimizers.items():
            prefix = f"optimizer/{name}/"
            entries: dict[int, dict[str, Tensor]] = {}
            for key, tensor in saved.tensors.items():
                if key.startswith(prefix):
                    index, field = key.removeprefix(prefix).split("/")
                    entries.setdefault(int(index), {})[field] = tensor
            optimizer.load_state_dict(
                {"state": entries, "param_groups": optimizer.state_dict()["param_groups"]}
            )
        self.step, self.seconds = saved.step, saved.seconds


def _start(
    task: Task, recipe: Recipe, folder: Path, fabric: Any, resume: bool, say: Callable[[str], None]
) -> _State:
    folder.mkdir(parents=True, exist_ok=True)
    found = latest_checkpoint(folder) if resume or any(folder.glob("checkpoint*.safetensors")) else None
    if found is not None and not resume:
        raise TrainingError(
            "fit",
            expected="an empty run folder",
            found=f"a run of {found[0].step} steps in {folder.name}",
            remedy="Go on with --resume, or choose another folder with --out.",
        )
    state = _State(task, recipe, fabric)
    if found is not None:
        saved, note = found
        if note:
            say(note)
        state.restore(saved)
        say(f"resumed at step {saved.step} after {saved.seconds / 60:.1f} minutes of training")
    return state


def _optimizer(module: nn.Module, settings: Optimizer) -> torch.optim.Optimizer:
    options: dict[str, Any] = {
        "lr": settings.lr,
        "betas": settings.betas,
        "weight_decay": settings.weight_decay,
    }
    if settings.kind == "muon":
        return Muon(module.parameters(), **options)
    if settings.kind == "rmsprop":
        del options["betas"]
        return torch.optim.RMSprop(module.parameters(), alpha=settings.betas[1], **options)
    return torch.optim.AdamW(module.parameters(), **options)


def _progress(recipe: Recipe, step: int, seconds: float) -> float:
    by_steps = step / recipe.steps if recipe.steps else 0.0
    by_time = seconds / (60 * recipe.minutes) if recipe.minutes else 0.0
    return max(by_steps, by_time)


def _set_rates(
    optimizers: Mapping[str, torch.optim.Optimizer], recipe: Recipe, step: int, progress: float
) -> None:
    for name, optimizer in optimizers.items():
        settings = recipe.optimizer_of(name)
        warm = min(1.0, (step + 1) / (settings.warmup + 1))
        fall = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))) if settings.schedule == "cosine" else 1.0
        rate = settings.lr * warm * fall
        for group in optimizer.param_groups:
            group["lr"] = rate


def _seed(rng: torch.Generator, seed: int, step: int, rank: int) -> None:
    """Set all randomness of a step from (seed, step, process), so that nothing random needs saving."""
    value = (seed * 1_000_003 + step) * 1_000_033 + rank
    rng.manual_seed(value % 2**63)
    torch.manual_seed(value % 2**63)


def _due(recipe: Recipe, step: int) -> bool:
    """Whether silent channels are looked for before this step."""
    return recipe.revive is not None and step % recipe.revive == 0 and bool(step or recipe.start)


def _activity(
    task: Task,
    networks: Mapping[str, nn.Module],
    state: _State,
    stage: Stage,
    recipe: Recipe,
    rng: torch.Generator,
    fabric: Any,
) -> dict[str, dict[str, Activity]]:
    """What the residual blocks of the averaged players do on some batches; by player and block."""
    # All processes look at the same batches, on copies as below.
    _seed(rng, recipe.seed, -1 - state.step, 0)
    copies = {name: deepcopy(module) for name, module in networks.items()}
    with ExitStack() as stack, torch.no_grad():
        activity = {name: stack.enter_context(listen(copies[name])) for name in task.averaged}
        if any(activity.values()):
            for _ in range(_LOOKS):
                for _ in task.losses(copies, stage, rng):
                    pass
    found: dict[str, dict[str, Activity]] = fabric.broadcast(activity)
    return found


def _revive(
    task: Task, state: _State, stage: Stage, recipe: Recipe, rng: torch.Generator, fabric: Any
) -> int:
    """Draw anew the channels that some batches do not raise above zero; return how many there were."""
    activity = _activity(task, state.raw, state, stage, recipe, rng, fabric)
    host = torch.Generator().manual_seed(rng.initial_seed())
    return sum(
        redraw(state.raw[name], state.averages[name], state.optimizers[name], found, host)
        for name, found in activity.items()
    )


def _silence(
    task: Task, state: _State, stage: Stage, recipe: Recipe, rng: torch.Generator, fabric: Any
) -> int:
    """Take out what silent channels of the averaged networks would say; return how many there were."""
    activity = _activity(task, state.raw | state.averages, state, stage, recipe, rng, fabric)
    return sum(silence(state.averages[name], found) for name, found in activity.items())


def _update(
    task: Task, state: _State, stage: Stage, rng: torch.Generator, fabric: Any, totals: dict[str, Tensor]
) -> None:
    for players, loss in task.losses(state.players, stage, rng):
        names = (players,) if isinstance(players, str) else players
        for name in names:
            # Cleared here and not after the update: another player's loss may have left gradients behind.
            state.optimizers[name].zero_grad(set_to_none=True)
        fabric.backward(loss)
        for name in names:
            limit = state.limits[name]
            if limit is not None:
                torch.nn.utils.clip_grad_norm_(state.raw[name].parameters(), limit)
            state.optimizers[name].step()
        name = "_".join(names)
        totals[name] = totals.get(name, torch.zeros((), device=fabric.device)) + loss.detach()


class _Meter:
    """Sums losses on the device and counts steps and operations between lines of the log."""

    def __init__(self, task: Task, state: _State, fabric: Any) -> None:
        self.task, self.state, self.device = task, state, fabric.device
        self.totals: dict[str, Tensor] = {}
        self.first_losses: dict[str, float] = {}
        self.first_step = self.last_step = state.step
        self.last_time = time.perf_counter()
        self.stage: Stage | None = None
        self.flops = 0

    def begin(self, stage: Stage) -> None:
        """Count the operations of a step when a stage begins."""
        if stage != self.stage:
            self.stage, self.flops = stage, self._count(stage)

    def _count(self, stage: Stage) -> int:
        # On copies: a forward pass changes running statistics, and a resumed run must repeat the first.
        players = {name: deepcopy(module) for name, module in self.state.raw.items()}
        rng = torch.Generator(device=self.device).manual_seed(0)
        with FlopCounterMode(display=False) as counter:
            for _, loss in self.task.losses(players, stage, rng):
                loss.backward()  # type: ignore[no-untyped-call]
        return int(counter.get_total_flops())

    def line(self, progress: float) -> dict[str, float]:
        """Return one line of the log and start the next interval."""
        self.require_finite()
        state, now = self.state, time.perf_counter()
        steps = state.step - self.last_step
        speed = steps / (now - self.last_time)
        line: dict[str, float] = {"step": state.step, "minutes": state.seconds / 60, "progress": progress}
        line["lr"] = next(iter(state.optimizers.values())).param_groups[0]["lr"]
        line["steps_per_second"], line["tflops"] = speed, speed * self.flops / 1e12
        for name, total in self.totals.items():
            loss = line[f"loss_{name}"] = float(total) / steps
            bound = _EXPLODED * (1 + abs(self.first_losses.setdefault(name, loss)))
            if abs(loss) > bound:
                raise _diverged(f"a loss of {name} up to {bound:.3g}", f"{loss:.3g}", state.step)
        self.totals.clear()
        self.last_step, self.last_time = state.step, now
        return line

    def require_finite(self) -> None:
        """Raise TrainingError if a sum of losses is not finite."""
        for name, total in self.totals.items():
            if not math.isfinite(float(total)):
                raise _diverged(f"a finite loss of {name}", str(float(total)), self.state.step)


def _diverged(expected: str, found: str, step: int) -> TrainingError:
    return TrainingError(
        "fit",
        expected=expected,
        found=f"{found} by step {step}",
        remedy="The last good checkpoint is kept; lower the learning rate or set precision to 32.",
    )
