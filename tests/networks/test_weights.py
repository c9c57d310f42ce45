import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from invrestore import networks, priors
from invrestore.errors import UnknownNameError, WeightsError
from invrestore.networks import Card, UNet

CARD = Card(
    name="tiny",
    architecture="UNet",
    arguments={"channels": 1, "widths": [4, 8], "blocks": 1},
    sha256="",
    channels=1,
    sigma_range=(0.0, 0.2),
    parameters=0,
    data="nothing",
    licence="none",
    metrics={},
    training="none",
    recipe="none",
    commit="none",
    reference="none",
)


@pytest.fixture
def network() -> UNet:
    torch.manual_seed(0)
    network = UNet(channels=1, widths=(4, 8), blocks=1)
    torch.nn.init.normal_(network.tail.weight)
    return network


@pytest.fixture
def file(network: UNet, tmp_path: Path) -> Path:
    networks.save(network, tmp_path / "tiny.safetensors", CARD)
    return tmp_path / "tiny.safetensors"


def test_saved_network_loads_ready_for_use(network: UNet, file: Path) -> None:
    loaded = networks.load_file(file)
    x = torch.rand(1, 1, 8, 8)
    torch.testing.assert_close(loaded(x, 0.1), network(x, 0.1), atol=1e-2, rtol=1e-2)
    assert isinstance(loaded, UNet)
    assert loaded.sigma_range == (0.0, 0.2)
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert next(loaded.parameters()).dtype == torch.float32


def test_weights_are_stored_in_half_precision(network: UNet, file: Path) -> None:
    count = sum(p.numel() for p in network.parameters())
    assert file.stat().st_size < 2 * count + 4096
    assert json.loads(file.with_suffix(".json").read_text())["parameters"] == count


def test_device_and_type_are_honoured(file: Path) -> None:
    loaded = networks.load_file(file, device="cpu", dtype=torch.bfloat16)
    assert next(loaded.parameters()).dtype == torch.bfloat16


def test_saving_a_loaded_network_again_gives_the_same_file(file: Path, tmp_path: Path) -> None:
    again = networks.save(networks.load_file(file), tmp_path / "again.safetensors", CARD)
    assert (tmp_path / "again.safetensors").read_bytes() == file.read_bytes()
    assert again.sha256 == json.loads(file.with_suffix(".json").read_text())["sha256"]


def test_cut_file_is_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(WeightsError, match=r"tiny\.safetensors with sha256"):
        networks.load_file(file)


