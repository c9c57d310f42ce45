"""Every shipped suite is sound: names agree, degradations do what they say, tuning never sees test images."""

import numpy as np
import pytest
import torch

from invrestore import kernels
from invrestore.bench import METHODS, SUITES
from invrestore.bench._degradations import set_data_folder
from invrestore.bench._tuned import _content

PLANNED = {
    "unified",
    "multiscale",
    "unified-paper",
    "xgan-sparse-paper",
    "cascade-paper",
    "cascade",
    "xgan-sparse",
    "xgan-colornoise",
    "xgan-block",
    "faces64",
    "faces64-map",
    "faces64-raw",
    "dcgan64-map",
}


@pytest.fixture
def kernel_folder(tmp_path):
    (tmp_path / "kernels").mkdir()
    made = {
        f"levin{k}": kernels.motion(9, rng=torch.Generator().manual_seed(k))[0, 0].numpy()
        for k in range(1, 9)
    }
    np.savez(tmp_path / "kernels" / "levin09.npz", **made)
    set_data_folder(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", sorted(SUITES))
def test_names_agree(name):
    suite = SUITES[name]
    assert suite.name == name
    tasks = {task.name for task in suite.tasks}
    sets = {images.name for images in suite.images}
    rows = [row.method for row in suite.rows]
    assert len(tasks) == len(suite.tasks)
    assert len(set(rows)) == len(rows)
    assert set(rows) <= set(METHODS) | PLANNED
    for row in suite.rows:
        assert set(row.tasks or ()) <= tasks
    for method, images, task in suite.published:
        assert method in rows
        assert images in sets
        assert task in tasks


@pytest.mark.parametrize("name", sorted(SUITES))
def test_tuning_images_are_not_test_images(name):
    suite = SUITES[name]
    for tuning in suite.tuning:
        assert tuning.split == "train"
        for images in suite.images:
            assert tuning.folder != images.folder or images.split == "test"


@pytest.mark.parametrize("name", sorted(SUITES))
def test_tuned_settings_name_rows_tasks_and_grid(name):
    suite = SUITES[name]
    for method, by_task in _content(name).get("settings", {}).items():
        for task, settings in by_task.items():
            assert suite.task(task)
            assert set(settings) == set(METHODS[method].grid)


@pytest.mark.parametrize(("name", "task"), [(s.name, t) for s in SUITES.values() for t in s.tasks], ids=str)
def test_degradations(name, task, kernel_folder):
    suite = SUITES[name]
    channels = 1 if all(images.gray for images in suite.images) else 3
    side = {"hole128": 128, "block128": 128}.get(name, 48)
    x = torch.rand((2, channels, side, side), generator=torch.Generator().manual_seed(0))
    both = task.degrade(x, [4, 5])
    assert both.kind == task.degrade.kind
    assert both.view.shape == x.shape
    assert both.view.min() >= 0
    assert both.view.max() <= 1
    if both.operator is not None and both.sigma == 0:
        assert torch.equal(both.operator(x), both.y)
    alone = task.degrade(x[1:], [5])
    torch.testing.assert_close(alone.y[0], both.y[1])
    torch.testing.assert_close(alone.view[0], both.view[1])
