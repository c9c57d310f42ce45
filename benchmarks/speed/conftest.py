"""The ratio table after a run, its result file on request, and the environment in that of pytest-benchmark.

``--ratios NAME`` writes the table to `benchmarks/results/VERSION/NAME.json`.
"""

from __future__ import annotations

from typing import Any

from benchmarks.common import environment, write_result


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    machine_info["invrestore"] = environment()


def pytest_addoption(parser: Any) -> None:
    parser.addoption("--ratios", metavar="NAME", help="write the table of ratios to this result file")


def ratios(benchmarks: list[Any]) -> list[dict[str, Any]]:
    """For each work and each peer: medians of ours and of the peer, their ratio, the ratio asked for, scores."""
    works: dict[str, dict[str, Any]] = {}
    for bench in benchmarks:
        if bench.stats and bench.group:
            works.setdefault(bench.group, {})[bench.extra_info["who"]] = bench
    rows = []
    for work, members in works.items():
        if "invrestore" not in members:
            continue
        ours = members.pop("invrestore")
        mine = ours.stats.median / ours.extra_info.get("per", 1)
        for who, bench in members.items():
            theirs = bench.stats.median / bench.extra_info.get("per", 1)
            row = {
                "work": work,
                "peer": who,
                "ours_ms": 1e3 * mine,
                "peer_ms": 1e3 * theirs,
                "ratio": theirs / mine,
            }
            row["asked"] = bench.extra_info.get("asked")
            row |= {key: bench.extra_info[key] for key in ("our_psnr", "psnr") if key in bench.extra_info}
            if "per" in ours.extra_info:
                row |= {"per": ours.extra_info["per"], "our_seconds": ours.stats.median}
            rows.append(row)
    return rows


def pytest_terminal_summary(terminalreporter: Any, config: Any) -> None:
    """Print, for each work, the median of ours and of each peer, the ratio and the ratio asked for."""
    session = getattr(config, "_benchmarksession", None)
    if session is None or not session.benchmarks:
        return
    rows = ratios(session.benchmarks)
    write = terminalreporter.write_line
    write("")
    write(f"{'work':<52}{'ours':>11}{'peer':>34}{'ratio':>9}{'asked':>9}")
    for row in rows:
        asked = row["asked"]
        met = asked is None or row["ratio"] >= asked
        verdict = "" if asked is None else f"{asked:>8.2f}x" + ("" if met else "  falls short")
        peer = f"{row['peer']} {row['peer_ms']:.2f} ms"
        write(f"{row['work']:<52}{row['ours_ms']:>8.2f} ms{peer:>34}{row['ratio']:>8.2f}x{verdict}")
    name = config.getoption("--ratios")
    if name:
        timer = str(config.getoption("--benchmark-timer"))
        write(str(write_result(name, {"timer": timer, "rows": rows})))
