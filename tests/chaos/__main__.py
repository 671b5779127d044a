"""`make chaos`: every scenario, one after the other, and the table of what was seen.

What has a result in runs/chaos for the same seed and size is not run again; `--fresh` forgets it.
The workers' logs of what failed are kept beside its verdict.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from shutil import copy, rmtree

from stream.local.servers import KAFKA_JARS, need
from tests.chaos.plant import servers
from tests.chaos.run import Verdict, carry_out, table
from tests.chaos.sets import LONG, SHORT

PAGE = Path("docs/reliability.md")
BEGIN, END = "<!-- table: make chaos -->", "<!-- end of the table -->"


def main(argv: Sequence[str]) -> int:
    """Run what is asked for; 0 when all of it passed."""
    asked = arguments(argv)
    chosen = SHORT if asked.short and not asked.only else LONG
    names = [name for name in chosen if not asked.only or name in asked.only]
    folder: Path = asked.runs / "defaults" if asked.defaults else asked.runs
    verdicts: list[Verdict] = []
    with (
        tempfile.TemporaryDirectory(prefix="emotrack-chaos-") as scratch,
        servers(Path(scratch), defaults=asked.defaults) as running,
    ):
        for number, name in enumerate(names, 1):
            print(f"[{number}/{len(names)}] {name}", end=" ", flush=True)
            verdict = kept(folder, name, asked)
            if verdict is None:
                place = Path(scratch) / name
                verdict = carry_out(
                    name, chosen[name], running, place, seed=asked.seed, full=not asked.short
                )
                verdict.save(folder)
                if not verdict.passed:
                    keep_logs(place, folder / f"{name}-failed")
            verdicts.append(verdict)
            print(told(verdict), flush=True)
    text = f"{versions()}\n\n{table(verdicts)}"
    if asked.page is not None:
        write(asked.page, text)
    print(text)
    return 0 if all(v.passed for v in verdicts) else 1


def arguments(argv: Sequence[str]) -> Namespace:
    """Return the arguments of the command."""
    parser = ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--only", nargs="*", help="scenarios, e.g. R1 R8")
    parser.add_argument("--short", action="store_true", help="`make test`'s, or short forms")
    parser.add_argument("--seed", type=int, default=20_261_124)
    parser.add_argument("--runs", type=Path, default=Path("runs/chaos"))
    parser.add_argument("--page", type=Path, help="write the table into this page")
    parser.add_argument(
        "--defaults", action="store_true", help="on a broker whose groups are at its own defaults"
    )
    parser.add_argument("--fresh", action="store_true", help="run all of it again")
    return parser.parse_args(argv)


def kept(folder: Path, name: str, asked: Namespace) -> Verdict | None:
    """A result of an earlier run with the same seed and size, if it passed."""
    file = folder / f"{name}.json"
    if asked.fresh or not file.is_file():
        return None
    verdict = Verdict(**json.loads(file.read_text("utf-8")))
    same = (verdict.seed, verdict.full) == (asked.seed, not asked.short)
    return verdict if same and verdict.passed else None


def keep_logs(place: Path, where: Path) -> None:
    """Save what the workers of a failed scenario said, beside its verdict."""
    rmtree(where, ignore_errors=True)
    where.mkdir()
    for log in place.rglob("*.log"):
        if log.is_file():  # R27's is a pipe that nobody reads
            copy(log, where)


def told(verdict: Verdict) -> str:
    """One line."""
    if verdict.passed:
        return f"ok, {verdict.records:,} records, {verdict.seconds:.0f} s"
    where = f"the workers' logs are in {verdict.name}-failed, beside the verdicts"
    return "\n".join(["FAILED", verdict.error, *verdict.violations, where])


def versions() -> str:
    """Return the servers' versions and the number of cores."""
    jar = next(KAFKA_JARS.glob("kafka_2.13-*.jar"))
    broker = jar.stem.removeprefix("kafka_2.13-")
    said = subprocess.run(
        [need("redis-server", "install it"), "--version"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = re.search(r"v=(\S+)", said)
    redis = found[1] if found else "?"
    return f"Apache Kafka {broker}, redis-server {redis}, {os.cpu_count()} cores."


def write(page: Path, text: str) -> None:
    """Put the table where the page keeps it."""
    before, _, rest = page.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
