"""The targets that atheris drives, by hand: with atheris `make fuzz-coverage` chooses the bytes."""

import importlib.util

import fuzz_coverage
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from readers import READERS


@pytest.fixture(scope="module", params=["text of rows", "recipe", "runs", "moments alone"])
def tried(request, tmp_path_factory):
    return fuzz_coverage.target(request.param, tmp_path_factory.mktemp("fuzz") / "place")


@given(data=st.binary(max_size=80))
@settings(max_examples=20, deadline=None, derandomize=True, database=None)
def test_a_target_takes_any_bytes(tried, data):
    tried(data)


def test_a_target_comes_down_where_a_reader_does(tmp_path, monkeypatch):
    def read(path):
        return {b"x": 1}[path.read_bytes()]

    broken = type(READERS["text"])("a.txt", "text", lambda: b"x", read)
    monkeypatch.setitem(READERS, "broken", broken)
    tried = fuzz_coverage.target("broken", tmp_path)
    with pytest.raises(KeyError):
        tried(b"y")


def test_without_atheris_nothing_is_tried_and_the_reason_told(monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert fuzz_coverage.main([]) == 0
    assert capsys.readouterr().out == "skipped: atheris is not installed here: pip install atheris\n"
