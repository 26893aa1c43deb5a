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


@pytest.fixture
def answering(request):
    """An endpoint that answers everything with one status, or hangs up where it is None."""
    with serving.answering(request.param) as url:
        yield url


@pytest.mark.parametrize("answering", [429, 503, None], indirect=True)
def test_a_hub_that_limits_fails_or_hangs_up_is_one_line(answering, tmp_path):
    """The waits between its client's tries are left out: they are half a minute in all."""
    code = "import time; time.sleep = lambda seconds: None\nfrom rectilinear.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "scan", "org/model", "--out", str(tmp_path / "out")],
        env={**os.environ, "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": answering, "HF_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 2 and "cannot find the model 'org/model'" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "out").exists()


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
