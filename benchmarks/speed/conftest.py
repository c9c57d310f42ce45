"""The ratio table after a run, and the environment in the result file."""

from __future__ import annotations

from typing import Any

from benchmarks.common import environment


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    machine_info["invrestore"] = environment()


def pytest_terminal_summary(terminalreporter: Any, config: Any) -> None:
    """Print, for each work, the median of ours and of each peer, the ratio and the ratio asked for."""
    session = getattr(config, "_benchmarksession", None)
    if session is None or not session.benchmarks:
        return
    works: dict[str, dict[str, Any]] = {}
    for bench in session.benchmarks:
        if bench.stats and bench.group:
            works.setdefault(bench.group, {})[bench.extra_info["who"]] = bench
    write = terminalreporter.write_line
    write("")
    write(f"{'work':<52}{'ours':>11}{'peer':>34}{'ratio':>9}{'asked':>9}")
    for work, rows in works.items():
        if "invrestore" not in rows:
            continue
        ours = rows["invrestore"]
        mine = ours.stats.median / ours.extra_info.get("per", 1)
        for who, bench in rows.items():
            if who == "invrestore":
                continue
            theirs = bench.stats.median / bench.extra_info.get("per", 1)
            asked = bench.extra_info.get("asked")
            verdict = (
                ""
                if asked is None
                else f"{asked:>8.2f}x" + ("" if theirs / mine >= asked else "  falls short")
            )
            peer = f"{who} {theirs * 1e3:.2f} ms"
            write(f"{work:<52}{mine * 1e3:>8.2f} ms{peer:>34}{theirs / mine:>8.2f}x{verdict}")
