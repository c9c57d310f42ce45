"""The command line as a whole: help, version, exit codes, errors of one line."""

from __future__ import annotations

import subprocess
import sys

import pytest

from invrestore import __version__
from invrestore.cli import _app
from invrestore.errors import ConvergenceError


def test_help_names_every_command_and_the_exit_codes(run):
    result = run("--help")
    assert result.code == 0
    for word in ("restore", "degrade", "priors", "demo", "train", "Exit codes"):
        assert word in result.out


@pytest.mark.parametrize("command", ["restore", "degrade", "priors", "demo"])
def test_every_command_has_help(run, command):
    result = run(command, "-h")
    assert result.code == 0
    assert "Usage" in result.out


def test_version(run):
    assert run("--version").out == f"invrestore {__version__}\n"


def test_no_arguments_is_wrong_usage_and_shows_the_help(run):
    result = run()
    assert result.code == 2
    assert "Usage" in result.out + result.err


def test_python_m_invrestore_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "invrestore", "restore", "none.png", "-o", "out.png"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: read: expected an existing file, got none.png")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["nosuch"], "No such command"),
        (["restore"], "Missing argument"),
        (["restore", "a.png"], "--output"),
        (["restore", "a.png", "-o", "b.png", "--sigmaa", "1"], "No such option"),
        (["restore", "a.png", "-o", "b.png", "--sigma", "much"], "valid number"),
        (["restore", "a.png", "-o", "b.png", "--max-steps", "1.5"], "valid integer"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(refuse, words, match):
    assert match in refuse(*words)


def test_interrupt_is_code_130(run, picture, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("invrestore.solvers.solve", interrupted)
    result = run("restore", picture, "-o", tmp_path / "x.png")
    assert (result.code, result.err) == (130, "error: interrupted; nothing unfinished was left behind\n")
    assert not (tmp_path / "x.png").exists()


def test_a_failed_restoration_is_code_1(run, picture, tmp_path, monkeypatch):
    def diverging(*_, **__):
        raise ConvergenceError("solve", expected="finite iterates", found="NaN", remedy="Another method?")

    monkeypatch.setattr("invrestore.solvers.solve", diverging)
    result = run("restore", picture, "-o", tmp_path / "x.png")
    assert result.code == 1
    assert result.err == "error: solve: expected finite iterates, got NaN. Another method?\n"
    assert not (tmp_path / "x.png").exists()


def test_a_defect_is_one_line_and_a_traceback_only_with_debug(run, picture, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("planted")

    monkeypatch.setattr("invrestore.solvers.solve", broken)
    result = run("restore", picture, "-o", tmp_path / "x.png")
    assert result.code == 1
    assert "unexpected ZeroDivisionError: planted" in result.err
    assert result.err.count("\n") == 1
    with pytest.raises(ZeroDivisionError, match="planted"):
        _app.main(["restore", str(picture), "-o", str(tmp_path / "x.png"), "--debug"])
