"""Single rows of a table come from another run, and nothing else changes."""

import csv
import json
from pathlib import Path

import pytest

from benchmarks.common import RESULTS
from benchmarks.quality.page import merged_rows, merged_section
from invrestore.bench import SUITES

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md").read_text()
SHOWN = [name for name in SUITES if f"<!-- {name} -->" in PAGE]


def section_of(name: str) -> str:
    return PAGE.partition(f"<!-- {name} -->")[2].partition(f"<!-- end of {name} -->")[0].strip("\n")


def rows_of(name: str) -> list[dict[str, str]]:
    with (RESULTS / "quality" / f"{name}.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def run(folder: Path, name: str, scores: list[dict[str, str]]) -> Path:
    (folder / "results.json").write_text(json.dumps({"suite": name, "environment": {"commit": "abcdef0"}}))
    with (folder / "scores.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["images", "task", "method", "image", "psnr"])
        writer.writeheader()
        writer.writerows(scores)
    return folder


@pytest.mark.parametrize("name", SHOWN)
def test_page_shows_the_rows_of_the_result_files(name: str, tmp_path: Path) -> None:
    text = section_of(name)
    rows = rows_of(name)
    made = merged_section(text, rows, run(tmp_path, name, []), [rows[0]["method"]])
    blocks, kept = (
        [block for block in version.split("\n\n") if not block.startswith("Rows of ")]
        for version in (made, text)
    )
    assert blocks == kept


def test_one_row_is_taken_and_the_others_stay(tmp_path: Path) -> None:
    old = rows_of("awgn")
    place = {"images": "kodak24", "task": "sigma-25", "method": "unified"}
    (row,) = (row for row in old if all(row[key] == value for key, value in place.items()))
    new = [row | {"psnr_mean": "12.345", "ssim_mean": "0.678"}, row | {"method": "input", "psnr_mean": "1"}]
    rows = merged_rows(old, new, ["unified"], SUITES["awgn"])
    assert [r for r in rows if r != new[0]] == [r for r in old if r != row]
    folder = run(tmp_path, "awgn", [place | {"image": "kodim03", "psnr": "9.871"}])
    text = section_of("awgn")
    image = next(line for line in text.splitlines() if line.startswith("| kodim03 |"))
    changed = merged_section(text, rows, folder, ["unified"]).splitlines()
    lines = [line for line in changed if line not in text.splitlines()]
    assert sum("12.3" in line and "/ 0.678" in line for line in lines) == 1
    assert sum(line.startswith("| kodim03 |") and "9.87" in line for line in lines) == 1
    assert lines[-1] == "Rows of Ours: unified: commit abcdef0."
    assert len(lines) == 3
    assert image in text


def test_rows_measured_at_another_time_keep_their_commit(tmp_path: Path) -> None:
    rows, folder = rows_of("awgn"), run(tmp_path, "awgn", [])

    def remarks(text: str) -> list[str]:
        return [line for line in text.splitlines() if line.startswith("Rows of ")]

    text = "\n\n".join(
        block for block in section_of("awgn").split("\n\n") if not block.startswith("Rows of ")
    )
    text += "\n\nRows of Ours: denoiser; Ours: unified: commit 1111111.\n\nRows of Input: commit 2222222."
    once = merged_section(text, rows, folder, ["unified", "multiscale"])
    assert remarks(once) == [
        "Rows of Ours: denoiser: commit 1111111.",
        "Rows of Input: commit 2222222.",
        "Rows of Ours: unified; Ours: multiscale: commit abcdef0.",
    ]
    assert remarks(merged_section(once, rows, folder, ["denoiser", "input"])) == [
        "Rows of Ours: unified; Ours: multiscale: commit abcdef0.",
        "Rows of Ours: denoiser; Input: commit abcdef0.",
    ]
