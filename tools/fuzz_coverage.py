"""Try files on every reader of tests/readers.py, chosen by what they reach in the code: `make fuzz-coverage`.

    python tools/fuzz_coverage.py [--seconds 20] [READER ...]

Needs atheris, and says so where there is none. A process a reader; what brings one down is left in .fuzz/.
"""

import argparse
import importlib.util
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOUND = ROOT / ".fuzz"  # files that brought a reader down
INSTRUMENTED = ["rectilinear", "yaml", "json"]
LONGEST = 1 << 16  # bytes of a file
SLOW = 10  # seconds for one file are a hang
RUNS = re.compile(r"Done (\d+) runs|#(\d+)\s")


def target(name: str, place: Path) -> Callable[[bytes], None]:
    """Return what lets a reader read the bytes of a file in a new folder; raises anything but a RectilinearError."""
    from readers import READERS, holds

    reader = READERS[name]
    holds(reader, place, reader.whole())  # what is loaded first is no file's memory
    return lambda data: holds(reader, place, data)


def run(name: str, seconds: int) -> None:
    """Try files on one reader, in this process, which ends with it."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        from readers import ODD_FILES, READERS
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        seeds = (READERS[name].whole(), *(data for data in ODD_FILES if len(data) < LONGEST))
        for number, data in enumerate(seeds):
            (corpus / str(number)).write_bytes(data)
        limits = [f"-max_total_time={seconds}", f"-max_len={LONGEST}", f"-timeout={SLOW}", "-rss_limit_mb=0"]
        place = f"-artifact_prefix={FOUND / name.replace(' ', '-')}-"
        atheris.Setup([sys.argv[0], *limits, place, str(corpus)], target(name, Path(folder) / "place"))
        atheris.Fuzz()


def main(arguments: Sequence[str] | None = None) -> int:
    """Try all readers, or those named; return 1 where one came down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("readers", nargs="*")
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if importlib.util.find_spec("atheris") is None:
        print("skipped: atheris is not installed here: pip install atheris")
        return 0
    sys.path[:0] = [str(ROOT / "tests")]
    if asked.here:
        run(asked.readers[0], asked.seconds)
    from readers import READERS

    FOUND.mkdir(exist_ok=True)
    total, down = 0, []
    for name in asked.readers or READERS:
        command = [sys.executable, __file__, "--here", "--seconds", str(asked.seconds), name]
        said = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        runs = max((int(one or other) for one, other in RUNS.findall(said.stderr)), default=0)
        total += runs
        print(f"{runs:>8} {name}{'' if not said.returncode else '  CAME DOWN'}", flush=True)
        if said.returncode:
            down.append(name)
            print("\n".join(said.stderr.splitlines()[-30:]))
    print(f"{total:>8} files, {len(down)} readers came down; what did it is in {FOUND}")
    return int(bool(down))


if __name__ == "__main__":
    sys.exit(main())
