"""Write examples/tour.ipynb from docs/tour.md: blocks that run become cells, all else is text.

python tools/notebook.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from doc_blocks import Block, blocks, relink

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tour.md"
NOTEBOOK = ROOT / "examples" / "tour.ipynb"
ABOUT = """*Made from `docs/tour.md` by `tools/notebook.py`. The cells need `rectilinear` and the small models that come
with it, write into the folder that the notebook runs in, and take about a minute on two cores.*"""


def notebook(page: str) -> dict[str, Any]:
    """Return a page of docs/ as a notebook of examples/, in the format's version 4.5."""
    cells = [_text(ABOUT)]
    end = 0
    for block in blocks(page):
        if block.runs:
            cells += [_text(page[end : block.start]), _code(block)]
            end = block.stop
    cells.append(_text(page[end:]))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": [{"id": f"cell-{i}", **cell} for i, cell in enumerate(cells)],
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def _text(words: str) -> dict[str, Any]:
    source = relink(words.strip(), "docs", "examples")
    return {"cell_type": "markdown", "metadata": {}, "source": source.splitlines(keepends=True)}


def _code(block: Block) -> dict[str, Any]:
    # A bare `!command` would fail in silence.
    head = "%%bash\nset -e\n" if block.language == "sh" else ""
    source = (head + block.code.rstrip()).splitlines(keepends=True)
    return {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": source}


def written(page: str) -> str:
    """Return the text of a page's notebook file."""
    return json.dumps(notebook(page), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    NOTEBOOK.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
