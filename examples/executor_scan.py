"""A scan shared out over machines by any concurrent.futures executor: dask's, or this machine's own.

    python examples/executor_scan.py --shards 3 --out many demo --tokens 18000
    python examples/executor_scan.py --shards 64 --out /shared/many --scheduler tcp://head:8786 meta-llama/Llama-3.1-70B

What stands after the options goes to `rectilinear scan` as it is. The folder must be one that all machines see. Ctrl-C
and SIGTERM end the processes that this machine runs for it; the same command again takes up the shares that are done.
`ray_scan.py` is the same on Ray.
"""

import argparse
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

RUNNING: set[subprocess.Popen[bytes]] = set()


def rectilinear(*arguments: object) -> None:
    """Run one command on the machine that this function runs on."""
    command = [sys.executable, "-m", "rectilinear", *map(str, arguments)]
    with subprocess.Popen(command) as process:
        RUNNING.add(process)
        code = process.wait()
        RUNNING.discard(process)
    if code:
        raise subprocess.CalledProcessError(code, command)


def end(number: int, _frame: object) -> None:
    """End this process and those that it has started: left alone, they would go on."""
    for process in tuple(RUNNING):
        process.terminate()
    sys.exit(128 + number)


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


def options(said: str) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=said, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scheduler", help="address of a cluster")
    parser.add_argument("--workers", type=int, default=1, help="shares at a time, without a scheduler")
    parser.add_argument("scan", nargs=argparse.REMAINDER, help="model and options of `rectilinear scan`")
    return parser.parse_args()


def shared_out(given: argparse.Namespace, over: Callable[[Callable[[int], Path], Sequence[int]], list[Path]]) -> None:
    """Fit, merge, judge, merge; `over` maps a function over numbers, wherever it likes."""
    numbers = range(1, given.shards + 1)
    one = partial(share, of=given.shards, out=given.out.absolute(), scan=given.scan)
    fit = over(partial(one, part="fit"), numbers)
    rectilinear("merge", *fit, "--out", given.out / "fit", "--force")
    heldout = over(partial(one, part="heldout"), numbers)
    rectilinear("merge", given.out / "fit", *heldout, "--out", given.out / "scan", "--force")


def main() -> None:
    """Share a scan out over an executor."""
    given = options(__doc__)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    with executor(given.scheduler, given.workers) as pool:
        shared_out(given, lambda function, numbers: list(pool.map(function, numbers)))


if __name__ == "__main__":
    main()
