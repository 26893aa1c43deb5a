"""Every reader, on files that are nearly right: it gives what it reads, or one line, and never another exception.

Nor does it take more than `MOST` bytes for a file of a few KB. `make fuzz` tries as many as FUZZ_EXAMPLES says, drawn
anew each time; `make fuzz-coverage` lets what is reached in the code decide what is tried next.
"""

import gzip
import json
import math
import os
import struct
from collections import deque

import pyarrow
import pyarrow.parquet
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memory import BEYOND, CLEAR, MOST
from readers import NESTED, ODD_FILES, READERS, Reader, holds
from rectilinear.data.text import read_text

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", 0))
FUZZ = settings(
    max_examples=EXAMPLES or 40,
    deadline=10_000,  # a hang is a fault too
    derandomize=not EXAMPLES,
    database=None,
    suppress_health_check=list(HealthCheck),
)
ODD = (
    *(None, True, False, -1, 0, 2**63, 10**400, 1e308, float("nan"), float("inf")),
    *("", "\ud800", "\x00", "a\nb", "../x", "\x1b[31m", "12", [], {}, [[]], [1], {"a": 1}),
    json.loads("[" * 150 + "]" * 150),
)


def places(value, path=()):
    """Yield the path to every part of a JSON value."""
    yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from places(part, (*path, key))


def bent(document, path, odd):
    """Return a document with another value at a path, which is as the key itself a name: `odd` is then `Name`."""
    if not path:
        return odd
    again = json.loads(json.dumps(document))
    *above, last = path
    inner = again
    for key in above:
        inner = inner[key]
    if isinstance(odd, Gone):
        del inner[last]
    elif isinstance(odd, Named) and isinstance(inner, dict):
        inner[odd.name] = inner.pop(last)
    else:
        inner[last] = odd.name if isinstance(odd, Named) else odd
    return again


class Gone:
    """In the place of a value: nothing, nor its name."""


class Named:
    """In the place of a name: another."""

    def __init__(self, name):
        self.name = name


@st.composite
def edited(draw, data):
    """Bytes with up to four edits."""
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.integers(1, 40)))
        new = draw(st.sampled_from([b"", data[at:end] * 2, data[:20]]) | st.binary(max_size=12))
        data = data[:at] + new + data[end:]
    return data


def odd_values():
    """Return values that none expects, and names."""
    some = st.sampled_from(ODD) | st.text(max_size=3) | st.recursive(st.integers(), lambda x: st.lists(x, max_size=2))
    return some | st.builds(Gone) | st.builds(Named, st.sampled_from(["\x00", "\ud800", "a\nb", "", "x" * 300]))


@st.composite
def bends(draw, whole):
    """Documents of the shape of `whole`, but for up to three of its parts."""
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(places(whole))))
        whole = bent(whole, path, draw(odd_values()))
        if isinstance(whole, (Gone, Named)):
            return None
    return whole


def in_json(data):
    """Files of a JSON document."""
    return bends(json.loads(data)).map(as_json)


def as_json(document):
    return json.dumps(document).encode()


@st.composite
def in_lines(draw, data):
    """Files of JSON lines, one of which is bent or deep."""
    packed = data[:2] == b"\x1f\x8b"
    lines = (gzip.decompress(data) if packed else data).splitlines()
    at = draw(st.integers(0, len(lines) - 1))
    lines[at] = draw(in_json(lines[at]) | st.sampled_from(NESTED))
    found = b"\n".join(lines) + b"\n"
    return gzip.compress(found, mtime=0) if packed else found


@st.composite
def in_yaml(draw, data):
    """Files of YAML: a bent document, or one in which a value is something that YAML alone has."""
    document = draw(bends(yaml.safe_load(data)))
    tags = [
        "!!int x",
        "!!bool x",
        "!!float ''",
        "!!timestamp x",
        "!!set {a}",
        "!!binary x",
        "2001-99-99",
        "1:2:3",
        ".inf",
    ]
    tags += ["0x" + "f" * 6000, "1" + "0" * 400, "&a [*a]", "{<<: {a: 1}}", "? {}\n: 1", *map(bytes.decode, NESTED)]
    written = json.dumps(document).replace("\\ud800", "") if draw(st.booleans()) else yaml.safe_dump(document)
    if draw(st.booleans()) and isinstance(document, (dict, list)) and document:
        odd = draw(st.sampled_from(tags))
        names = [f"{name}: " for name in document] if isinstance(document, dict) else ["- "]
        written = draw(st.sampled_from(names)) + odd
    return written.encode(errors="surrogatepass")


@st.composite
def in_safetensors(draw, data):
    """Files of safetensors with other tensors, or with another document among their facts."""
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    facts = header.pop("__metadata__", {})
    parts = {
        name: (of["dtype"], of["shape"], data[8 + size :][slice(*of["data_offsets"])]) for name, of in header.items()
    }
    inner = [name for name, text in facts.items() if text[:1] == "{"]
    if inner and draw(st.booleans()):
        name = draw(st.sampled_from(inner))
        facts[name] = draw(in_json(facts[name]) | st.sampled_from(NESTED)).decode()
        return together(parts, facts)
    name, other = (draw(st.sampled_from(sorted(parts))) for _ in range(2))
    kind, shape, numbers = parts.pop(name)
    width = len(numbers) // max(1, math.prod(shape))
    bent = {
        "gone": {},
        "named": {draw(st.sampled_from(["x", "\x00", "a.b", other])): (kind, shape, numbers)},
        "swapped": {name: parts.get(other, (kind, shape, numbers)), other: (kind, shape, numbers)},
        "cut": {name: (kind, [1], numbers[:width])},
        "scalar": {name: (kind, [], numbers[:width])},
        "endless": {name: (kind, [2**40, 0], b"")},
        "flat": {name: (kind, [math.prod(shape), 1], numbers)},
        "read otherwise": {name: ({1: "I8", 2: "F16", 4: "I32", 8: "I64"}.get(width, kind), shape, numbers)},
        "no number": {name: (kind, shape, b"\xff" * len(numbers))},
        "large": {name: (kind, shape, b"\x7e" * len(numbers))},
    }
    return together(parts | bent[draw(st.sampled_from(sorted(bent)))], facts)


