"""Plans, records, resuming, and scores by the protocol."""

import dataclasses
import io as stdlib_io
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.quality.page import packed_records
from invrestore import metrics, networks
from invrestore.bench import METHODS, SUITES, Protocol, collect, plan, run, write_report
from invrestore.bench._run import score
from invrestore.errors import ImageFileError, UnknownNameError

TABLES = ("table.csv", "scores.csv")


def finished(folder):
    return sorted(folder.glob("records/**/*.json"))


def test_scores_of_every_image_method_and_task(small, tmp_path):
    decided = plan(small, tmp_path / "data", tmp_path / "run")
    assert run(decided) == []
    results = collect(decided)
    assert len(results.scores) == 5 * 2 * 2 * 3  # images, sets, methods, tasks
    assert {s.image for s in results.scores} == {f"p{k}" for k in range(5)}
    first = next(
        s
        for s in results.scores
        if (s.method, s.images, s.task, s.index) == ("shrink", "pictures", "noise-2", 3)
    )
    from invrestore import io

    clean = io.load_image(tmp_path / "data" / "pictures" / "p3.png")
    noisy = clean + 0.2 * torch.randn(clean.shape[1:], generator=torch.Generator().manual_seed(3))
    expected = metrics.psnr(metrics.quantize(noisy.clamp(0, 1)), clean)
    assert first.psnr == pytest.approx(float(expected), abs=1e-4)
    assert results.curves["noise-2"] == ("noise", 2)


def test_unpacked_records_of_an_earlier_run_stand_for_it(small, tmp_path):
    earlier = plan(small, tmp_path / "data", tmp_path / "earlier")
    run(earlier)
    archive = packed_records(tmp_path / "earlier")
    assert archive == packed_records(tmp_path / "earlier")
    later = plan(small, tmp_path / "data", tmp_path / "later", methods=["shrink", "constant", "coloured"])
    zipfile.ZipFile(stdlib_io.BytesIO(archive)).extractall(later.folder)
    written = {path: path.stat().st_mtime_ns for path in finished(later.folder)}
    assert len(written) == len(earlier.units)
    run(later)
    assert {path: path.stat().st_mtime_ns for path in written} == written
    kept = [score for score in collect(later).scores if score.method != "coloured"]
    assert kept == list(collect(earlier).scores)
    assert len(collect(later).scores) > len(kept)


def test_resumed_run_repeats_nothing_and_completes(small, tmp_path):
    part = plan(small, tmp_path / "data", tmp_path / "run", limit=2)
    run(part)
    written = {path: path.stat().st_mtime_ns for path in finished(tmp_path / "run")}
    assert written
    whole = plan(small, tmp_path / "data", tmp_path / "run")
    run(whole)
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert len(finished(tmp_path / "run")) == len(whole.units)


def test_new_settings_are_run_again(small, tmp_path, monkeypatch):
    run(plan(small, tmp_path / "data", tmp_path / "run"))
    other = dataclasses.replace(
        small, rows=(dataclasses.replace(small.rows[0], fixed={"share": 0.5}), small.rows[1])
    )
    monkeypatch.setitem(SUITES, "small", other)
    decided = plan(other, tmp_path / "data", tmp_path / "run")
    assert {s.method for s in collect(decided).scores} == {"constant"}
    run(decided)
    assert {s.method for s in collect(decided).scores} == {"constant", "shrink"}


@pytest.mark.parametrize("trained_again", ["denoiser", "faces64"])
def test_new_weights_of_any_network_of_a_row_are_run_again(small, tmp_path, monkeypatch, trained_again):
    both = dataclasses.replace(METHODS["shrink"], networks=("denoiser", "faces64"))
    monkeypatch.setitem(METHODS, "shrink", both)
    decided = plan(small, tmp_path / "data", tmp_path / "run")
    run(decided)
    card = networks.card
    other = dataclasses.replace(card(trained_again), sha256="0" * 64)
    monkeypatch.setattr(networks, "card", lambda name: other if name == trained_again else card(name))
    decided = plan(small, tmp_path / "data", tmp_path / "run")
    assert {s.method for s in collect(decided).scores} == {"constant"}


def test_damaged_record_is_run_again(small, tmp_path):
    decided = plan(small, tmp_path / "data", tmp_path / "run", methods=["shrink"])
    run(decided)
    before = collect(decided).scores
    finished(tmp_path / "run")[0].write_text('{"key": ')
    assert len(collect(decided).scores) < len(before)
    run(decided)
    assert [(s.psnr, s.ssim) for s in collect(decided).scores] == [(s.psnr, s.ssim) for s in before]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_runs_end_with_the_same_table(small, tmp_path, monkeypatch):
    slow = dataclasses.replace(
        METHODS["shrink"], run=lambda problem, **s: (time.sleep(0.01), problem.view)[1]
    )
    monkeypatch.setitem(METHODS, "shrink", slow)
    calm = plan(small, tmp_path / "data", tmp_path / "calm")
    run(calm)
    write_report(collect(calm), tmp_path / "calm")
    killed = plan(small, tmp_path / "data", tmp_path / "killed")
    context, dice, deaths = multiprocessing.get_context("fork"), random.Random(0), 0
    for _ in range(20):
        child = context.Process(target=run, args=(killed,), kwargs={"threads": 1})
        child.start()
        time.sleep(dice.uniform(0.0, 0.03))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        deaths += child.exitcode == -signal.SIGKILL
    assert deaths >= 10
    assert len(finished(tmp_path / "killed")) < len(killed.units) or deaths < 20
    run(killed)
    write_report(collect(killed), tmp_path / "killed")
    for name in TABLES:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "calm" / name).read_bytes()


