"""A scan shared out over a Ray cluster, or over Ray on this machine, with the functions of `executor_scan.py`.

    pip install ray
    python examples/ray_scan.py --shards 3 --workers 2 --out many demo:tiny --tokens 18000
    python examples/ray_scan.py --shards 64 --scheduler auto --out /shared/many meta-llama/Llama-3.1-70B

What stands after the options goes to `rectilinear scan` as it is. The folder must be one that all machines see. For a
GPU to each share write `@ray.remote(num_gpus=1)`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import ray
from executor_scan import options, shared_out


@ray.remote(num_cpus=1)
def run(function: Callable[[int], Path], number: int) -> Path:
    """Gather one share, on the machine that Ray chooses."""
    return function(number)


def everywhere(function: Callable[[int], Path], numbers: Sequence[int]) -> list[Path]:
    """Return what a function gives for each number."""
    return ray.get([run.remote(function, number) for number in numbers])


if __name__ == "__main__":
    given = options(__doc__)
    local = {"num_cpus": given.workers} if given.scheduler is None else {}
    ray.init(address=given.scheduler, **local)
    shared_out(given, everywhere)
