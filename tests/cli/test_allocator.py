"""Freed memory stays with a program of ours."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

# Three arrays of 16 MB, freed together, are more than glibc keeps by itself.
_FAULTS = """
import resource, sys
from invrestore.cli._allocator import keep_freed_memory
keep_freed_memory()
import torch
torch.set_num_threads(1)

def step():
    a = torch.ones(4_000_000)
    b = a + 1
    return a + b

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

for _ in range(20):
    step()
before = faults()
for _ in range(20):
    step()
print((faults() - before) / 20)
"""


def faults(**environment: str) -> float:
    """Pages that the system hands out anew at each step."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    words = [sys.executable, "-c", _FAULTS]
    done = subprocess.run(words, env=clean | environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone is told what to keep")
def test_arrays_reuse_the_memory_of_those_before_unless_the_environment_says_otherwise() -> None:
    assert faults() < 500
    assert faults(MALLOC_TRIM_THRESHOLD_="0", MALLOC_MMAP_THRESHOLD_="1000000") > 1000
