"""The figure of the five tasks is drawn from what a run of the suite leaves behind."""

import pytest
import torch

from benchmarks.quality.face_figure import COLUMNS, figure
from invrestore import io
from invrestore.bench import SUITES


@pytest.fixture
def run(tmp_path):
    """A run with one face; total variation does not treat colour."""
    lines = ["images,task,method,index,image,psnr,ssim,lpips"]
    for task in SUITES["faces64"].tasks:
        folder = tmp_path / "pictures" / "faces64" / task.name
        folder.mkdir(parents=True)
        for k, name in enumerate(("truth", "measured", "tv", "faces64")):
            if (task.name, name) == ("colour", "tv"):
                continue
            io.save_image(torch.full((1, 3, 8, 8), 0.2 * k), folder / f"00000-{name}.png")
            if name in ("tv", "faces64"):
                lines.append(f"faces64,{task.name},{name},0,00000,{20 + k},0.5,")
    (tmp_path / "scores.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_figure_has_a_row_for_each_task_and_leaves_places_empty(run):
    sheet = figure(run, [0], COLUMNS)
    narrow = figure(run, [0], {"truth": "Real", "tv": "TV"})
    assert sheet.shape[2] == narrow.shape[2] > 5 * 160
    assert sheet.shape[3] > 7 * 160
    assert 2 * 160 < narrow.shape[3] < 3 * 160 + 64
    # The true faces are black: there are five of them in the first column.
    black = (narrow[0, :, :, 16 : 16 + 160] < 0.01).all(0).sum(1)
    assert int((black == 160).sum()) == 5 * 160


def test_face_without_pictures_is_named(run):
    with pytest.raises(SystemExit, match="no picture of face 3"):
        figure(run, [0, 3], COLUMNS)


def test_one_task_has_a_row_for_each_face(run):
    whole, one = figure(run, [0], COLUMNS), figure(run, [0, 0], COLUMNS, "hole")
    black = (one[0, :, :, 16 : 16 + 160] < 0.01).all(0).sum(1)
    assert int((black == 160).sum()) == 2 * 160
    assert one.shape[2] < whole.shape[2]
