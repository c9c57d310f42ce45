"""Imports go down only: a module of one level never imports a higher one."""

import ast
from pathlib import Path

import pytest

import invrestore

ROOT = Path(invrestore.__file__).parent

LEVEL = {
    "errors": 0,
    "_types": 0,
    "_checks": 0,
    "_symmetry": 0,
    "_version": 0,
    "operators": 1,
    "networks": 2,
    "metrics": 1,
    "io": 1,
    "kernels": 1,
    "assets": 1,
    "corruptions": 1,
    "fidelity": 2,
    "priors": 3,
    "solvers": 4,
    "testing": 4,
    "restorers": 5,
    "data": 5,
    "training": 6,
    "bench": 6,
    "cli": 7,
    "__init__": 7,
    "__main__": 8,
}


def modules():
    return sorted(p.relative_to(ROOT) for p in ROOT.rglob("*.py"))


def top(path: Path) -> str:
    return path.parts[0].removesuffix(".py")


def imports_when_loaded(tree: ast.Module):
    """Names of invrestore modules imported at module level, outside functions and TYPE_CHECKING blocks."""
    found = []
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("invrestore"):
            names = (
                [node.module]
                if node.module != "invrestore"
                else [f"invrestore.{a.name}" for a in node.names if a.name in LEVEL]
            )
            found.extend(names)
        elif isinstance(node, ast.Import):
            found.extend(a.name for a in node.names if a.name.startswith("invrestore"))
    return [name.split(".")[1] if "." in name else "__init__" for name in found]


def test_every_module_has_a_level():
    assert {top(p) for p in modules()} <= set(LEVEL)


@pytest.mark.parametrize("path", modules(), ids=str)
def test_imports_go_down(path):
    here = top(path)
    for name in imports_when_loaded(ast.parse((ROOT / path).read_text())):
        if name != here and not LEVEL[name] == LEVEL[here] == 0:
            assert LEVEL[name] < LEVEL[here], (
                f"{path} (level {LEVEL[here]}) imports {name} (level {LEVEL[name]})"
            )
