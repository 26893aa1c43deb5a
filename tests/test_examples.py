"""The examples for many machines: on this one, and with a Slurm that only listens."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import rectilinear
import tiny

EXAMPLES = Path(__file__).parents[1] / "examples"
SBATCH = """#!/bin/sh
printf '%s\\n' "$*" >> "$LOG"
wc -l < "$LOG" | tr -d ' '
"""


def test_an_executor_shares_a_scan_out(folder, tmp_path):
    text = tmp_path / "docs.jsonl"
    text.write_text("\n".join(json.dumps({"text": line}) for line in tiny.documents(60)))
    scan = [str(folder), "--text", str(text), "--window", "32", "--batch-tokens", "1024", "--tokens", "all"]
    script = [sys.executable, str(EXAMPLES / "executor_scan.py"), "--shards", "2", "--workers", "2"]
    subprocess.run([*script, "--out", str(tmp_path / "many"), *scan], check=True, capture_output=True)
    merged = rectilinear.load_result(tmp_path / "many" / "scan")
    model = tiny.llama()
    whole = rectilinear.scan(model, tiny.tokenizer(), tiny.documents(60), window=32, batch_tokens=1024, tokens="all")
    for a, b in zip(merged.layers, whole.layers, strict=True):
        assert a.score.heldout == pytest.approx(b.score.heldout, abs=1e-6)
        assert a.score.paper == pytest.approx(b.score.paper, abs=1e-6)


@pytest.mark.skipif(os.name != "posix", reason="a shell script")
def test_slurm_is_given_two_arrays_and_two_merges(tmp_path):
    fake = tmp_path / "sbatch"
    fake.write_text(SBATCH)
    fake.chmod(fake.stat().st_mode | stat.S_IEXEC)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "LOG": str(tmp_path / "log")}
    out = tmp_path / "many"
    command = ["sh", str(EXAMPLES / "slurm_array.sh"), "3", str(out), "demo", "--text", "it's mine.txt"]
    subprocess.run(command, check=True, env=environment)
    fit, maps, heldout, scan = (tmp_path / "log").read_text().splitlines()
    assert "--array=1-3" in fit and f"--shard $SLURM_ARRAY_TASK_ID/3 --out {out}/fit-$SLURM_ARRAY_TASK_ID" in fit
    assert r"rectilinear scan 'demo' '--text' 'it'\''s mine.txt' --force --resume" in fit
    assert "--requeue" in fit and "--requeue" in heldout
    assert "--dependency=afterok:1" in maps and f"rectilinear merge {out}/fit-* --out {out}/fit --force" in maps
    assert "--dependency=afterok:2" in heldout and "--array=1-3" in heldout and f"--maps {out}/fit" in heldout
    assert "--dependency=afterok:3" in scan and f"merge {out}/fit {out}/heldout-* --out {out}/scan" in scan
