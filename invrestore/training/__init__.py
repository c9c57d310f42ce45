"""Training: typed recipes, one loop for every network, exact resume, weights with a card.

Needs the extra `train`. Nothing here is imported by `import invrestore`.
"""

from invrestore.training import losses
from invrestore.training._augment import Augment, Augmentation
from invrestore.training._checkpoint import Checkpoint, latest_checkpoint, load_checkpoint, save_checkpoint
from invrestore.training._choice import adjust, load_recipe, resize
from invrestore.training._degradations import Degradation, Degraded, Degrader
from invrestore.training._denoiser import DenoiserTask, score_denoiser
from invrestore.training._distances import RandomFeatures, kernel_distance, nearest_distances
from invrestore.training._gan import GanTask
from invrestore.training._high_level import HighLevelTask, colour_map, load_high_level
from invrestore.training._high_level_recipe import HighLevelRecipe, JointRecipe
from invrestore.training._joint import JointTask
from invrestore.training._label_scores import confusion, label_loss, mean_iou, score_labels
from invrestore.training._loop import Outcome, fit, make_fabric
from invrestore.training._optim import Muon
from invrestore.training._recipe import DenoiserRecipe, GanRecipe, GanStage, Optimizer, Recipe, Source, Stage
from invrestore.training._recipes import RECIPES
from invrestore.training._restorer_recipe import RestorerRecipe, RestorerStage, ablate
from invrestore.training._restorers import RestorerTask
from invrestore.training._run import Trained, prepare, train
from invrestore.training._task import RecipeTask, Task

__all__ = [
    "RECIPES",
    "Augment",
    "Augmentation",
    "Checkpoint",
    "Degradation",
    "Degraded",
    "Degrader",
    "DenoiserRecipe",
    "DenoiserTask",
    "GanRecipe",
    "GanStage",
    "GanTask",
    "HighLevelRecipe",
    "HighLevelTask",
    "JointRecipe",
    "JointTask",
    "Muon",
    "Optimizer",
    "Outcome",
    "RandomFeatures",
    "Recipe",
    "RecipeTask",
    "RestorerRecipe",
    "RestorerStage",
    "RestorerTask",
    "Source",
    "Stage",
    "Task",
    "Trained",
    "ablate",
    "adjust",
    "colour_map",
    "confusion",
    "fit",
    "kernel_distance",
    "label_loss",
    "latest_checkpoint",
    "load_checkpoint",
    "load_high_level",
    "load_recipe",
    "losses",
    "make_fabric",
    "mean_iou",
    "nearest_distances",
    "prepare",
    "resize",
    "save_checkpoint",
    "score_denoiser",
    "score_labels",
    "train",
]
