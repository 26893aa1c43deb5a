"""Build the sdist and from it the wheel, install the wheel alone into a new environment, and try every command.

    python tools/smoke.py [--python python3.12]

Each command must either do its work on `demo:tiny` or end with exit code 2 and name the extra that it needs. Prints one
line a command; ends with 1 where one did neither. Needs the package `build`; installs by constraints.txt.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
WORKS = """
rectilinear --version
rectilinear scan demo:tiny --tokens 4096 --shard 1/2 --out one
rectilinear scan demo:tiny --tokens 4096 --shard 2/2 --out two
rectilinear merge one two --out merged
rectilinear scan demo:tiny --tokens 4096 --out scan
rectilinear scan demo:tiny-cosine --tokens 4096 --out scan-cosine
rectilinear tokens demo:tiny --prompt "Once upon a time" --tokens 4096 --out tokens
rectilinear trace demo:tiny --tokens 4096 --out trace
rectilinear delta scan scan-cosine --out delta
rectilinear compare scan scan-cosine --out compare
rectilinear report scan
rectilinear verify scan
rectilinear prune demo:tiny --remove 2 --effort one-shot --tokens 8192 --out small
rectilinear heal small --steps 2 --window 128 --read 4096 --out healed
rectilinear eval demo:tiny small healed --tokens 2048
rectilinear pretrain trained --text stories.txt --tokens 4096 --window 64
rectilinear finetune demo:tiny --task toys.jsonl --steps 2 --seeds 1 --tokens 4096 --out tuned
rectilinear reproduce fig1 --dry-run
"""
NEEDS = """
probe: rectilinear probe demo:tiny --task toys.jsonl --out probed
train: rectilinear heal small --steps 2 --train lora --out adapted
judge: rectilinear judge demo:tiny --prompts prompts.jsonl --judge a-model --out judged
tasks: rectilinear eval demo:tiny --tasks arc_easy
reward: rectilinear finetune demo:tiny --task pairs.jsonl --steps 2 --seeds 1 --out rewarded
app: rectilinear explore demo:tiny
"""


def main() -> int:
    """Build, install, try; return the number of commands that neither worked nor named their extra."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", default=sys.executable, help="The interpreter of the new environment.")
    python = parser.parse_args().python
    with tempfile.TemporaryDirectory(prefix="smoke-") as name:
        place = Path(name)
        bin_ = _installed(place, python)
        work = place / "work"
        work.mkdir()
        _texts(work)
        environment = {**os.environ, "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1"}
        environment.pop("PYTHONPATH", None)  # the wheel, not the sources
        tries = [(line, None) for line in WORKS.strip().splitlines()]
        tries += [(line.partition(": ")[2], line.partition(": ")[0]) for line in NEEDS.strip().splitlines()]
        failed = sum(not _tried(line, extra, work, environment) for line, extra in tries)
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    untried = extras - {"dev", "docs"} - {extra for _, extra in tries}
    print(
        f"{len(tries) - failed} of {len(tries)} commands as they should be", *(f"; untried extra: {x}" for x in untried)
    )
    return failed or len(untried)


def _installed(place: Path, python: str) -> Path:
    """Return the bin folder of a new environment that holds the wheel and what it requires, nothing else."""
    subprocess.run([sys.executable, "-m", "build", "--outdir", place / "dist", ROOT], check=True, capture_output=True)
    subprocess.run([python, "-m", "venv", place / "venv"], check=True)
    wheel = next((place / "dist").glob("*.whl"))
    sdist = next((place / "dist").glob("*.tar.gz"))
    print(
        f"{sdist.name} {sdist.stat().st_size / 1e6:.1f} MB, {wheel.name} {wheel.stat().st_size / 1e6:.1f} MB",
        flush=True,
    )
    bin_ = place / "venv" / "bin"
    pip = [bin_ / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-c", ROOT / "constraints.txt", wheel], check=True)
    said = subprocess.run([bin_ / "python", "--version"], check=True, capture_output=True, text=True).stdout
    print(said.strip(), flush=True)
    return bin_


def _texts(work: Path) -> None:
    story = "Once upon a time there was a {} who liked to {}. One day the {} went to the park and was happy."
    made = [
        story.format(who, what, who) for who in "dog cat boy girl bird fish".split() for what in "run sing play".split()
    ]
    (work / "stories.txt").write_text("\n<|endoftext|>\n".join(made * 40))
    rows = {
        "toys": [{"text": text, "label": i % 2} for i, text in enumerate(made)] * 4,
        "pairs": [{"chosen": text, "rejected": text[:30]} for text in made],
        "prompts": [{"prompt": text[:40]} for text in made],
    }
    for name, lines in rows.items():
        (work / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))


def _tried(line: str, extra: str | None, work: Path, environment: dict[str, str]) -> bool:
    done = subprocess.run(["bash", "-c", line], cwd=work, env=environment, capture_output=True, text=True)
    said = " ".join((done.stdout + done.stderr).split())
    named = extra is not None and re.search(rf"rectilinear\[{extra}\]", said)
    good = done.returncode == 0 if extra is None else done.returncode == 2 and bool(named)
    print("ok  " if good else "FAIL", line, "" if good else f"-> {done.returncode}: {said[-400:]}", flush=True)
    return good


if __name__ == "__main__":
    sys.exit(main())
