"""Fifty users at once on the explorer: no error, and its memory stays where it is."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rectilinear.errors import ModelError
from rectilinear.models.siblings import sibling_checkpoints

LOAD = Path(__file__).parents[2] / "benchmarks" / "load.py"


@pytest.mark.skipif(sys.platform != "linux", reason="reads the server's memory from /proc")
def test_fifty_users_at_once_have_their_answers():
    for module in ("gradio", "httpx"):
        pytest.importorskip(module)
    try:
        sibling_checkpoints("demo:tiny")
    except ModelError as error:
        pytest.skip(str(error))
    done = subprocess.run(
        [sys.executable, LOAD, "--users", "50", "--requests", "100"],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-500:]
    told = [json.loads(line) for line in done.stdout.splitlines()][1:]
    assert told[-1]["requests"] == 100
    assert not any(one["errors"] for one in told)
