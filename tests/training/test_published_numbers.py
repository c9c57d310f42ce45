"""The numbers that the papers give for their training, in the recipes that hold their networks."""

import pytest

from invrestore.training import RECIPES, DenoiserRecipe
from tests.training.test_restorers import recipe_of


@pytest.mark.parametrize("name", ["unified", "unified-paper-cpu"])
def test_unified_gan_is_a_wasserstein_gan_with_gradient_penalty(name: str) -> None:
    recipe = recipe_of(name)
    assert (recipe.discriminator, recipe.adversary) == ("Critic", "wasserstein-penalty")
    assert (recipe.penalty, recipe.critic_steps) == (10, 5)
    critic = recipe.optimizer_of("discriminator")
    assert (critic.kind, critic.lr, critic.betas[0]) == ("adamw", 2e-4, 0.5)
    assert recipe.stages[-1].adversarial > 0
    assert recipe.stages[-1].perceptual > 0
    assert recipe.perceptual_distance == "mse"


def test_unified_gan_compares_the_third_convolution_of_the_third_group_of_vgg_16() -> None:
    recipe = recipe_of("unified")
    assert recipe.perceptual_network == "vgg16"
    assert recipe.perceptual_layers == {"conv3_3": 1.0}


@pytest.mark.parametrize("name", ["xgan-sparse", "xgan-colornoise", "xgan-block", "xgan-sparse-paper-cpu"])
def test_x_gans_are_least_squares_gans_with_weights_of_ten(name: str) -> None:
    recipe = recipe_of(name)
    assert (recipe.discriminator, recipe.adversary) == ("MultiScaleDiscriminator", "least-squares")
    (stage,) = recipe.stages
    points = 0 if name == "xgan-colornoise" else 10
    assert (stage.adversarial, stage.matching, stage.perceptual, stage.points) == (1, 10, 10, points)
    for player in ("generator", "discriminator"):
        settings = recipe.optimizer_of(player)
        assert (settings.kind, settings.lr, settings.betas) == ("adamw", 2e-4, (0.5, 0.999))
    assert (recipe.point_loss, recipe.critic_steps, recipe.perceptual_distance) == ("l2", 1, "l1")


def test_x_gans_weigh_five_layers_of_vgg_19() -> None:
    recipe = recipe_of("xgan-sparse")
    assert recipe.perceptual_network == "vgg19"
    weights = {"relu1_1": 1 / 32, "relu2_1": 1 / 16, "relu3_1": 1 / 8, "relu4_1": 1 / 4, "relu5_1": 1}
    assert recipe.perceptual_layers == weights


@pytest.mark.parametrize("name", ["cascade", "cascade-paper-cpu"])
def test_cascade_is_a_wasserstein_gan_of_clipped_weights(name: str) -> None:
    recipe = recipe_of(name)
    assert (recipe.discriminator, recipe.adversary) == ("Critic", "wasserstein-clip")
    assert (recipe.clip, recipe.critic_steps) == (0.01, 5)
    critic = recipe.optimizer_of("discriminator")
    assert (critic.kind, critic.lr, critic.schedule) == ("rmsprop", 5e-5, "constant")


@pytest.mark.parametrize("name", ["cascade", "cascade-paper-cpu"])
def test_cascade_is_trained_by_squared_errors_and_in_its_second_stage_against_the_critic(name: str) -> None:
    stages = recipe_of(name).stages
    assert [stage.trains for stage in stages] == ["generator", "generator", "refiner", "both"]
    assert [stage.mse for stage in stages] == [1, 1, 1, 1]
    assert [stage.l1 for stage in stages] == [0, 0, 0, 0]
    assert [stage.perceptual > 0 for stage in stages] == [False, True, False, False]
    assert [stage.adversarial > 0 for stage in stages] == [False, True, False, False]


def test_cascade_averages_four_layers_of_vgg_16() -> None:
    recipe = recipe_of("cascade")
    assert (recipe.perceptual_network, recipe.perceptual_distance) == ("vgg16", "mse")
    assert recipe.perceptual_layers == dict.fromkeys(("relu1_2", "relu2_2", "relu3_3", "relu4_3"), 0.25)
    assert {damage.kind for damage in recipe.refined} == {"blur", "noise"}


@pytest.mark.parametrize("level", [25, 35, 50])
def test_three_scale_denoiser_learns_one_level_by_squared_errors_of_crops_of_48_pixels(level: int) -> None:
    recipe = RECIPES[f"multiscale-{level}"]
    assert isinstance(recipe, DenoiserRecipe)
    assert (recipe.architecture, recipe.arguments, recipe.loss) == ("MultiScaleDenoiser", {}, "mse")
    assert recipe.sigma == (level / 255, level / 255)
    assert [(stage.patch, stage.batch) for stage in recipe.stages] == [(48, 32)]
