"""What reads a file that others may have made: each with a file that is right, for those that bend it.

That is tests/test_fuzz.py and tools/fuzz_coverage.py.
"""

import dataclasses
import functools
import gzip
import io
import json
import shutil
import tempfile
import types
import typing
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import safetensors.numpy
import torch

import tiny
from memory import bounded
from rectilinear import results
from rectilinear.core.distillation import TopK
from rectilinear.core.linear import AffineMap
from rectilinear.core.moments import Moments
from rectilinear.data.benchmarks import BENCHMARKS
from rectilinear.data.lambada import read_passages
from rectilinear.data.preferences import read_pairs
from rectilinear.data.prompts import read_prompts
from rectilinear.data.rows import rows_of
from rectilinear.data.tasks import read_task
from rectilinear.data.text import read_text
from rectilinear.digests import FILES, SEAL, SUMS
from rectilinear.errors import RectilinearError
from rectilinear.models.checkpoints import find_checkpoints
from rectilinear.models.gguf import config_of
from rectilinear.ops.cut.verdicts import Verdicts
from rectilinear.ops.healing.cache import TeacherCache
from rectilinear.ops.judging.journal import Grades
from rectilinear.ops.judging.rubric import parse
from rectilinear.ops.kept import KeptMoments
from rectilinear.ops.maps import Maps
from rectilinear.ops.pretraining.recipe import Recipe
from rectilinear.ops.resume import Checkpoints
from rectilinear.ops.scan import ready, scan
from rectilinear.ops.shards import Shards, scan_shard
from rectilinear.ops.training.budget import Books, made_with
from rectilinear.ops.training.callback import _up_to
from rectilinear.ops.training.saving import last_checkpoint
from rectilinear.report import checksums, folder
from rectilinear.report.again import KINDS, kind_of
from rectilinear.reproduction.log import Log
from rectilinear.reproduction.measures.models import grades
from rectilinear.results import EvalResult, JudgeResult, Plan, SweepResult
from rectilinear.results.delta import Changes
from rectilinear.results.judging import GRADES as ASKED
from rectilinear.results.judging import Mean

DEEP = 100_000
NESTED = (b"[" * DEEP, b'{"a":' * DEEP, b"[" * 800 + b"]" * 800, b'{"a":' * 800 + b"1" + b"}" * 800)
ODD_FILES = (
    *(b"", b"\n", b"\xff\xfe", b"\x00", b"null", b"[]", b"[1]", b"{}", b'"x"', b"NaN", b"1e999", b'"\\ud800"', b"[{}]"),
    *(b"9" * 5000, b"0x" + b"f" * 6000, b'{"a": ' + b"9" * 5000 + b"}", b"a: 0x" + b"f" * 6000, *NESTED),
)
OPTIONS = {"window": 16, "batch_tokens": 64, "tokens": 300, "submodules": True, "pairs": True}


@dataclasses.dataclass(frozen=True)
class Reader:
    """whole: the bytes of a file that is right; read: from the place of the file.

    form: of its insides, which can be bent as well as its bytes: json, lines (of JSON), yaml, safetensors, parquet,
    text, or bytes. beside: a folder that it lies in, whose other files are right.
    """

    file: str
    form: str
    whole: Callable[[], bytes]
    read: Callable[[Path], typing.Any]
    beside: Callable[[], Path] | None = None

    def put(self, place: Path) -> Path:
        """Make the file's place in a new folder; return it."""
        if self.beside is not None and not place.exists():
            shutil.copytree(self.beside(), place)
        path = place / self.file
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


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
            return {name: sample(inside[1]) for name in NAMES.get(inside[1], ("a",))}
        return {"model": "x", "steps": [1], "labels": ["a", "b"]}
    return {int: 1, float: 0.5, str: "x", bool: True}[kind]


