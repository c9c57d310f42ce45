"""The report says what the scores say, and nothing leaves the page."""

import base64
import csv
import dataclasses
import html.parser
import io
import itertools
import json
import math
import re

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from invrestore.bench import _report
from invrestore.bench._curves import Line, chart
from invrestore.bench._report import write_report
from invrestore.bench._results import MethodInfo, Picture, Results, Score
from invrestore.bench._tables import METRICS, Table, paired_difference, summarise
from invrestore.errors import ImageFileError, RangeError, UnknownNameError

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(html.parser.HTMLParser):
    """Checks that tags nest, and keeps attributes and the texts of table cells."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.attributes, self.tables, self.cell, self.classes = [], [], [], None, []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.attributes.extend((tag, *attribute) for attribute in attrs)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.cell = [dict(attrs).get("class", "") or ""]

    def handle_startendtag(self, tag, attrs):
        self.attributes.extend((tag, *attribute) for attribute in attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag in ("td", "th"):
            self.tables[-1][-1].append(self.cell)
            self.cell = None

    def handle_data(self, data):
        if self.cell is not None and data.strip():
            self.cell.append(data.strip())


def score(method, index, psnr, ssim=0.5, *, images="a", task="noise", lpips=None, seconds=0.5, memory=10.0):
    return Score(method, images, task, index, f"{index}.png", psnr, ssim, lpips, seconds, memory)


def info(name, group="classical", **options):
    return MethodInfo(name, name.upper(), group, "", {}, **options)


def results(scores, methods, **changes):
    made = Results(
        suite="small",
        title="Small",
        summary="",
        protocol="Plain.",
        notes=(),
        tuning="",
        image_sets={"a": "Set A", "b": "Set B"},
        tasks={"noise": "Noise", "more": "More noise"},
        curves={},
        axis="",
        methods=tuple(methods),
        published={},
        scores=tuple(sorted(scores)),
        pictures=(),
        environment={"invrestore": "0", "machine": {"cores": 2}},
    )
    return dataclasses.replace(made, **changes)


@pytest.fixture
def three():
    """Three rows and four images; "tv" misses one image of the second task."""
    values = {
        ("tv", "noise"): (28.0, 30.0, 29.0, 31.0),
        ("net", "noise"): (30.0, 31.5, 30.5, 33.0),
        ("input", "noise"): (20.0, 20.1, 19.9, 20.0),
        ("tv", "more"): (40.0, 41.0, 42.0),
        ("net", "more"): (25.0, 26.0, 27.0, 28.0),
        ("input", "more"): (15.0, 15.0, 15.0, 15.0),
    }
    scores = [
        score(method, i, psnr, psnr / 50, task=task, seconds=i + 0.5, memory=i)
        for (method, task), row in values.items()
        for i, psnr in enumerate(row)
    ]
    return results(scores, [info("input", "input"), info("tv"), info("net", "learned")])


def records(path):
    return list(csv.DictReader(io.StringIO(path.read_text("utf-8"))))


def write(found, folder):
    return {path.name: path for path in write_report(found, folder)}


def test_mean_and_spread_are_those_computed_by_hand(three, tmp_path):
    rows = {(r["task"], r["method"]): r for r in records(write(three, tmp_path)["table.csv"])}
    row = rows["noise", "tv"]
    assert float(row["psnr_mean"]) == 29.5
    assert float(row["psnr_std"]) == pytest.approx(
        math.sqrt(5 / 3), abs=1e-4
    )  # 1.5^2 + .5^2 + .5^2 + 1.5^2 = 5
    assert float(row["ssim_mean"]) == 0.59
    assert (row["psnr_n"], row["psnr_missing"], rows["more", "tv"]["psnr_missing"]) == ("4", "0", "1")
    assert row["lpips_mean"] == ""


def test_page_shows_the_means_and_marks_best_and_second(three, tmp_path):
    page = Page(write(three, tmp_path)["report.html"].read_text("utf-8"))
    rows = {row[0][1]: row[1:] for row in page.tables[0] if row[0][1:] and row[0][1] != "Method"}
    assert rows["TV"][0][1:] == ["29.50", "± 1.29"]
    assert "second" in rows["TV"][0][0].split()
    assert rows["NET"][0][1] == "31.25"
    assert "best" in rows["NET"][0][0].split()
    assert rows["INPUT"][1][1] == "0.400"
    assert [cell[1] for cell in page.tables[2][2][1:3]] == ["2.00", "3"]  # mean seconds, largest memory


def test_row_that_misses_images_is_marked_and_not_ranked(three, tmp_path):
    assert Table(three).marks(METRICS[0], "a", "more") == {"net": "best", "input": "second"}
    text = write(three, tmp_path)["report.html"].read_text("utf-8")
    assert "† TV: More noise 3 of 4 images." in text
    page = Page(text)
    cell = next(row for row in page.tables[0] if row[0][1:2] == ["TV"])[3]
    assert cell[1:] == ["†", "41.00", "± 1.00"]
    assert not {"best", "second"} & set(cell[0].split())


def test_difference_is_taken_on_common_images_with_the_interval_of_the_paired_t_test(three):
    a, b = np.array([40.0, 41.0, 42.0]), np.array([25.0, 26.5, 27.0])
    difference = paired_difference(dict(enumerate(a)), {**dict(enumerate(b)), 3: 99.0})
    interval = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert difference.n == 3
    assert difference.mean == pytest.approx((a - b).mean(), rel=1e-12)
    assert (difference.low, difference.high) == pytest.approx((interval.low, interval.high), rel=1e-12)
    assert Table(three).difference("psnr", "a", "more", "tv", "net").n == 3


def test_table_and_page_hold_the_differences_to_the_best_learned_row(three, tmp_path):
    files = write(three, tmp_path)
    row = next(r for r in records(files["table.csv"]) if (r["task"], r["method"]) == ("noise", "tv"))
    interval = stats.ttest_rel((28, 30, 29, 31), (30, 31.5, 30.5, 33)).confidence_interval(0.95)
    assert row["reference"] == "net"
    assert float(row["psnr_difference"]) == -1.75
    assert float(row["psnr_difference_low"]) == pytest.approx(interval.low, abs=1e-4)
    assert float(row["psnr_difference_high"]) == pytest.approx(interval.high, abs=1e-4)
    data = embedded(files["report.html"])
    n, mean, half = data["differences"]["pairs"]["0,psnr,1,2"]
    assert (n, mean) == (4, -1.75)
    assert half == pytest.approx(interval.high + 1.75, abs=1e-4)


def embedded(path):
    text = re.search(
        r'<script type="application/json" id="data">(.*?)</script>', path.read_text("utf-8"), re.S
    )
    return json.loads(text[1])


def test_reference_is_the_best_learned_row_else_the_best():
    methods = [info("input", "input"), info("tv"), info("wide", "learned"), info("narrow", "learned")]
    scores = [score("tv", 0, 40.0), score("wide", 0, 30.0), score("wide", 0, 31.0, task="more")]
    scores += [score("narrow", 0, 39.0), score("input", 0, 99.0)]
    assert Table(results(scores, methods)).reference == "wide"
    assert Table(results(scores[:1] + scores[-1:], methods)).reference == "tv"
    assert Table(results(scores[-1:], methods)).reference == "input"
    assert Table(results([], methods)).reference == ""


def test_infinite_scores_are_counted_and_left_out_of_means_and_pairs(tmp_path):
    scores = [score("tv", i, v) for i, v in enumerate((30.0, math.inf, 32.0))]
    scores += [score("net", i, v) for i, v in enumerate((31.0, 31.0, 35.0))]
    scores += [score("copy", i, math.inf, 1.0) for i in range(3)]
    found = results(scores, [info("tv"), info("net", "learned"), info("copy")])
    assert summarise([30.0, math.inf, 32.0]).mean == 31.0
    assert Table(found).difference("psnr", "a", "noise", "tv", "net").infinite == 1
    assert Table(found).difference("psnr", "a", "noise", "tv", "net").mean == -2.0
    assert Table(found).marks(METRICS[0], "a", "noise") == {"copy": "best", "net": "second"}
    files = write(found, tmp_path)
    rows = {r["method"]: r for r in records(files["table.csv"])}
    assert (rows["tv"]["psnr_infinite"], rows["tv"]["psnr_mean"], rows["copy"]["psnr_mean"]) == (
        "1",
        "31.0",
        "inf",
    )
    page = files["report.html"].read_text("utf-8")
    assert "∞ TV: Noise 1 of 3 images equal the truth." in page
    assert json.loads(files["results.json"].read_text("utf-8"))["scores"][0]["psnr"] == "inf"


def test_score_that_is_not_a_number_counts_as_missing(tmp_path):
    scores = [score("tv", 0, 30.0), score("tv", 1, math.nan), score("net", 0, 31.0), score("net", 1, 31.0)]
    rows = records(write(results(scores, [info("tv"), info("net")]), tmp_path)["table.csv"])
    assert (rows[0]["psnr_n"], rows[0]["psnr_missing"], rows[0]["psnr_mean"]) == ("1", "1", "30.0")


def test_equal_scores_give_equal_bytes_whatever_time_they_took(three, tmp_path):
    slower = [dataclasses.replace(s, seconds=s.seconds * 3 + 1, memory=99.0) for s in reversed(three.scores)]
    other = dataclasses.replace(three, scores=tuple(slower), environment={"machine": "another"})
    first, second = write(three, tmp_path / "one"), write(other, tmp_path / "two")
    for name in ("scores.csv", "table.csv"):
        assert first[name].read_bytes() == second[name].read_bytes()
    assert first["times.csv"].read_bytes() != second["times.csv"].read_bytes()
    again = write(three, tmp_path / "one")
    assert again["report.html"].read_bytes() == write(three, tmp_path / "three")["report.html"].read_bytes()


def test_only_whole_files_are_left_and_older_ones_replaced(three, tmp_path):
    write(three, tmp_path)
    (tmp_path / "table.csv").write_text("old")
    files = write(three, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(files)
    assert files["table.csv"].read_text("utf-8").startswith("images,task")


def test_scores_are_written_in_full_precision(tmp_path):
    found = results([score("tv", 0, 1 / 3 + 30, lpips=0.1)], [info("tv")])
    row = records(write(found, tmp_path)["scores.csv"])[0]
    assert (float(row["psnr"]), float(row["lpips"])) == (1 / 3 + 30, 0.1)


def test_one_row_one_image_gives_a_report(tmp_path):
    files = write(results([score("tv", 0, 30.0)], [info("tv")]), tmp_path)
    page = Page(files["report.html"].read_text("utf-8"))
    assert page.tables[0][2][1][1:] == ["30.00"]
    assert Table(results([score("tv", 0, 30.0)], [info("tv")])).marks(METRICS[0], "a", "noise") == {}


def test_run_without_scores_says_so(tmp_path):
    files = write(results([], [info("tv", left_out="package bm3d is not installed")]), tmp_path)
    text = files["report.html"].read_text("utf-8")
    Page(text)
    assert "No image has been scored." in text
    assert "package bm3d is not installed" in text
    assert files["table.csv"].read_text() == ""


def test_lpips_column_is_there_only_with_lpips(three, tmp_path):
    assert "LPIPS" not in write(three, tmp_path)["report.html"].read_text("utf-8")
    found = results(
        [score("tv", 0, 30.0, lpips=0.2), score("net", 0, 30.0, lpips=0.1)], [info("tv"), info("net")]
    )
    assert "LPIPS" in write(found, tmp_path)["report.html"].read_text("utf-8")
    assert Table(found).marks(METRICS[2], "a", "noise") == {"net": "best", "tv": "second"}


def test_published_number_stands_beside_ours(three, tmp_path):
    found = dataclasses.replace(three, published={("tv", "a", "noise"): 29.52})
    page = Page(write(found, tmp_path)["report.html"].read_text("utf-8"))
    row = next(row for row in page.tables[0] if row[0][1:2] == ["TV"])
    assert row[2][1:] == ["29.52", "\u22120.02"]


@pytest.fixture
def pictured(three, tmp_path):
    """Markup in every text, pictures, curves."""
    evil = "<b>&\"'</b></script><script>alert(1)</script>"
    rng = np.random.default_rng(0)
    pictures = []
    for task, method in itertools.product(("noise", "more"), ("truth", "measured", "tv", "net")):
        path = tmp_path / f"{task}-{method}.png"
        value = 7 if method == "truth" else rng.integers(0, 256, (8, 12, 3))
        Image.fromarray(np.broadcast_to(value, (8, 12, 3)).astype(np.uint8)).save(path)
        pictures.append(Picture("a", task, 0, method, path))
    methods = [dataclasses.replace(m, label=m.label + evil, reference=evil) for m in three.methods]
    methods[1] = dataclasses.replace(methods[1], settings={"noise": {evil: 0.25}, "more": {"lam": evil}})
    texts = dict.fromkeys(("suite", "title", "summary", "protocol", "tuning", "axis"), evil)
    return evil, dataclasses.replace(
        three,
        **texts,
        notes=(evil,),
        methods=tuple(methods),
        image_sets={"a": evil},
        tasks={"noise": "Noise" + evil, "more": evil},
        curves={"noise": (evil, 15.0), "more": (evil, 50.0)},
        pictures=tuple(sorted(pictures)),
        environment={evil: [evil]},
    )


def test_markup_in_names_stays_text_and_tags_nest(pictured, tmp_path):
    evil, found = pictured
    text = write(found, tmp_path / "out")["report.html"].read_text("utf-8")
    Page(text)
    assert evil not in text
    assert "alert(1)</script>" not in text
    assert "&lt;b&gt;&amp;" in text


def test_page_needs_no_network(pictured, tmp_path):
    text = write(pictured[1], tmp_path / "out")["report.html"].read_text("utf-8")
    links = [v for _, name, v in Page(text).attributes if name in ("src", "href", "data", "srcset", "action")]
    assert links
    assert all(link.startswith(("#", "data:")) for link in links)
    assert not re.search(r"https?://|url\(|@import|fetch\(|XMLHttpRequest", text)


def test_pictures_are_embedded_once_and_unchanged_with_their_scores(pictured, tmp_path):
    _, found = pictured
    pictures = embedded(write(found, tmp_path / "out")["report.html"])["pictures"]
    assert [group["task"] for group in pictures["groups"]] == ["noise", "more"]
    assert len(pictures["sources"]) == 7  # two tasks of four, with one truth
    shown = pictures["groups"][0]["pictures"]
    assert [p["method"] for p in shown] == ["truth", "measured", "tv", "net"]
    assert [p["best"] for p in shown] == [False, False, False, True]
    assert shown[3]["score"] == "30.00 dB / 0.600"
    assert (shown[0]["width"], shown[0]["height"]) == (12, 8)
    start, _, data = pictures["sources"][shown[2]["source"]].partition(",")
    assert start == "data:image/png;base64"
    assert base64.b64decode(data) == (tmp_path / "noise-tv.png").read_bytes()


def test_large_pictures_are_cropped_until_they_fit_and_the_page_says_so(three, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    pictures = []
    for index, method in itertools.product((0, 1, 2), ("truth", "tv")):
        path = tmp_path / f"{index}-{method}.png"
        Image.fromarray(rng.integers(0, 256, (300, 280, 3)).astype(np.uint8)).save(path)
        pictures.append(Picture("a", "noise", index, method, path))
    found = dataclasses.replace(three, pictures=tuple(pictures))

    def page(budget):
        monkeypatch.setattr(_report, "_BUDGET", budget)
        path = write(found, tmp_path / "out")["report.html"]
        return path.read_text("utf-8"), embedded(path)["pictures"]

    text, shown = page(1_300_000)
    assert "Each is the middle 256 x 256 pixels, without loss." in text
    assert shown["groups"][0]["pictures"][0]["width"] == 256
    text, shown = page(400_000)
    assert "as JPEG of quality" in text
    assert len(shown["groups"]) == 3
    assert sum(map(len, shown["sources"])) <= 400_000 * 4 / 3 + 200
    text, shown = page(150_000)
    assert [group["index"] for group in shown["groups"]] == [0]
    assert "2 more sets of pictures stay out of it" in text


def test_missing_picture_is_refused(three, tmp_path):
    found = dataclasses.replace(three, pictures=(Picture("a", "noise", 0, "tv", tmp_path / "none.png"),))
    with pytest.raises(ImageFileError, match=r"write_report: expected the picture .*none\.png"):
        write_report(found, tmp_path / "out")


def test_score_of_an_unknown_row_and_two_scores_of_an_image_are_refused(tmp_path):
    with pytest.raises(UnknownNameError, match="a row out of 'tv', got 'tw'"):
        write_report(results([score("tw", 0, 30.0)], [info("tv")]), tmp_path)
    with pytest.raises(RangeError, match="expected one score for each image, got two of tv for image 0"):
        write_report(results([score("tv", 0, 30.0), score("tv", 0, 31.0)], [info("tv")]), tmp_path)


def test_curve_places_points_by_level_and_score():
    lines = [Line(0, "TV", "classical", ((10.0, 20.0), (20.0, 30.0), (40.0, 25.0)), (1.0, None, 1.0))]
    text = chart(lines, title="t", axis="level", scores="dB", digits=2, bounds=(20.0, 30.0))
    points = [tuple(map(float, p)) for p in re.findall(r'translate\(([\d.]+) ([\d.]+)\)"', text)]
    (x0, y0), (x1, y1), (x2, y2) = points
    assert (x2 - x1) / (x1 - x0) == pytest.approx(2.0, abs=0.01)
    assert (y0 - y2) / (y0 - y1) == pytest.approx(0.5, abs=0.01)
    assert text.count('class="error"') == 2
    assert "<title>TV, level 20: 30.00</title>" in text
    wide = chart(
        [Line(0, "TV", "classical", ((1.0, 20.0), (10.0, 30.0), (100.0, 25.0)))],
        title="t", axis="level", scores="dB", digits=2, bounds=(20.0, 30.0),
    )  # fmt: skip
    x0, x1, x2 = (float(x) for x in re.findall(r"translate\(([\d.]+) ", wide))
    assert x2 - x1 == pytest.approx(x1 - x0, abs=0.2)


def test_curves_of_a_run_leave_far_away_inputs_out_of_view(three, tmp_path):
    found = dataclasses.replace(three, curves={"noise": ("", 15.0), "more": ("", 50.0)}, axis="level")
    text = write(found, tmp_path)["report.html"].read_text("utf-8")
    assert text.count('<svg class="chart"') == 3
    assert "PSNR minus that of NET" in text
    assert (
        text.count("degraded images fall out of this range") == 2
    )  # of PSNR and SSIM; differences leave them out
    near = [
        dataclasses.replace(s, psnr=s.psnr + 9, ssim=0.6) if s.method == "input" else s for s in three.scores
    ]
    text = write(dataclasses.replace(found, scores=tuple(near)), tmp_path)["report.html"].read_text("utf-8")
    assert "degraded images fall out of this range" not in text
