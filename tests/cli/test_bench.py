"""The command `bench`: names, folders, output, exit codes."""

import json

import pytest

from invrestore.cli import main
from tests.bench.conftest import small

__all__ = ["small"]


@pytest.fixture
def bench(small, tmp_path):
    """Run the command on the small suite and return its exit code."""

    def call(*words, out="run"):
        return main(
            ["bench", "small", "--data", str(tmp_path / "data"), "--out", str(tmp_path / out), *words]
        )

    return call


def test_run_and_run_again(bench, tmp_path, capsys):
    assert bench("--limit", "2") == 0
    out = capsys.readouterr().out
    assert "Shrink" in out
    assert "report.html" in out
    first = (tmp_path / "run" / "scores.csv").read_bytes()
    assert bench("--limit", "2", "--quiet") == 0
    assert capsys.readouterr().out == ""
    assert (tmp_path / "run" / "scores.csv").read_bytes() == first
    assert json.loads((tmp_path / "run" / "results.json").read_text())["suite"] == "small"


def test_report_only_runs_nothing_and_shows_what_is_there(bench, tmp_path, capsys):
    assert bench("--limit", "2", "--methods", "shrink") == 0
    records = sorted((tmp_path / "run").glob("records/**/*.json"))
    assert bench("--limit", "2", "--report-only") == 0
    assert sorted((tmp_path / "run").glob("records/**/*.json")) == records
    scores = (tmp_path / "run" / "scores.csv").read_text()
    assert "shrink" in scores
    assert "constant" not in scores


def test_methods_and_tasks(bench, tmp_path):
    assert bench("--methods", "constant", "--tasks", "hole,noise-1") == 0
    lines = (tmp_path / "run" / "scores.csv").read_text()
    assert "constant" in lines
    assert "shrink" not in lines
    assert "noise-2" not in lines


def test_lists(bench, capsys):
    assert main(["bench", "list"]) == 0
    assert "faces64" in capsys.readouterr().out
    assert bench("--methods", "list") == 0
    assert "shrink" in capsys.readouterr().out


def test_foreign_folder_is_left_alone(bench, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    assert bench(out="mine") == 2
    assert "another folder" in capsys.readouterr().err
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["letter.txt"]


def test_other_suite_in_folder(bench, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text('{"suite": "awgn"}')
    assert bench() == 2
    assert "awgn" in capsys.readouterr().err


def test_failing_method_ends_with_1(bench, tmp_path, capsys):
    assert bench("--methods", "broken,constant", "--limit", "1") == 1
    assert "out of order" in capsys.readouterr().err
    assert "constant" in (tmp_path / "run" / "scores.csv").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", "shrinkk"], "shrink"),
        (["--tasks", "holes"], "hole"),
        (["--peers", "/no/such/folder"], "weights"),
        (["--limit", "0"], "limit"),
        (["--methods", "absent"], "no_such_package"),
    ],
)
def test_wrong_words(bench, capsys, words, message):
    assert bench(*words) == 2
    assert message in capsys.readouterr().err


def test_wrong_suite_and_no_data(capsys, tmp_path, monkeypatch):
    monkeypatch.delenv("INVRESTORE_DATA", raising=False)
    assert main(["bench", "faces65"]) == 2
    assert "faces64" in capsys.readouterr().err
    assert main(["bench", "faces64"]) == 2
    assert "INVRESTORE_DATA" in capsys.readouterr().err
    assert main(["bench", "faces64", "--data", str(tmp_path / "nowhere")]) == 2