NAMES = {Changes: ("score", "increment"), Mean: (*ASKED, "mean")}  # of dicts
TEXT = "= Title =\n\nSome words, naïve.\n<|endoftext|>\nMore words.\n" * 3
ROWS = [{"label": i % 2, "text": f"text {i}", "chosen": "a", "rejected": f"b{i}", "prompt": "p"} for i in range(20)]
LETTERS = {"label": ["A", "B"], "text": ["x", "y"]}
PASSAGE = {"text": "p", "questions": [{"question": "q", "answers": [{"text": "a", "label": 1}]}]}
FIELDS = {  # of the benchmarks' rows
    "boolq": {"passage": "p", "question": "q", "label": True},
    "multirc": {"passage": PASSAGE},
    "cb": {"premise": "p", "hypothesis": "h", "label": "neutral"},
    "rte": {"premise": "p", "hypothesis": "h", "label": "entailment"},
    "copa": {"premise": "p", "question": "q", "choice1": "a", "choice2": "b", "label": 0},
    "wic": {"word": "w", "sentence1": "a", "sentence2": "b", "label": False},
    "arc_easy": {"question": "q", "choices": LETTERS, "answerKey": "A"},
}


def jsonl(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet():
    table, stream = pyarrow.Table.from_pylist(ROWS), io.BytesIO()
    pyarrow.parquet.write_table(table, stream)
    return stream.getvalue()


def gguf():
    with tempfile.TemporaryDirectory() as place:
        return tiny.gguf(Path(place) / "tiny.gguf").read_bytes()


@functools.cache
def made(name):
    """Return a folder of this process, and what a run has left in it."""
    place = Path(tempfile.mkdtemp(prefix="readers-"))
    MAKERS[name](place)
    unsealed(place)
    return place


def unsealed(place):
    """Take the digests out of the documents below a folder: with them, a file that is bent would be read no further."""
    for file in place.rglob("*.json"):
        if text := file.read_text():
            kept = {key: value for key, value in json.loads(text).items() if key not in (SEAL, FILES)}
            file.write_text(json.dumps(kept))


def a_shard(place):
    scan_shard(tiny.llama(), tiny.tokenizer(), tiny.documents(), place, number=1, of=1, **OPTIONS)


class Stop(Exception):
    pass


def a_state(place):
    def stop(state):
        if state.done >= 250:
            raise Stop

    try:
        scan(*scanned(), checkpoints=Checkpoints(place, 1, "tokens"), on_progress=stop, **OPTIONS)
    except Stop:
        (last,) = place.iterdir()
        last.rename(place / "after-1")


def a_scan(place):
    moments = place / "moments"
    scan(*scanned(), keep_moments=moments, **OPTIONS)
    (place / "result.json").touch()  # what makes it a scan


def a_cache(place):
    ids = torch.arange(4)
    TeacherCache(place, "x", 2, 1.0).put(ids, TopK(torch.zeros(4, 2), torch.zeros(4, 2).long(), torch.zeros(4)))


def some_maps(place):
    each = [(AffineMap(torch.ones(4, 4), torch.ones(4)),) for _ in range(3)]
    Maps(*each, (1.0, 2.0), {"model": "x"}).save(place)


def some_arrays(place):
    (place / "result.json").write_text(sample(results.ScanResult).to_json())
    (place / folder.ARRAYS).write_bytes(safetensors.numpy.save({"eigenvalues": np.ones((1, 4))}))


MAKERS = {
    "shard": a_shard,
    "state": a_state,
    "scan": a_scan,
    "cache": a_cache,
    "maps": some_maps,
    "arrays": some_arrays,
}


def scanned():
    return tiny.llama(), tiny.tokenizer(), tiny.documents()


@functools.cache
def model():
    return scanned()


def whole_state(path):
    root = next(parent for parent in path.parents if (parent / "after-1").is_dir())
    return Checkpoints(root, 1, "tokens", share={"processes": 1}).take_up(ready(*model(), **OPTIONS))


def whole_shard(path):
    root = next(parent for parent in path.parents if (parent / "shard.json").is_file())
    shards = Shards.of([root])
    shards.lack()
    with tempfile.TemporaryDirectory() as out:
        shards.save(Path(out))


def a_log(path):
    log = Log.open(path.parent, "smoke")
    return [log.seconds(name) for name in log.runs if not log.finished(name, [])]


def a_checkpoint(path):
    root = path.parent.parent
    find_checkpoints(str(root))
    last, _ = last_checkpoint(root, "remove it")
    return last and made_with(last, "remove it")


def texts(path):
    return list(read_text(str(path)).documents())


def fixed(data):
    return lambda: data


def of(name, file):
    return lambda: (made(name) / file).read_bytes()


def kept(name, file, form, read):
    """Return a reader of one of the files of a folder that is made once."""
    return Reader(file, form, of(name, file), read, lambda: made(name))


def window_of_a_cache():
    return next(made("cache").glob("*.safetensors")).name


BOOKS = {"args": {"windows": "x"}, "attributes": {"seconds": 1.0, "points": [[1, 2, 3.0, 4.0]]}}
STATE = {"global_step": 3, "stateful_callbacks": {Books.__name__: BOOKS}}
RUNS = {"schema": 1, "kind": "runs", "scale": "smoke", "runs": {"a": {"command": ["x"], "seconds": 1.0}}}
VERDICTS = ({"settings": {"a": 1}}, {"asked": "divergence", "removed": [1, 2], "value": 0.5, "passed": 7})
GRADED = {"prompt": 0, "sample": 0, "judge": "x", "repeat": 0, "grades": {"plot": 3}}
GRADES = (
    {"settings": {"a": 1}},
    {"completion": {"prompt": 0, "sample": 0, "start": "a", "text": "b"}},
    {"graded": GRADED},
)
ANSWER = {"grammar": 5, "creativity": 5, "consistency": 5, "plot": 5}
LAMBADA = ({"text": "one two three"}, {"context": "one", "continuation": " two"})


def document(name, kind, read):
    return Reader(name, "json", lambda: sample(kind).to_json().encode(), read)


def of_a_folder(name, kind):
    return document(name, kind, lambda path: kind.from_dict(folder.read_document(path, name, "x")[1]))


DOCUMENTS = {
    "result.json": results.ScanResult,
    "tokens.json": results.TokensResult,
    "trace.json": results.TraceResult,
    "delta.json": results.DeltaResult,
    "probe.json": results.ProbeResult,
    "finetune.json": results.FinetuneResult,
    "reproduction.json": results.ReproductionResult,
}
assert DOCUMENTS.keys() == KINDS.keys()

READERS = {
    "text": Reader("text.txt", "text", fixed(TEXT.encode()), texts),
    "text of rows": Reader("rows.jsonl", "lines", fixed(jsonl(*ROWS)), texts),
    "text, packed": Reader("text.txt.gz", "text", fixed(gzip.compress(TEXT.encode(), mtime=0)), texts),
    "rows, packed": Reader("rows.jsonl.gz", "lines", fixed(gzip.compress(jsonl(*ROWS), mtime=0)), texts),
    "text of parquet": Reader("rows.parquet", "parquet", parquet, texts),
    "prompts": Reader("prompts.txt", "text", fixed(TEXT.encode()), lambda path: read_prompts(str(path))),
    "prompts in YAML": Reader(
        "prompts.yaml", "yaml", fixed(b"- One day\n- 'The cat'\n- \"and\"\n"), lambda path: read_prompts(str(path))
    ),
    "prompts in rows": Reader("p.jsonl", "lines", fixed(jsonl(*ROWS[:3])), lambda path: read_prompts(str(path))),
    "task": Reader("task.jsonl", "lines", fixed(jsonl(*ROWS)), lambda path: read_task(str(path))),
    "task in parquet": Reader("task.parquet", "parquet", parquet, lambda path: read_task(str(path))),
    "pairs": Reader("pairs.jsonl", "lines", fixed(jsonl(*ROWS)), lambda path: read_pairs(str(path))),
    "passages": Reader("l.jsonl", "lines", fixed(jsonl(*LAMBADA)), lambda path: list(read_passages(str(path)))),
    **{
        name: Reader(
            f"{name}.jsonl",
            "lines",
            fixed(jsonl(row, row)),
            lambda path, benchmark=BENCHMARKS[name]: [list(benchmark.examples(row)) for row in rows_of(str(path))],
        )
        for name, row in FIELDS.items()
    },
    "recipe": Reader(
        "recipe.yaml",
        "yaml",
        lambda: Recipe(text=("a.txt",), tokens=1000, layers=(1, 2)).to_yaml().encode(),
        lambda path: Recipe.load(path).check(),
    ),
    "sums": Reader(SUMS, "text", fixed(b"0" * 64 + b"  result.json\n"), lambda path: checksums.verify(path.parent)),
    "verdicts": Reader("verdicts.jsonl", "lines", fixed(jsonl(*VERDICTS)), lambda path: Verdicts(path, {"a": 1})),
    "grades": Reader("journal.jsonl", "lines", fixed(jsonl(*GRADES)), lambda path: Grades(path, {"a": 1})),
    "an answer": Reader(
        "answer.txt", "json", fixed(json.dumps(ANSWER).encode()), lambda path: parse(path.read_text(errors="replace"))
    ),
    "profile": Reader("linearity.jsonl", "lines", fixed(jsonl({"step": 1}, {"step": 9})), lambda path: _up_to(path, 5)),
    "runs": Reader("runs.json", "json", fixed(json.dumps(RUNS).encode()), a_log),
    "checkpoint": Reader("checkpoint-3/trainer_state.json", "json", fixed(json.dumps(STATE).encode()), a_checkpoint),
    "checkpoint by its step": Reader(
        "run/trainer_state.json",
        "json",
        fixed(json.dumps(STATE).encode()),
        lambda path: find_checkpoints(checkpoints=str(path.parent)),
    ),
    "cache": kept("cache", "cache.json", "json", lambda path: TeacherCache(path.parent, "x", 2, 1.0)),
    "window of a cache": Reader(
        "window.safetensors",
        "safetensors",
        lambda: (made("cache") / window_of_a_cache()).read_bytes(),
        lambda path: TeacherCache(path.rename(path.with_name(window_of_a_cache())).parent, "x", 2, 1.0).get(
            torch.arange(4)
        ),
        lambda: made("cache"),
    ),
    "state": kept("state", "after-1/state.json", "json", whole_state),
    "layer of a state": kept("state", "after-1/layer-001.safetensors", "safetensors", whole_state),
    "stream of a state": kept("state", "after-1/stream.safetensors", "safetensors", whole_state),
    "spans of a state": kept("state", "after-1/spans.safetensors", "safetensors", whole_state),
    "shard": kept("shard", "shard.json", "json", whole_shard),
    "state of a shard": kept("shard", "fit/state.json", "json", whole_shard),
    "kept moments": kept(
        "scan",
        "moments/moments.json",
        "json",
        lambda path: Maps.load(KeptMoments.load(path.parent.parent).folder.parent),
    ),
    "moments": kept(
        "scan", "moments/layer-001.fit.ordinary.safetensors", "safetensors", lambda path: Maps.load(path.parent.parent)
    ),
    "moments alone": Reader(
        "m.safetensors", "safetensors", of("scan", "moments/layer-001.fit.ordinary.safetensors"), Moments.load
    ),
    "maps": kept("maps", "maps.safetensors", "safetensors", lambda path: Maps.load(path.parent)),
    "arrays": kept("arrays", folder.ARRAYS, "safetensors", lambda path: folder.load(path.parent)),
    "model in GGUF": Reader("tiny.gguf", "bytes", gguf, config_of),
    **{name: document(name, kind, lambda path: kind_of(path).load(path)) for name, kind in DOCUMENTS.items()},
    "sweep.json": of_a_folder("sweep.json", SweepResult),
    "eval.json": of_a_folder("eval.json", EvalResult),
    "plan.json": document("plan.json", Plan, Plan.load),
    "judge.json": document("judge.json", JudgeResult, lambda path: grades([path.parent, path.parent])),
}


def holds(reader, place, data):
    """Let a reader read what a file holds now: a RectilinearError says something, a result can be written again."""
    path = reader.put(place)
    path.write_bytes(data)
    with bounded():
        try:
            found = reader.read(path)
        except RectilinearError as error:
            assert str(error).strip()
        else:
            assert not hasattr(found, "to_json") or found.to_json()