def test_altered_file_is_refused(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(WeightsError, match="Install the package again"):
        networks.load_file(file)


def test_missing_file_is_refused(file: Path) -> None:
    file.unlink()
    with pytest.raises(WeightsError, match=r"expected a file tiny\.safetensors, got none"):
        networks.load_file(file)


def test_missing_card_is_refused(file: Path) -> None:
    file.with_suffix(".json").unlink()
    with pytest.raises(WeightsError, match=r"a readable card tiny\.json"):
        networks.load_file(file)


def test_foreign_card_is_refused(file: Path) -> None:
    file.with_suffix(".json").write_text('{"name": "tiny"}')
    with pytest.raises(WeightsError, match=r"a readable card tiny\.json"):
        networks.load_file(file)


def change_card(file: Path, **changes: object) -> None:
    card = file.with_suffix(".json")
    card.write_text(json.dumps(json.loads(card.read_text()) | changes))


def test_a_card_says_whether_noise_maps_were_trained(network: UNet, file: Path) -> None:
    assert networks.load_file(file).maps is False
    change_card(file, maps=True)
    assert networks.load_file(file).maps is True
    change_card(file, maps="yes")
    with pytest.raises(WeightsError, match="true or false"):
        networks.load_file(file)


def test_a_card_from_before_noise_maps_is_read(file: Path) -> None:
    card = json.loads(file.with_suffix(".json").read_text())
    del card["maps"]
    file.with_suffix(".json").write_text(json.dumps(card))
    assert networks.load_file(file).maps is False


def test_weights_of_another_network_are_refused(file: Path) -> None:
    change_card(file, arguments={"channels": 1, "widths": [8, 8], "blocks": 1})
    with pytest.raises(WeightsError, match="belong to different networks"):
        networks.load_file(file)


def test_wrong_number_of_channels_is_refused(file: Path) -> None:
    change_card(file, channels=3)
    with pytest.raises(WeightsError, match=r"3 channel\(s\), as its card says, got 1"):
        networks.load_file(file)


def test_file_that_is_no_safetensors_archive_is_refused(file: Path) -> None:
    import hashlib

    file.write_bytes(b"not tensors")
    change_card(file, sha256=hashlib.sha256(b"not tensors").hexdigest())
    with pytest.raises(WeightsError, match=r"tensors in tiny\.safetensors"):
        networks.load_file(file)


def test_unknown_architecture_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'UNet'"):
        networks.build(replace(CARD, architecture="Unet"))


def test_arguments_that_do_not_fit_are_refused() -> None:
    with pytest.raises(WeightsError, match="arguments of UNet"):
        networks.build(replace(CARD, arguments={"depth": 3}))


def test_card_of_another_network_is_not_written(network: UNet, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"networks\.save: expected a UNet"):
        networks.save(network, tmp_path / "x.safetensors", replace(CARD, arguments={"channels": 3}))
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_finite_are_not_written(network: UNet, tmp_path: Path) -> None:
    network.tail.weight.data[0] = float("nan")
    with pytest.raises(WeightsError, match=r"others in tail\.weight"):
        networks.save(network, tmp_path / "x.safetensors", CARD)


def test_own_folder_adds_names(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    shipped = networks.available()
    # A run folder holds other files as well.
    (file.parent / "recipe.json").write_text("{}")
    monkeypatch.setenv("INVRESTORE_WEIGHTS", str(file.parent))
    assert networks.available() == sorted([*shipped, "tiny"])
    assert networks.card("tiny").sigma_range == (0.0, 0.2)
    assert isinstance(networks.load("tiny"), UNet)
    assert isinstance(priors.load("tiny"), priors.Denoiser)
    assert networks.card("denoiser").name == "denoiser"
    with pytest.raises(UnknownNameError, match=r"networks\.load: .*Did you mean 'tiny'"):
        networks.load("tiney")
    with pytest.raises(UnknownNameError, match=r"networks\.card: .*Did you mean 'tiny'"):
        networks.card("tinny")


def test_own_folder_must_exist(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setenv("INVRESTORE_WEIGHTS", str(file))
    with pytest.raises(WeightsError, match="INVRESTORE_WEIGHTS: expected a folder"):
        networks.available()


def test_own_weights_cannot_take_the_name_of_shipped_ones(
    monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    for suffix in (".json", ".safetensors"):
        file.with_suffix(suffix).rename(file.with_name(f"denoiser{suffix}"))
    monkeypatch.setenv("INVRESTORE_WEIGHTS", str(file.parent))
    with pytest.raises(WeightsError, match="names that the package does not have, got denoiser"):
        networks.load("denoiser")


@pytest.mark.parametrize("name", networks.available())
def test_every_shipped_checkpoint_loads_and_its_card_is_whole(name: str) -> None:
    card = networks.card(name)
    network = networks.load(name)
    assert card.name == name
    assert card.parameters == sum(p.numel() for p in network.parameters())
    assert card.data
    assert card.licence
    assert card.metrics


@pytest.mark.parametrize("name", networks.available())
def test_every_shipped_file_is_at_most_16_mib(name: str) -> None:
    folder = Path(networks.__file__).parent / "weights"
    assert (folder / f"{name}.safetensors").stat().st_size <= 16 * 2**20


REFERENCES = sorted((Path(__file__).parents[2] / "benchmarks" / "weights").glob("*.safetensors"))


@pytest.mark.parametrize("path", REFERENCES, ids=lambda path: path.stem)
def test_every_reference_network_loads_and_its_card_is_whole(path: Path) -> None:
    network = networks.load_file(path)
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["name"] == path.stem
    assert card["parameters"] == sum(p.numel() for p in network.parameters())
    assert card["metrics"]
    assert path.stem not in networks.available()


def test_all_shipped_weights_stay_below_48_mib() -> None:
    package = Path(networks.__file__).parents[1]
    assert sum(file.stat().st_size for file in package.rglob("*.safetensors")) < 48 * 2**20


def picture(channels: int) -> torch.Tensor:
    """Waves of growing frequency with a hard edge across them, (1, C, 160, 224) in [0, 1]."""
    across = torch.linspace(0, 1, 224)
    waves = 0.5 + 0.3 * torch.sin(60 * across**2).expand(160, 224)
    disc = (torch.linspace(-1, 1, 160)[:, None] ** 2 + (2 * across - 1) ** 2 < 0.5).float()
    return (0.8 * waves + 0.2 * disc).expand(1, channels, 160, 224).contiguous()


DENOISERS = [name for name in networks.available() if networks.card(name).sigma_range is not None]


@pytest.mark.parametrize("name", DENOISERS)
def test_every_shipped_denoiser_removes_most_of_the_noise(name: str, rng: torch.Generator) -> None:
    clean = picture(networks.card(name).channels)
    noisy = clean + 25 / 255 * torch.randn(clean.shape, generator=rng)
    denoised = networks.load(name)(noisy, 25 / 255)
    assert (denoised - clean).square().mean() < 0.1 * (noisy - clean).square().mean()


@pytest.mark.parametrize("name", DENOISERS)
def test_tiles_of_every_shipped_denoiser_differ_by_less_than_half_a_grey_level(
    name: str, rng: torch.Generator
) -> None:
    clean = picture(networks.card(name).channels)
    noisy = clean + 25 / 255 * torch.randn(clean.shape, generator=rng)
    network = networks.load(name)
    tiles = networks.tiled(network, noisy, 25 / 255, tile=128, overlap=96)
    assert (tiles - network(noisy, 25 / 255)).abs().max() < 0.5 / 255


@pytest.mark.parametrize("name", DENOISERS)
def test_bfloat16_costs_every_shipped_denoiser_little(name: str, rng: torch.Generator) -> None:
    clean = picture(networks.card(name).channels)
    noisy = clean + 25 / 255 * torch.randn(clean.shape, generator=rng)
    errors = [
        (networks.load(name, dtype=dtype)(noisy, 25 / 255) - clean).square().mean()
        for dtype in (torch.float32, torch.bfloat16)
    ]
    assert errors[1] < 1.01 * errors[0]


@pytest.mark.parametrize("level", [1, 15, 50, 75])
@pytest.mark.parametrize("name", DENOISERS)
def test_answers_of_every_shipped_denoiser_stay_near_the_image_range(name: str, level: int) -> None:
    # Images unlike the photos of the trainings: rings finer towards the border, and flat squares of random colours.
    network = networks.load(name)
    top = min(level / 255, networks.card(name).sigma_range[1])
    j = torch.arange(-64.0, 64.0)
    rings = 0.5 + 0.5 * torch.cos((j[:, None] ** 2 + j**2) / 128).expand(network.channels, 128, 128)
    squares = torch.rand(network.channels, 8, 8, generator=torch.Generator().manual_seed(0))
    squares = squares.repeat_interleave(16, 1).repeat_interleave(16, 2)
    answer = network(torch.stack([rings, squares]), top)
    assert answer.min() > -0.5
    assert answer.max() < 1.5
