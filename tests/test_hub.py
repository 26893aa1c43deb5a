import json
import os
import socket
import subprocess
import sys
import time

import pytest

import serving
from rectilinear import hub


@pytest.fixture
def silent():
    """An endpoint that takes requests and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_hub_that_hangs_counts_as_away(silent, monkeypatch):
    from huggingface_hub import HfApi, set_client_factory
    from huggingface_hub.utils import _http

    made = _http._GLOBAL_CLIENT_FACTORY
    monkeypatch.setattr(_http.constants, "is_offline_mode", lambda: False)
    monkeypatch.setattr(hub, "PATIENCE", 0.2)
    monkeypatch.setattr(_http.constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    hub.limit_patience.__wrapped__()
    started = time.monotonic()
    try:
        with pytest.raises(Exception, match="timed out"):
            HfApi(endpoint=silent).model_info("org/model")
    finally:
        set_client_factory(made)
    assert time.monotonic() - started < 60


# Commands in one process, with short limits, and the waits between tries noted instead of waited for.
TRIES = """
import contextlib, io, json, pathlib, sys, time
slept = []
time.sleep = slept.append
from huggingface_hub import constants
from rectilinear import hub
hub.PATIENCE = constants.HF_HUB_DOWNLOAD_TIMEOUT = 0.3
from rectilinear.cli.main import main
out = pathlib.Path(sys.argv[1])
for wrong in sys.argv[2:]:
    slept.clear(); hub._SAID.clear()
    sys.argv = ["rectilinear", "scan", f"org/{wrong}", "--out", str(out), "--tokens", "512", "--window", "16"]
    said, code = io.StringIO(), 0
    with contextlib.redirect_stderr(said):
        try:
            main()
        except SystemExit as stop:
            code = stop.code
    print("TRIED", json.dumps([wrong, code, said.getvalue(), sum(slept), out.exists()]))
"""
WRONG = ("429", "503", "hang-up", "ratelimit", "retry-after", "drop", "stall")


@pytest.fixture(scope="module")
def tried(folder, tmp_path_factory):
    """By what went wrong: exit code, standard error, the seconds waited for, and whether there is an output."""
    root = tmp_path_factory.mktemp("hub")
    with serving.hub(folder) as url:
        done = subprocess.run(
            [sys.executable, "-c", TRIES, str(root / "out"), *WRONG, "whole"],
            env={**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": url, "HF_HOME": str(root / "home")},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    assert done.stdout.count("TRIED") == len(WRONG) + 1, done.stderr
    lines = [line.removeprefix("TRIED ") for line in done.stdout.splitlines() if line.startswith("TRIED ")]
    return {wrong: rest for wrong, *rest in map(json.loads, lines)}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_hub_that_limits_fails_or_hangs_up_is_one_line_within_minutes(wrong, tried):
    code, said, waited, written = tried[wrong]
    asked = [line for line in said.splitlines() if line.startswith("The Hub (127.0.0.1) asks to wait 86,400 seconds")]
    assert len(asked) == (wrong in serving.ASKS)
    (line,) = (line for line in said.splitlines() if line not in asked)
    assert code == 2 and f"'org/{wrong}'" in line and "the Hub failed" in line
    assert waited < 4 * 60 and not written
    if wrong in ("drop", "stall"):
        assert "cannot load the weights" in line and ("peer closed" if wrong == "drop" else "timed out") in line


def test_the_same_hub_gives_a_model_where_nothing_is_wrong(tried):
    code, said, _, written = tried["whole"]
    assert code == 0 and written, said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["scan", "org/model"], "cannot find the model 'org/model'"),
        (["scan", "demo:tiny", "--text", "org/text"], "no data set 'org/text' to be had from the Hub"),
        (["eval", "demo:tiny", "--tasks", "arc_easy"], "Couldn't reach 'allenai/ai2_arc' on the Hub"),
    ],
    ids=["model", "text", "tasks"],
)
def test_without_a_network_nothing_is_tried_again(arguments, said, tmp_path):
    if "--tasks" in arguments:
        pytest.importorskip("lm_eval")
    wait = "import time, sys; time.sleep = lambda seconds: sys.exit('waited')"
    code = f"{wait}\nfrom rectilinear.cli.main import main; main()"
    variables = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://nowhere.invalid", "HF_HOME": str(tmp_path / "home")}
    others = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    others.pop("RECTILINEAR_DATA", None)  # tasks in local files
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path,
        env={**others, **variables},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1 and {path.name for path in tmp_path.iterdir()} <= {"home"}


def test_a_proxy_is_left_to_find_the_hub(monkeypatch):
    from huggingface_hub.errors import OfflineModeIsEnabled

    monkeypatch.setattr(hub, "getproxies", dict)
    with pytest.raises(OfflineModeIsEnabled, match=r"nowhere\.invalid is not known here"):
        hub._look_up("nowhere.invalid")
    monkeypatch.setattr(hub, "getproxies", lambda: {"https": "http://proxy:8080"})
    hub._look_up("nowhere.invalid")
