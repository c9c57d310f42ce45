"""What the documents say is so: versions agree, commands exist, examples run."""

from __future__ import annotations

import itertools
import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import invrestore
from invrestore.cli import main
from invrestore.cli._catalogue import OPERATORS
from invrestore.cli._specs import parse

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_top_of_the_changelog_is_the_version_of_the_package():
    versions = re.findall(r"^## \[(\S+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == invrestore.__version__
    assert f"Version {invrestore.__version__}" in README


@pytest.mark.parametrize("script", ["scripts/demo", "scripts/test", ".ci/run"])
def test_scripts_named_in_the_readme_can_be_run(script):
    path = ROOT / script
    assert os.access(path, os.X_OK)
    assert subprocess.run(["bash", "-n", path], capture_output=True).returncode == 0
    assert script in README or script == ".ci/run"


def test_continuous_integration_runs_what_a_developer_runs():
    assert "scripts/test" in (ROOT / ".ci/run").read_text()


def test_setting_up_twice_installs_once(tmp_path):
    # A stand-in for python that records what it is asked to do, so that nothing is downloaded.
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/environment").write_text((ROOT / "scripts/environment").read_text())
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    python = tmp_path / ".venv/bin/python"
    python.write_text(f'#!/usr/bin/env bash\necho "$*" >> {tmp_path}/asked\n')
    python.chmod(0o755)
    script = f"set -euo pipefail; source {tmp_path}/scripts/environment; install_project '[dev]'"

    def installs() -> int:
        subprocess.run(["bash", "-c", script], check=True, capture_output=True)
        return (tmp_path / "asked").read_text().count("pip install")

    assert installs() == 1
    assert installs() == 1
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    assert installs() == 2


def test_setting_up_needs_python_3_11(tmp_path):
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/environment").write_text((ROOT / "scripts/environment").read_text())
    (tmp_path / "bin").mkdir()
    for name in ("python", "python3", "python3.11", "python3.12", "python3.13"):
        old = tmp_path / "bin" / name
        old.write_text("#!/bin/sh\nexit 1\n")
        old.chmod(0o755)
    script = f"set -euo pipefail; source {tmp_path}/scripts/environment; install_project ''"
    done = subprocess.run(
        ["/bin/bash", "-c", script],
        capture_output=True,
        text=True,
        env={"PATH": f"{tmp_path}/bin:/usr/bin:/bin"},
    )
    assert done.returncode != 0
    assert "expected Python 3.11 or newer" in done.stderr


def test_every_command_in_the_readme_is_understood(capsys):
    lines = re.findall(r"^    invrestore (.+)$", README, re.MULTILINE)
    assert len(lines) >= 6
    for line in lines:
        words = shlex.split(line)
        assert main([words[0], "--help"]) == 0
        shown = capsys.readouterr().out
        for word in words[1:]:
            if word.startswith("--"):
                assert word in shown
        for flag, value in itertools.pairwise(words):
            if flag == "--operator":
                parse("--operator", value, OPERATORS)


def test_every_operator_spec_in_the_readme_is_understood():
    table = README[README.index("| Operators") : README.index("| Priors")]
    specs = re.findall(r"`([a-z]+:[^`]+)`", table)
    assert len(specs) >= 8
    for spec in specs:
        parse("--operator", spec, OPERATORS)
    assert {spec.partition(":")[0] for spec in specs} | {"identity", "grayscale", "value"} == set(OPERATORS)


def test_names_the_readme_uses_exist():
    for used in set(re.findall(r"\bir\.((?:\w+\.)?\w+)", README)):
        found = invrestore
        for part in used.split("."):
            found = getattr(found, part)
    operators, priors = README[README.index("| Operators") :].split("| Priors")
    for name in re.findall(r"`([A-Z]\w+)\(", operators):
        assert hasattr(invrestore.operators, name)
    for name in re.findall(r"`([A-Z]\w+)\(", priors):
        assert hasattr(invrestore.priors, name)


def test_every_formula_that_restore_accepts_is_in_the_readme():
    table = README[README.index("| Priors") :]
    for name in set(invrestore.priors.available()) - set(invrestore.networks.available()):
        assert f"`{name}`" in table


def test_every_option_of_the_help_text_for_operators_names_the_catalogue(capsys):
    main(["restore", "--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    listed = re.search(r"Names: ([a-z, ]+)\.", shown)
    assert listed is not None
    assert set(listed.group(1).split(", ")) == set(OPERATORS)


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_examples_run_and_gain(example, monkeypatch, capsys, tmp_path):
    out = tmp_path / "x.png"
    monkeypatch.setattr(sys, "argv", [str(example), "--side", "48", "--out", str(out)])
    runpy.run_path(str(example), run_name="__main__")
    before, after = re.findall(r"([\d.]+) dB (?:before|after)", capsys.readouterr().out)
    assert float(after) > float(before)
    assert out.exists()


def test_tools_are_pinned_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = [d for d in project["optional-dependencies"]["dev"] if d.startswith(("ruff", "mypy"))]
    assert all("==" in d for d in pinned)
    assert len(pinned) == 2
