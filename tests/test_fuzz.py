"""Every reader, on files that are nearly right: it gives what it reads, or one line, and never another exception.

`make fuzz` tries as many as FUZZ_EXAMPLES says, drawn anew each time.
"""

import dataclasses
import functools
import gzip
import io
import json
import os
import tempfile
import types
import typing

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import safetensors.numpy
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rectilinear import results
from rectilinear.core.linear import AffineMap
from rectilinear.core.moments import Moments
from rectilinear.data.preferences import read_pairs
from rectilinear.data.prompts import read_prompts
from rectilinear.data.tasks import read_task
from rectilinear.data.text import read_text
from rectilinear.errors import RectilinearError
from rectilinear.ops.cut.verdicts import Verdicts
from rectilinear.ops.judging.journal import Grades
from rectilinear.ops.kept import KeptMoments
from rectilinear.ops.maps import Maps
from rectilinear.ops.pretraining.recipe import Recipe
from rectilinear.report import checksums, folder
from rectilinear.report.again import kind_of
from rectilinear.results import MOMENTS, MOMENTS_DOCUMENT, EvalResult, Plan, ScanResult, SweepResult

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", 0))
FUZZ = settings(
    max_examples=EXAMPLES or 60,
    deadline=10_000,  # a hang is a fault too
    derandomize=not EXAMPLES,
    database=None,
    suppress_health_check=list(HealthCheck),
)
ODD = (None, True, False, -1, 0, 10**400, 1e308, float("nan"), float("inf"), "", "\ud800", "\x00", "a\nb", [], {}, [[]])


def sample(hint):
    """Return a small value of a type."""
    kind, inside = typing.get_origin(hint) or hint, typing.get_args(hint)
    if dataclasses.is_dataclass(kind):
        known = typing.get_type_hints(kind)
        wanted = [field.name for field in dataclasses.fields(kind) if field.name not in ("arrays", "moments")]
        return kind(**{name: sample(known[name]) for name in wanted})
    if kind in (types.UnionType, typing.Union):
        return sample(inside[0])
    if kind is tuple:
        return tuple(sample(one) for one in inside if one is not ...)
    if kind is dict:
        if inside[1] is not typing.Any:
            return {"a": sample(inside[1])}
        return {"model": "x", "steps": [1], "labels": ["a", "b"]}
    return {int: 1, float: 0.5, str: "x", bool: True}[kind]


def places(value, path=()):
    """Yield the path to every part of a JSON value."""
    yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from places(part, (*path, key))


def bent(document, path, odd):
    """Return a JSON document with another value, or (None) nothing, at a path."""
    if not path:
        return odd
    again = json.loads(json.dumps(document))
    *above, last = path
    inner = again
    for key in above:
        inner = inner[key]
    inner[last] = odd
    return again


@st.composite
def edited(draw, data):
    """Bytes with up to four edits."""
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.integers(1, 40)))
        new = draw(st.sampled_from([b"", data[at:end] * 2, data[:20]]) | st.binary(max_size=12))
        data = data[:at] + new + data[end:]
    return data


def documents(whole):
    """Documents that are nearly `whole`, as bytes."""
    odd = st.sampled_from(ODD) | st.text(max_size=3) | st.recursive(st.integers(), lambda x: st.lists(x, max_size=2))
    bends = st.builds(lambda path, value: bent(whole, path, value), st.sampled_from(list(places(whole))), odd)
    deep = st.sampled_from([b"[" * 100_000, b'{"a":' * 100_000])
    return bends.map(lambda found: json.dumps(found).encode()) | edited(json.dumps(whole).encode()) | deep


@functools.cache
def nearly(kind):
    """Documents that are nearly those of a result."""
    return documents(sample(kind).to_dict())


@functools.cache
def nearly_moments():
    facts = {name: "x" for name in ("model", "fingerprint", "tokenizer_fingerprint", "text")}
    numbers = {name: 1 for name in ("d", "tokens", "documents", "window", "sink_multiple", "layers", "schema")}
    whole = {**facts, **numbers, "kind": "moments", "sink_thresholds": [1.0, 2.0]}
    return documents(whole)


def holds(read, path, data):
    """Let a reader read what a file holds now: a RectilinearError says something, a result can be written again."""
    path.write_bytes(data)
    try:
        found = read(path)
    except RectilinearError as error:
        assert str(error).strip()
    else:
        assert not hasattr(found, "to_json") or found.to_json()


TEXT = "= Title =\n\nSome words, naïve.\n<|endoftext|>\nMore words.\n" * 3
ROWS = [{"label": i % 2, "text": f"text {i}", "chosen": "a", "rejected": f"b{i}", "prompt": "p"} for i in range(20)]
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
RECIPE = Recipe(text=("a.txt",), tokens=1000).to_yaml().encode()
LAUGHS = (
    b"a: &a [x, x]\n" + b"".join(b"%c: &%c [*%c, *%c]\n" % (c + 1, c + 1, c, c) for c in range(97, 120)) + b"text: *x\n"
)


def parquet():
    table, stream = pyarrow.Table.from_pylist(ROWS), io.BytesIO()
    pyarrow.parquet.write_table(table, stream)
    return stream.getvalue()