def together(parts, facts):
    """Return a file of safetensors."""
    header, numbers = {"__metadata__": facts} if facts else {}, b""
    for name, (kind, shape, own) in parts.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(numbers), len(numbers) + len(own)]}
        numbers += own
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + numbers


TYPES = {
    pyarrow.timestamp("us"): 2**62,
    pyarrow.timestamp("s", tz="Evil/Zone"): 1,
    pyarrow.date64(): 2**53,
    pyarrow.time64("us"): 2**62,
    pyarrow.duration("us"): 2**62,
}
COLUMNS = {
    "date": pyarrow.array([2**31 - 1] * 3, pyarrow.int32()).cast(pyarrow.date32()),
    "float": pyarrow.array([float("nan")] * 3),
    "binary": pyarrow.array([b"\xff", b"\x00", b""]),
    "no text": pyarrow.array([b"\xff", b"\xc0", b"a"]).cast(pyarrow.large_binary()),
    "nothing": pyarrow.array([None] * 3),
    "nested": pyarrow.array([[{"a": "x"}], None, []]),
    "pairs": pyarrow.array([[("a", 1)], None, []], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
    "named": pyarrow.array(["a", "b", "a"]).dictionary_encode(),
    "text": pyarrow.array(["a", None, "\x00"]),
    "decimal": pyarrow.array([None] * 3, pyarrow.decimal256(76, 40)),
    **{str(kind): pyarrow.array([value] * 3, pyarrow.int64()).view(kind) for kind, value in TYPES.items()},
}
NAMES = ("text", "label", "chosen", "rejected", "x", "", "\x00", "passage", "question")


@st.composite
def in_parquet(draw, data):
    """Tables of columns of any type, under names that a reader looks for and others."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4))
    columns = [COLUMNS[draw(st.sampled_from(sorted(COLUMNS)))] for _ in names]
    stream = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table(columns, names=names), stream)
    return stream.getvalue().to_pybytes()


@st.composite
def packed(draw, data):
    """Files packed anew after an edit, as an edit of packed bytes seldom leaves any to be read."""
    if data[:2] != b"\x1f\x8b":
        return draw(edited(data))
    return gzip.compress(draw(edited(gzip.decompress(data))), mtime=0)


FORMS = {
    "json": in_json,
    "lines": in_lines,
    "yaml": in_yaml,
    "safetensors": in_safetensors,
    "parquet": in_parquet,
    "text": packed,
    "bytes": edited,
}


def nearly(reader):
    """Files that are nearly what a reader reads."""
    whole = reader.whole()
    return FORMS[reader.form](whole) | edited(whole) | st.sampled_from(ODD_FILES) | st.binary(max_size=60)


@pytest.fixture(scope="module", params=READERS)
def reader(request, tmp_path_factory):
    """A reader and a place for its file, which it has read once: what is loaded first is not the file's."""
    reader = READERS[request.param]
    place = tmp_path_factory.mktemp("fuzz") / "place"
    path = reader.put(place)
    path.write_bytes(reader.whole())
    found = reader.read(path)
    return reader, place, found


def test_what_is_whole_is_read(reader):
    one, _, found = reader
    if one.form == "json" and hasattr(found, "to_json"):
        assert json.loads(found.to_json()) == json.loads(one.whole())


def test_odd_files(reader):
    one, place, _ = reader
    for data in ODD_FILES:
        holds(one, place, data)


@given(data=st.data())
@FUZZ
def test_files_that_are_nearly_right(reader, data):
    one, place, _ = reader
    holds(one, place, data.draw(nearly(one)))


def test_the_bound_of_memory_holds(tmp_path):
    hungry = Reader("a.txt", "text", lambda: b"", lambda path: len(b"x" * (MOST + (8 << 20))))
    with pytest.raises(AssertionError, match="MiB taken"):
        holds(hungry, tmp_path, b"")
    endless = Reader("a.txt", "text", lambda: b"", lambda path: bytearray(2 * BEYOND))
    with pytest.raises(MemoryError):
        holds(endless, tmp_path, b"")


@pytest.mark.skipif(not os.access(CLEAR, os.W_OK), reason="only Linux tells the memory that was taken")
@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("text.txt.gz", b"x" * (MOST >> 1)),
        ("rows.jsonl.gz", b'["' + b"x" * (MOST >> 1)),
    ],
)
def test_packed_text_takes_bounded_memory(name, data, tmp_path):
    holds(Reader(name, "text", lambda: b"", streamed), tmp_path, gzip.compress(data))


def streamed(path):
    return deque(read_text(str(path)).documents(), maxlen=1)
