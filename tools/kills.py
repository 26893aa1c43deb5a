"""Kill real commands at random moments until they are done, and compare what they leave with a run in one go.

Weights and arrays must be the same to the last bit, documents but for command, time and seconds; folders must hold the
same files, and nothing hidden may stay. `make kills` runs it; `--kills 50` is the long form.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VARYING = {"command", "time", "seconds", "sha256", "files"}  # the last two are digests of documents with the others
UNCOMPARED = {"trainer_state.json"}  # times without names
BIT_FOR_BIT = {".safetensors", ".model"}
SETUP = {"heal": "prune demo:tiny --remove 1 --select linearity --tokens 2048 --out cut"}
TINY = "--vocab 300 --window 64 --batch 4 --tokens 20000 --profile 1000 --read 0.3"
COMMANDS = {
    "scan": "scan demo:tiny --tokens 8192 --checkpoint-every 1000tokens --resume --out out",
    "shard": "scan demo:tiny --tokens 8192 --shard 1/2 --checkpoint-every 1000tokens --resume --out out",
    "moments": "scan demo:tiny --tokens 8192 --keep-moments --checkpoint-every 1000tokens --resume --out out",
    "replaced": "scan demo:tiny --tokens 2048 --force --out out",
    "prune": "prune demo:tiny --remove 1 --tokens 4096 --resume --out out",
    "trace": "trace demo:tiny --tokens 2048 --resume --out out",
    "heal": "heal cut --window 64 --batch 2 --steps 40 --holdout 4 --checkpoints kept --resume --out out",
    "pretrain": f"pretrain out --text demo {TINY} --resume",
    "reproduce": "reproduce fig2 --scale smoke --resume --out out",
}


def main() -> int:
    """Run the chosen cases; return 1 where any left something else than a run in one go."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(COMMANDS)}; all by default")
    parser.add_argument("--kills", type=int, default=3, help="of each case")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    asked = parser.parse_args()
    wrong = False
    for name in asked.cases or COMMANDS:
        with tempfile.TemporaryDirectory() as folder:
            found = case(name, Path(folder), asked.kills, random.Random(f"{asked.seed} {name}"))
        print(json.dumps(found), flush=True)
        wrong |= bool(found["differences"])
    return int(wrong)


def case(name: str, folder: Path, kills: int, moments: random.Random) -> dict[str, Any]:
    """Return what became of a command that was killed so many times; each that ended is compared and begun again."""
    whole, killed = folder / "whole", folder / "killed"
    whole.mkdir()
    if name in SETUP:
        run(SETUP[name], whole)
    shutil.copytree(whole, killed)
    started = time.monotonic()
    run(COMMANDS[name], whole)
    longest, done, different = time.monotonic() - started, 0, []
    if name == "replaced":  # what is there from the start is the same
        shutil.copytree(whole / "out", killed / "out")
    for _ in range(kills):
        process = start(COMMANDS[name], killed)
        try:
            process.wait(moments.uniform(0, longest))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            if name == "replaced":
                different += [f"after a kill: {line}" for line in differences(killed / "out", whole / "out")]
            continue
        done += 1
        different += checked(process.returncode, killed, whole)
        shutil.rmtree(killed / "out")
        shutil.rmtree(killed / "kept", ignore_errors=True)
    run(COMMANDS[name], killed)
    different += checked(0, killed, whole)
    run(COMMANDS[name], killed)  # again, where all is done
    different += checked(0, killed, whole)
    return {"case": name, "seconds": round(longest, 1), "kills": kills - done, "ended": done, "differences": different}


def start(command: str, folder: Path) -> subprocess.Popen[bytes]:
    """Start a command of this package in a folder."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-m", "rectilinear", *shlex.split(command)]
    with (folder / "said.txt").open("wb") as said:
        return subprocess.Popen(arguments, cwd=folder, env=environment, stdout=said, stderr=said)


def run(command: str, folder: Path) -> None:
    """Run a command to its end; raises SystemExit with what it said where that is no good one."""
    if start(command, folder).wait():
        raise SystemExit(f"{command}: {(folder / 'said.txt').read_text()}")


def checked(code: int, killed: Path, whole: Path) -> list[str]:
    """Return what is wrong after a command has ended."""
    ended = [] if code == 0 else [f"exit code {code}: {(killed / 'said.txt').read_text()}"]
    hidden = [f"{path.relative_to(killed)} stays" for path in killed.rglob(".*")]
    return [*ended, *hidden, *differences(killed / "out", whole / "out")]


def differences(one: Path, other: Path) -> list[str]:
    """Return what differs between two output folders, but for what must."""
    names = {path.relative_to(root).as_posix() for root in (one, other) for path in root.rglob("*") if path.is_file()}
    return list(_differences(one, other, sorted(names)))


def _differences(one: Path, other: Path, names: list[str]) -> Iterator[str]:
    for name in names:
        a, b = one / name, other / name
        if not (a.is_file() and b.is_file()):
            yield f"{name} is in {'one' if a.is_file() else 'the other'} only"
        elif a.suffix in BIT_FOR_BIT and a.read_bytes() != b.read_bytes():
            yield f"{name} has other bytes"
        elif a.suffix in {".json", ".jsonl"} and a.name not in UNCOMPARED and _document(a) != _document(b):
            yield f"{name} has other contents"


def _document(file: Path) -> Any:
    text = file.read_text(encoding="utf-8")
    return [_steady(json.loads(line)) for line in (text.splitlines() if file.suffix == ".jsonl" else [text])]


def _steady(value: Any) -> Any:
    """Return a document without what differs from run to run."""
    if isinstance(value, dict):
        return {name: _steady(held) for name, held in value.items() if name not in VARYING}
    return [_steady(held) for held in value] if isinstance(value, list) else value


if __name__ == "__main__":
    sys.exit(main())
