"""A scan shared out over machines by any concurrent.futures executor: dask's, or this machine's own.

    python examples/executor_scan.py --shards 3 --out many demo --tokens 18000
    python examples/executor_scan.py --shards 64 --out /shared/many --scheduler tcp://head:8786 meta-llama/Llama-3.1-70B

What stands after the options goes to `rectilinear scan` as it is. The folder must be one that all machines see; with
Ray, replace `pool.map` by a remote function of the same two commands.
"""

import argparse
import subprocess
import sys
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path


def rectilinear(*arguments: object) -> None:
    """Run one command on the machine that this function runs on."""
    subprocess.run([sys.executable, "-m", "rectilinear", *map(str, arguments)], check=True)


def share(number: int, *, of: int, part: str, out: Path, scan: list[str]) -> Path:
    """Gather one share of a part; return its folder."""
    folder = out / f"{part}-{number}"
    maps = [] if part == "fit" else ["--maps", out / "fit"]
    rectilinear("scan", *scan, "--shard", f"{number}/{of}", *maps, "--out", folder, "--force", "--resume")
    return folder


def executor(scheduler: str | None, workers: int) -> Executor:
    """Return what runs functions elsewhere: a dask cluster at an address, or threads that start processes here."""
    if scheduler is None:
        return ThreadPoolExecutor(workers)
    from dask.distributed import Client

    return Client(scheduler).get_executor()


def main() -> None:
    """Fit, merge, judge, merge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scheduler", help="address of a dask scheduler")
    parser.add_argument("--workers", type=int, default=1, help="shares at a time, without a scheduler")
    parser.add_argument("scan", nargs=argparse.REMAINDER, help="model and options of `rectilinear scan`")
    given = parser.parse_args()
    numbers = range(1, given.shards + 1)
    one = partial(share, of=given.shards, out=given.out.absolute(), scan=given.scan)
    with executor(given.scheduler, given.workers) as pool:
        fit = list(pool.map(partial(one, part="fit"), numbers))
        rectilinear("merge", *fit, "--out", given.out / "fit", "--force")
        heldout = list(pool.map(partial(one, part="heldout"), numbers))
    rectilinear("merge", given.out / "fit", *heldout, "--out", given.out / "scan", "--force")


if __name__ == "__main__":
    main()
