"""A disk that fills up in the middle of every kind of write: one line, nothing half-written, what was there stays."""

import json
import shutil

import pytest
from typer.testing import CliRunner

import tiny
from disk import full_after, held, refused, sizes
from grader import GOOD, grader
from healing import Stop, healed, until
from rectilinear.cli.main import app
from rectilinear.errors import RectilinearError, ResultError
from rectilinear.ops.judging.client import Client
from rectilinear.ops.judging.run import Settings, judge
from rectilinear.ops.maps import fit_maps
from rectilinear.ops.pretrain import pretrain
from rectilinear.ops.prune import prune
from rectilinear.ops.scan import scan

SMALL = {"window": 32, "batch_tokens": 128}


@pytest.fixture(scope="module")
def dense():
    return tiny.llama(num_hidden_layers=5, initializer_range=0.15)


@pytest.fixture(scope="module")
def texts():
    return [text + " " for text in tiny.documents(60)]


@pytest.fixture(scope="module")
def cut(dense, texts):
    return prune(dense, tiny.tokenizer(), texts=texts, layers=[1, 3], repair="refit", tokens=None, window=32)


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Leave the figures out, which take seconds."""
    monkeypatch.setattr("rectilinear.report.plots.scan_figures", lambda result: {})


@pytest.mark.parametrize("what", ["scan", "cut"])
def test_a_folder_stays_as_it_was(what, dense, texts, cut, tmp_path):
    result = scan(dense, tiny.tokenizer(), texts, **SMALL) if what == "scan" else cut
    out = result.save(tmp_path / "out")
    (out / "mark").write_text("of the first")
    before = held(tmp_path)
    for limit in sizes(out):
        refused(lambda: result.save(out, force=True), limit)
        assert held(tmp_path) == before, limit
        refused(lambda: result.save(tmp_path / "another"), limit)
        assert held(tmp_path) == before, limit
    assert result.save(out, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_moments_that_do_not_fit_leave_no_part(dense, texts, tmp_path):
    scan(dense, tiny.tokenizer(), texts, keep_moments=tmp_path / "good", **SMALL)
    for number, limit in enumerate(sizes(tmp_path / "good")):
        folder = tmp_path / f"full-{number}"
        refused(lambda folder=folder: scan(dense, tiny.tokenizer(), texts, keep_moments=folder, **SMALL), limit)
        assert not list(folder.glob("*.part")) and not list(folder.glob("*.json"))


def test_maps_that_do_not_fit_leave_the_old_ones(dense, texts, tmp_path):
    maps = fit_maps(dense, tiny.tokenizer(), texts, **SMALL)
    maps.save(tmp_path)
    before = held(tmp_path)
    for limit in sizes(tmp_path):
        with full_after(limit), pytest.raises(OSError, match="too large"):
            maps.save(tmp_path)
        assert held(tmp_path) == before


def test_a_cache_of_teacher_logits_stays_whole(dense, texts, cut, tmp_path):
    cache = tmp_path / "cache"
    with full_after(100), pytest.raises(ResultError, match=r"cannot use the cache .*too large"):
        healed(cut, dense, tiny.tokenizer(), texts, cache_teacher=cache)
    assert held(tmp_path) == {}
    refused(lambda: healed(cut, dense, tiny.tokenizer(), texts, cache_teacher=cache), 500)
    assert list(held(cache)) == ["cache.json"]
    assert healed(cut, dense, tiny.tokenizer(), texts, cache_teacher=cache)


def test_a_healing_goes_on_from_the_checkpoint_before_a_full_disk(dense, texts, cut, tmp_path):
    kept = tmp_path / "kept"

    def heal(**own):
        return healed(cut, dense, tiny.tokenizer(), texts, steps=20, rate=1e-3, train="repaired", **own)

    whole = heal()
    for limit in (0, 100, 10_000):
        refused(lambda: heal(checkpoints=kept), limit)
        assert held(tmp_path) == {}
    with pytest.raises(Stop):
        heal(checkpoints=kept, on_progress=until(5))
    before = held(kept)
    for limit in (0, 1000, 10_000):
        refused(lambda: heal(checkpoints=kept, resume=True), limit)
        assert held(kept) == before
    assert [p.loss for p in heal(checkpoints=kept, resume=True).result.history] == [
        p.loss for p in whole.result.history
    ]


def test_a_pretraining_goes_on_from_the_checkpoint_before_a_full_disk(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("\n<|endoftext|>\n".join(tiny.documents(120)))
    asked = {"text": (str(text),), "vocab": 300, "window": 32, "batch": 2, "tokens": 384, "checkpoints": 2}
    whole = pretrain(tmp_path / "whole", **asked)
    for limit in (0, 1000, 100_000):
        refused(lambda: pretrain(tmp_path / "out", **asked), limit)
        assert not (tmp_path / "out").exists()

    def stop(state):
        if state.task == "training" and state.done >= 5 * 64:
            raise Stop

    with pytest.raises(Stop):
        pretrain(tmp_path / "out", on_progress=stop, **asked)
    before = {name: content for name, content in held(tmp_path / "out").items() if name.startswith("checkpoint-")}
    refused(lambda: pretrain(tmp_path / "out", resume=True, **asked), 100_000)
    assert before.items() <= held(tmp_path / "out").items()
    assert pretrain(tmp_path / "out", resume=True, **asked).checkpoints == whole.checkpoints


def test_gradings_that_were_kept_are_not_asked_for_again(dense, tmp_path):
    pytest.importorskip("openai", reason="needs the extra judge")
    journal = tmp_path / "kept.jsonl"

    def grade(url):
        settings = Settings(judges=("referee",), tokens=5, parallel=1)
        return judge(dense, tiny.tokenizer(), ("w1 w2", "w3"), Client(url, "k"), settings, journal=journal)

    with grader(lambda number, body: GOOD) as (url, seen):
        whole = grade(url)
        for size in (0, 100, 400, 600):
            refused(lambda: grade(url), size)
        kept = sum(line.startswith(b'{"graded"') for line in journal.read_bytes().split(b"\n")[:-1])
        asked = len(seen)
        done = grade(url)
    assert done.graded == whole.graded and done.completions == whole.completions
    assert len(seen) - asked == 2 - kept


@pytest.fixture(scope="module")
def made(folder, tmp_path_factory):
    """What commands read: a text, two shards with their maps, and two scans."""
    root = tmp_path_factory.mktemp("made")
    (root / "docs.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in tiny.documents(60)))
    shared = [str(folder), "--text", str(root / "docs.jsonl"), "--window", "32"]
    for out, *more in (
        ("fit-1", "--shard", "1/2"),
        ("fit-2", "--shard", "2/2"),
        ("a", "--tokens", "1200"),
        ("b", "--tokens", "1200", "--seed", "1"),
    ):
        run(["scan", *shared, *more, "--out", str(root / out)])
    return root


def run(arguments):
    done = CliRunner().invoke(app, arguments)
    if isinstance(done.exception, RectilinearError):  # `main` tells it in one line, with exit code 2
        raise done.exception
    assert done.exit_code == 0, done.output


COMMANDS = {
    "shard": "scan MODEL --text MADE/docs.jsonl --window 32 --shard 1/2 --force --out OUT",
    "merge": "merge MADE/fit-1 MADE/fit-2 --force --out OUT",
    "compare": "compare MADE/a MADE/b --force --out OUT",
    "delta": "delta MADE/a MADE/b --force --out OUT",
    "tokens": "tokens MODEL --text MADE/docs.jsonl --window 32 --tokens 1200 --prompt w1 --force --out OUT",
    "eval": "eval MODEL --text MADE/docs.jsonl --tokens 600 --window 32 --force --out OUT",
    "sweep": "prune MODEL --text MADE/docs.jsonl --sweep 0:1 --select bi --repair none --window 32 --force --out OUT",
    "report": "report OUT",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_leaves_what_was_there(name, made, folder, tmp_path):
    out = tmp_path / "out"
    arguments = [
        word.replace("MADE", str(made)).replace("MODEL", str(folder)).replace("OUT", str(out))
        for word in COMMANDS[name].split()
    ]
    if name == "report":
        shutil.copytree(made / "a", out)
    run(arguments)
    (out / "mark").touch()
    before = held(tmp_path)
    pages = [len(content) for name, content in before.items() if name.endswith(".html")]
    refused(lambda: run(arguments), max(pages or map(len, before.values())) // 2)
    assert held(tmp_path) == before


def test_the_sets_that_a_search_has_tried_stay(dense, texts, tmp_path):
    journal = tmp_path / "tried.jsonl"

    def cut():
        return prune(dense, tiny.tokenizer(), texts=texts, remove=2, select="kl", window=32, journal=journal)

    whole = cut()
    size = journal.stat().st_size
    journal.unlink()
    refused(cut, 0)
    refused(cut, size // 2)
    kept = journal.read_bytes().split(b"\n")
    refused(cut, size - 1)
    assert journal.read_bytes().split(b"\n")[: len(kept) - 1] == kept[:-1] and len(kept) > 2
    assert cut().result.plan.layers == whole.result.plan.layers
