"""Training: typed recipes, one loop for every network, exact resume, weights with a card.

Needs the extra `train`. Nothing here is imported by `import invrestore`.
"""

from invrestore.training._checkpoint import Checkpoint, latest_checkpoint, load_checkpoint, save_checkpoint
from invrestore.training._denoiser import DenoiserTask, score_denoiser
from invrestore.training._loop import Outcome, fit, make_fabric
from invrestore.training._optim import Muon
from invrestore.training._recipe import DenoiserRecipe, Optimizer, Recipe, Source, Stage
from invrestore.training._recipes import RECIPES, adjust, load_recipe
from invrestore.training._run import Trained, prepare, train
from invrestore.training._task import Task

__all__ = [
    "RECIPES",
    "Checkpoint",
    "DenoiserRecipe",
    "DenoiserTask",
    "Muon",
    "Optimizer",
    "Outcome",
    "Recipe",
    "Source",
    "Stage",
    "Task",
    "Trained",
    "adjust",
    "fit",
    "latest_checkpoint",
    "load_checkpoint",
    "load_recipe",
    "make_fabric",
    "prepare",
    "save_checkpoint",
    "score_denoiser",
    "train",
]