def test_several_processes_give_the_same_scores(small, tmp_path, monkeypatch):
    # Worker processes know the shipped suites only.
    monkeypatch.undo()
    suite = SUITES["faces64"]
    data = tmp_path / "data" / "faces64" / "test"
    data.mkdir(parents=True)
    (data.parent / "train").mkdir()
    from invrestore import io

    for k in range(4):
        x = torch.rand((1, 3, 8, 8), generator=torch.Generator().manual_seed(k))
        io.save_image(torch.nn.functional.interpolate(x, (64, 64), mode="bilinear"), data / f"{k}.png")
        io.save_image(torch.zeros(1, 3, 64, 64), data.parent / "train" / f"{k}.png")
    tables = []
    for jobs in (1, 2):
        decided = plan(
            suite, tmp_path / "data", tmp_path / f"jobs{jobs}", methods=["input"], tasks=["noise", "hole"]
        )
        assert run(decided, jobs=jobs, threads=1) == []
        tables.append([(s.task, s.index, s.psnr, s.ssim) for s in collect(decided).scores])
    assert len(tables[0]) == 8
    assert tables[0] == tables[1]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
def test_workers_end_with_their_parent(tmp_path):
    from invrestore import io

    for split in ("train", "test"):
        (tmp_path / "faces64" / split).mkdir(parents=True)
        for k in range(60):
            io.save_image(torch.full((1, 3, 64, 64), k / 60), tmp_path / "faces64" / split / f"{k:02d}.png")
    words = ["bench", "faces64", "--data", str(tmp_path), "--out", str(tmp_path / "run"), "--jobs", "2"]
    words += ["--methods", "tgv", "--tasks", "noise"]
    process = subprocess.Popen([sys.executable, "-m", "invrestore", *words], stdout=subprocess.DEVNULL)
    children: list[int] = []
    for _ in range(600):
        listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        # The resource tracker of multiprocessing is a child as well.
        children = [int(pid) for pid in listed if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        if len(children) == 2:
            break
        time.sleep(0.1)
    assert len(children) == 2
    time.sleep(1.0)
    process.kill()
    process.wait()
    for _ in range(300):
        if not any(Path(f"/proc/{pid}").exists() for pid in children):
            return
        time.sleep(0.1)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    pytest.fail("workers outlived their parent")


def test_failures_are_told_and_tried_again(small, tmp_path):
    decided = plan(small, tmp_path / "data", tmp_path / "run", methods=["broken", "constant"], limit=2)
    failures = run(decided)
    assert {f.unit.method for f in failures} == {"broken"}
    assert "out of order" in failures[0].error
    assert {s.method for s in collect(decided).scores} == {"constant"}
    assert len(run(decided)) == len(failures)


def test_what_cannot_take_part_is_left_out_with_a_reason(small, tmp_path):
    names = ["absent", "published", "coloured"]
    decided = plan(small, tmp_path / "data", tmp_path / "run", methods=names)
    assert "no_such_package" in decided.left_out["absent"]
    assert "--peers" in decided.left_out["published"]
    assert {unit.images for unit in decided.units} == {"pictures"}  # coloured leaves the gray set out


def test_pictures_of_the_first_images_are_kept(small, tmp_path):
    decided = plan(
        small, tmp_path / "data", tmp_path / "run", methods=["shrink"], tasks=["hole"], images=["pictures"]
    )
    run(decided)
    assert {p.images for p in collect(decided).pictures} == {"pictures"}
    names = {(p.images, p.index, p.method) for p in collect(decided).pictures}
    assert ("pictures", 0, "truth") in names
    assert ("pictures", 3, "shrink") in names
    assert not any(index == 4 for _, index, _ in names)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"methods": ["shrinkk"]}, UnknownNameError),
        ({"tasks": ["nois"]}, UnknownNameError),
        ({"images": ["picture"]}, UnknownNameError),
    ],
)
def test_unknown_names(small, tmp_path, arguments, error):
    with pytest.raises(error):
        plan(small, tmp_path / "data", tmp_path / "run", **arguments)


def test_missing_images(small, tmp_path):
    (tmp_path / "empty" / "pictures").mkdir(parents=True)
    with pytest.raises(ImageFileError, match="none"):
        plan(small, tmp_path / "empty", tmp_path / "run")
    with pytest.raises(ImageFileError):
        plan(small, tmp_path / "nowhere", tmp_path / "run")


def test_protocol_rounds_takes_luma_and_crops():
    rng = torch.Generator().manual_seed(0)
    truth = (torch.rand((1, 3, 20, 20), generator=rng) * 255).round() / 255
    estimate = truth + 0.01
    estimate[..., :2, :] = 5.0
    found = score(Protocol("", luma=True), 2, estimate, truth)
    a = ((estimate.clamp(0, 1) * 255).round() / 255).numpy()[0, :, 2:-2, 2:-2]
    b = truth.numpy()[0, :, 2:-2, 2:-2]
    weights = np.array([65.481, 128.553, 24.966]) / 255
    error = np.tensordot(weights, a - b, 1)
    assert float(found["psnr"]) == pytest.approx(-10 * np.log10((error**2).mean()), abs=1e-3)


def test_records_hold_no_paths_of_this_machine(small, tmp_path):
    run(plan(small, tmp_path / "data", tmp_path / "run", methods=["shrink"], limit=1))
    content = json.loads(finished(tmp_path / "run")[0].read_text())
    assert str(tmp_path) not in json.dumps(content)


def test_rows_may_take_fewer_images(small, tmp_path):
    row = dataclasses.replace(small.rows[0], first={"hole": 1, "": 3})
    decided = plan(dataclasses.replace(small, rows=(row,)), tmp_path / "data", tmp_path / "run")
    last = {task: max(u.last for u in decided.units if u.task == task) for task in ("hole", "noise-1")}
    assert last == {"hole": 1, "noise-1": 3}
