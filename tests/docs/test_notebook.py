"""The tour's notebook is its page, and its cells run."""

import os
import sys
from pathlib import Path

import pytest
from doc_blocks import blocks, relink
from notebook import NOTEBOOK, PAGE, notebook, written

from rectilinear.errors import ModelError
from rectilinear.models.siblings import sibling_checkpoints


def test_the_notebook_is_made_from_the_page():
    assert NOTEBOOK.read_text(encoding="utf-8") == written(PAGE.read_text(encoding="utf-8")), "make fix"


def test_both_editions_of_the_tour_run_the_same():
    japanese = PAGE.with_name("tour.ja.md")
    runs = [
        [block.code for block in blocks(page.read_text(encoding="utf-8")) if block.runs] for page in (PAGE, japanese)
    ]
    assert runs[0] == runs[1] != []


def test_blocks_that_run_become_cells():
    page = "# A\n[b](b.md#c)\n<!-- run -->\n```sh\nmake x\n```\n```sh\nnot this\n```\n<!-- run -->\n```python\n1\n```\n"
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook(page)["cells"]]
    assert cells[1:4] == [
        ("markdown", "# A\n[b](../docs/b.md#c)"),
        ("code", "%%bash\nset -e\nmake x"),
        ("markdown", "```sh\nnot this\n```"),
    ]
    assert cells[4] == ("code", "1")


def test_links_move_with_the_page():
    assert (
        relink("[a](../examples/x.py) [b](https://c) [d](#e)", "docs", "examples") == "[a](x.py) [b](https://c) [d](#e)"
    )


def test_every_cell_runs(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    try:
        sibling_checkpoints("demo:tiny")
    except ModelError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    cells = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(cells)
    nbclient.NotebookClient(cells, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert {path.name for path in tmp_path.iterdir()} >= {"scan-plain", "delta-siblings", "tiny-small"}
