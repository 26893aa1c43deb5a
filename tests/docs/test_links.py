"""What the documentation links to is there."""

from pathlib import Path

import pytest
from doc_blocks import links

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_is_linked_is_there(page):
    assert [link for link in links(page.read_text(encoding="utf-8")) if not (page.parent / link).exists()] == []
