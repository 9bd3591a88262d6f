"""How long do operations take, compared with the bare drivers and with peers, and as the store grows?

    python -m benchmarks.speed --quick

Everything is measured in one run: each operation is repeated on all stores in turn, and ratios are medians of the
ratios within a repetition. So other load on the machine changes the times, and hardly the ratios.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sqlite3
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.speed.catalog import contests, missing
from benchmarks.speed.contests import Figure, measure
from benchmarks.speed.report import plot, tables

SIZES = "1000,10000,100000"
QUICK_SIZES = "1000,3000"
QUICK_SHARE = 0.05
QUICK_NOTE = (
    "Quick: small stores and few repetitions. A ratio may be off by a fifth, and an exponent between -.3 and .3 says "
    "that nothing grows."
)
DOCS = Path("docs/speed.md")
PLOT = Path("docs/images/speed.svg")
_MADE_HERE = re.compile(r"(<!-- made by benchmarks/speed -->\n).*(<!-- end -->)", re.DOTALL)


def main(
    only: Annotated[list[str] | None, typer.Argument(help="Parts of the names of what is measured: SQL.")] = None,
    sizes: Annotated[str, typer.Option(help="Numbers of messages in the stores, separated by commas.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="Small stores, few repetitions: a few minutes.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the figures to this file.")] = None,
    docs: Annotated[bool, typer.Option("--docs", help=f"Write the tables into {DOCS}, and {PLOT}.")] = False,
) -> None:
    """Measure the operations of the stores, compared with the bare drivers and with peers."""
    try:
        numbers = sorted({int(size) for size in (sizes or (QUICK_SIZES if quick else SIZES)).split(",")})
    except ValueError:
        raise typer.BadParameter("use whole numbers separated by commas", param_hint="--sizes") from None
    if numbers[0] < 1_000:
        raise typer.BadParameter("use sizes of at least 1000", param_hint="--sizes")
    errors = Console(stderr=True)
    if absent := missing():
        errors.print(f"not installed, so not measured: {', '.join(absent)} (make bench installs them)")
    figures: list[Figure] = []
    for contest in contests(numbers, lambda name: not only or any(part.lower() in name.lower() for part in only)):
        start = time.perf_counter()
        figures += measure(contest, QUICK_SHARE if quick else 1.0)
        errors.print(f"{contest.name}: {time.perf_counter() - start:.0f} s")
    machine = {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "system": platform.platform(terse=True),
        "cores": os.cpu_count(),
    }
    notes = [", ".join(f"{key} {value}" for key, value in machine.items()), *([QUICK_NOTE] if quick else [])]
    text = "\n\n".join([*notes, tables(figures)])
    print(text)
    if json_file is not None:
        report = machine | {"figures": list(map(asdict, figures))}
        json_file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if docs:
        before = DOCS.read_text(encoding="utf-8")
        DOCS.write_text(_MADE_HERE.sub(lambda found: f"{found[1]}\n{text}\n{found[2]}", before), encoding="utf-8")
        if (drawn := plot(figures)) is not None:
            PLOT.write_text(drawn, encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
