import json

import pytest

import tiny


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A file of tiny documents."""
    path = tmp_path_factory.mktemp("text") / "docs.jsonl"
    path.write_text("\n".join(json.dumps({"text": t}) for t in tiny.documents()))
    return path
