"""Compare restoration methods on the same images: suites, methods, resumable runs and reports.

``invrestore bench SUITE --data DIR`` is the way in. A suite is data (see ``invrestore.bench.suites``): images,
degradations, a protocol and rows; a method is a function from a problem to images.
"""

from invrestore.bench._environment import environment
from invrestore.bench._methods import METHODS
from invrestore.bench._report import write_report
from invrestore.bench._results import MethodInfo, Picture, Results, Score
from invrestore.bench._run import Failure, Plan, Unit, collect, plan, run
from invrestore.bench._types import Degradation, ImageSet, Method, Problem, Protocol, Row, Suite, Task
from invrestore.bench.suites import SUITES

__all__ = [
    "METHODS",
    "SUITES",
    "Degradation",
    "Failure",
    "ImageSet",
    "Method",
    "MethodInfo",
    "Picture",
    "Plan",
    "Problem",
    "Protocol",
    "Results",
    "Row",
    "Score",
    "Suite",
    "Task",
    "Unit",
    "collect",
    "environment",
    "plan",
    "run",
    "write_report",
]