@functools.cache
def maps():
    each = [(AffineMap(torch.ones(4, 4), torch.ones(4)),) for _ in range(3)]
    with tempfile.TemporaryDirectory() as place:
        return Maps(*each, (1.0, 2.0), {"model": "x"}).save(place).read_bytes()


@functools.cache
def moments():
    found = Moments.empty(4, 4, torch.device("cpu"))
    found.update(torch.ones(6, 4), torch.ones(6, 4))
    return safetensors.numpy.save({name: tensor.numpy() for name, tensor in found.to_tensors().items()})


def texts(path):
    return list(read_text(str(path)).documents())


FILES = {
    "text.txt": (TEXT.encode(), texts),
    "rows.jsonl": (JSONL, texts),
    "text.txt.gz": (gzip.compress(TEXT.encode(), mtime=0), texts),
    "rows.parquet": (parquet(), texts),
    "prompts.txt": (TEXT.encode(), lambda path: read_prompts(str(path))),
    "prompts.yaml": (b"- One day\n- 'The cat'\n- \"and\"\n", lambda path: read_prompts(str(path))),
    "task.jsonl": (JSONL, lambda path: read_task(str(path))),
    "pairs.jsonl": (JSONL, lambda path: read_pairs(str(path))),
    "recipe.yaml": (RECIPE, lambda path: Recipe.load(path).check()),
    "SHA256SUMS": (b"0" * 64 + b"  result.json\n", lambda path: checksums.verify(path.parent)),
    "verdicts.jsonl": (
        b'{"settings": {"a": 1}}\n{"asked": "divergence", "removed": [1, 2], "value": 0.5, "passed": 7}\n',
        lambda path: Verdicts(path, {"a": 1}),
    ),
    "journal.jsonl": (
        b'{"settings": {"a": 1}}\n{"completion": {}}\n',
        lambda path: Grades(path, {"a": 1}),
    ),
}
KINDS = {  # documents that a command reads from a folder
    "result.json": (ScanResult, lambda path: kind_of(path).load(path)),
    "sweep.json": (SweepResult, lambda path: SweepResult.from_dict(folder.read_document(path, "sweep.json", "x")[1])),
    "eval.json": (EvalResult, lambda path: EvalResult.from_dict(folder.read_document(path, "eval.json", "x")[1])),
    "plan.json": (Plan, Plan.load),
    "tokens.json": (results.TokensResult, lambda path: kind_of(path).load(path)),
    "trace.json": (results.TraceResult, lambda path: kind_of(path).load(path)),
    "delta.json": (results.DeltaResult, lambda path: kind_of(path).load(path)),
    "probe.json": (results.ProbeResult, lambda path: kind_of(path).load(path)),
}


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
@FUZZ
def test_files(name, data, tmp_path_factory):
    whole, read = FILES[name]
    place = tmp_path_factory.getbasetemp() / "fuzz"
    place.mkdir(exist_ok=True)
    holds(read, place / name, data.draw(edited(whole) | st.binary(max_size=60)))


@pytest.mark.parametrize("name", KINDS)
def test_what_is_whole_is_read(name, tmp_path):
    kind, read = KINDS[name]
    whole = sample(kind)
    (tmp_path / name).write_text(whole.to_json())
    assert read(tmp_path / name).to_json() == whole.to_json()


@pytest.mark.parametrize("name", KINDS)
@given(data=st.data())
@FUZZ
def test_documents(name, data, tmp_path_factory):
    kind, read = KINDS[name]
    holds(read, tmp_path_factory.getbasetemp() / name, data.draw(nearly(kind)))


@given(data=st.data())
@FUZZ
def test_moments(data, tmp_path_factory):
    holds(Moments.load, tmp_path_factory.getbasetemp() / "m.safetensors", data.draw(edited(moments())))


@given(data=st.data())
@FUZZ
def test_arrays_of_a_result(data, tmp_path_factory):
    out = tmp_path_factory.getbasetemp() / "arrays"
    out.mkdir(exist_ok=True)
    (out / "result.json").write_text(json.dumps(sample(ScanResult).to_dict()))
    whole = safetensors.numpy.save({"eigenvalues": np.ones((1, 4))})
    holds(lambda path: folder.load(path.parent), out / folder.ARRAYS, data.draw(edited(whole)))


@given(data=st.data())
@FUZZ
def test_the_document_of_moments(data, tmp_path_factory):
    place = tmp_path_factory.getbasetemp() / MOMENTS
    place.mkdir(exist_ok=True)
    holds(lambda path: KeptMoments.load(path.parent.parent), place / MOMENTS_DOCUMENT, data.draw(nearly_moments()))


@given(data=st.data())
@FUZZ
def test_maps(data, tmp_path_factory):
    out = tmp_path_factory.getbasetemp() / "maps"
    out.mkdir(exist_ok=True)
    holds(lambda path: Maps.load(path.parent), out / "maps.safetensors", data.draw(edited(maps())))


def test_a_recipe_of_many_laughs_is_refused_at_once(tmp_path):
    holds(Recipe.load, tmp_path / "recipe.yaml", f"{LAUGHS}text: *x\n".encode())
