import socket
import time

import pytest

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
