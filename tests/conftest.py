"""Shared by all tests: no Hub, one tiny saved model, the real data where there are some."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Elsewhere tests compare with a CPU's figures, and "auto" would take a GPU: those of tests/gpu ask for one.
if not os.environ.get("RECTILINEAR_GPU"):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):  # they share the cores, and so do the processes they start
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))


def pytest_collection_modifyitems(items):
    """The longest first, as files are dealt out to processes in this order."""
    items.sort(key=lambda item: item.get_closest_marker("real") is None)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A saved tiny llama with its tokenizer."""
    import tiny

    path = tmp_path_factory.mktemp("models") / "tiny-llama"
    tiny.llama().save_pretrained(path)
    tiny.tokenizer().save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def data():
    """The folder of real data, where there is one."""
    root = Path(__file__).parents[1]
    found = Path(os.environ.get("RECTILINEAR_DATA", root.parent / "shared" / "data"))
    if not (found / "wikitext2").is_dir():
        pytest.skip("no real data: set RECTILINEAR_DATA")
    return found
