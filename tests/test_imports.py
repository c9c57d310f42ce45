"""Importing invrestore costs torch and little more."""

import subprocess
import sys

HEAVY = (
    "deepinv",
    "torchvision",
    "matplotlib",
    "lightning",
    "scipy",
    "skimage",
    "pywt",
    "typer",
    "rich",
    "pydantic",
    "PIL",
)


def test_import_loads_nothing_heavy():
    code = f"import invrestore, sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_help_does_not_load_torch():
    code = (
        "import sys\n"
        "from invrestore.cli import main\n"
        "sys.argv = ['invrestore', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip().endswith("False")
