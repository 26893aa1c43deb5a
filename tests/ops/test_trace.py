import os
import shutil
from dataclasses import replace

import pytest

import rectilinear
import tiny
from preempted import sigterm, terminated
from rectilinear.errors import ModelError, NonFiniteError, ResultError, TextError
from rectilinear.models import load as loading
from rectilinear.ops import passes
from rectilinear.ops import trace as tracing
from rectilinear.ops.trace import outline
from training import STEPS, save_run

TEXTS = tiny.documents(40)
SIZES = {"window": 32, "device": "cpu"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def result(run):
    return rectilinear.trace(str(run), TEXTS, **SIZES)


@pytest.fixture
def copy(run, tmp_path):
    """A run of one's own to spoil."""
    return shutil.copytree(run, tmp_path / "run")


@pytest.fixture
def scanned(monkeypatch):
    """The models scanned, in order."""
    names = []

    def scan(model, *arguments, **options):
        names.append(os.path.basename(model.config._name_or_path))  # noqa: PTH119  not always a path
        return rectilinear.scan(model, *arguments, **options)

    monkeypatch.setattr(tracing, "scan", scan)
    return names


def test_every_checkpoint_is_scanned_as_it_would_be_alone(run, result):
    assert [point.step for point in result.points] == list(STEPS)
    for point in result.points:
        model, tokenizer = rectilinear.load(str(run / point.name), device="cpu")
        alone = rectilinear.scan(model, tokenizer, TEXTS, window=32)
        for ours, theirs in zip(point.layers, alone.layers, strict=True):
            assert (ours.score, ours.increment, ours.norm_ratio) == (theirs.score, theirs.increment, theirs.norm_ratio)
        summary = alone.summary()
        for kind in ("score", "increment"):
            mean = getattr(point, kind)
            assert {k: getattr(mean, k) for k in ("paper", "heldout", "ordinary")} == summary[kind]
            assert mean.heldout_low < mean.heldout < mean.heldout_high
            assert mean.ordinary_low is None
    assert len({point.fingerprint for point in result.points}) == len(STEPS)
    assert result.provenance["tokens"] == 1600 and result.provenance["steps"] == list(STEPS)


def test_a_document_comes_back_as_it_was(result):
    assert rectilinear.TraceResult.from_dict(result.to_dict()) == result
    with pytest.raises(ResultError, match="schema 1, got kind 'trace' of schema 9"):
        rectilinear.TraceResult.from_dict({**result.to_dict(), "schema": 9})
    with pytest.raises(ResultError, match="damaged"):
        rectilinear.TraceResult.from_dict({**result.to_dict(), "checkpoints": [{"step": 1}]})


def test_nothing_held_out_leaves_the_papers_scores(run):
    result = rectilinear.trace(str(run), TEXTS, holdout=0, **SIZES)
    assert all(point.score.heldout is point.score.heldout_low is None for point in result.points)
    assert all(0 < point.increment.paper < 1 for point in result.points)


def test_a_text_is_read_once_and_warnings_are_said_once(run):
    result = rectilinear.trace(str(run), iter(TEXTS), tokens=2000, **SIZES)
    assert result.warnings == ("The text has 1,600 tokens, fewer than the 2,000 asked for: all used.",)
    half = replace(result, points=result.points[:1])
    assert "3 of 4 checkpoints are not scanned yet" in half.warnings[-1]
    some = replace(result.points[0], warnings=("odd",))
    assert "Step 0: odd" in replace(result, points=(some, *result.points[1:])).warnings


def test_a_checkpoint_that_cuts_the_text_otherwise_is_refused_by_name(copy, scanned):
    other = tiny.tokenizer()
    other.add_tokens(["w1 w2", TEXTS[3][:9]])
    other.save_pretrained(copy / "checkpoint-20")
    with pytest.raises(ModelError, match="checkpoint-0 and checkpoint-20, which cut the text otherwise"):
        rectilinear.trace(str(copy), TEXTS, **SIZES)
    assert not scanned


def test_all_checkpoints_are_looked_at_before_the_first_is_scanned(copy, scanned):
    shutil.rmtree(copy / "checkpoint-4")
    save_run(copy, (4,), num_hidden_layers=2)
    with pytest.raises(ModelError, match="checkpoint-0 of 3 layers and width 32, and checkpoint-4 of 2 and 32"):
        rectilinear.trace(str(copy), TEXTS, **SIZES)
    shutil.rmtree(copy / "checkpoint-4")
    (copy / "checkpoint-100" / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"expected weights .*checkpoint-100, got none"):
        rectilinear.trace(str(copy), TEXTS, **SIZES)
    assert not scanned


def test_a_checkpoint_that_diverged_is_named_and_what_came_before_is_kept(copy):
    model, _ = rectilinear.load(str(copy / "checkpoint-20"), device="cpu")
    model.model.embed_tokens.weight.data[:] = float("nan")
    model.save_pretrained(copy / "checkpoint-20")
    kept = []
    with pytest.raises(NonFiniteError, match="checkpoint-20: the embedding gave a NaN"):
        rectilinear.trace(str(copy), TEXTS, on_scan=lambda result, scan: kept.append(result), **SIZES)
    assert [point.step for point in kept[-1].points] == [0, 4]


def test_a_trace_goes_on_where_it_stopped(run, result, scanned):
    class Stop(Exception):
        pass

    kept = []

    def stop(so_far, scan):
        kept.append(so_far)
        if len(kept) == 2:
            raise Stop

    with pytest.raises(Stop):
        rectilinear.trace(str(run), TEXTS, on_scan=stop, **SIZES)
    assert [point.step for point in kept[-1].points] == [0, 4]
    told = outline(str(run), done=kept[-1], tokens=1600, **SIZES)
    assert [one.scanned for one in told.checkpoints] == [True, True, False, False]
    del scanned[:]
    again = rectilinear.trace(f"{run}/", TEXTS, done=kept[-1], **SIZES)
    assert scanned == ["checkpoint-20", "checkpoint-100"]
    assert [point.layers for point in again.points] == [point.layers for point in result.points]


def test_the_scan_under_way_goes_on_too(run, tmp_path, monkeypatch):
    options = {**SIZES, "batch_tokens": 256}
    run_batch, calls, kept = passes.run_batch, [], []

    def counted(*arguments):
        calls.append(1)
        return run_batch(*arguments)

    def preempted(*arguments):
        if len(calls) == 10:
            sigterm()
        return counted(*arguments)

    monkeypatch.setattr(passes, "run_batch", counted)
    whole = rectilinear.trace(str(run), TEXTS, **options)
    batches = len(calls)
    calls.clear()
    monkeypatch.setattr(passes, "run_batch", preempted)
    with terminated():
        rectilinear.trace(str(run), TEXTS, states=tmp_path, on_scan=lambda so_far, scan: kept.append(so_far), **options)
    assert len(kept) == 1 and [path.name for path in tmp_path.iterdir()] == ["step-4"]
    again = rectilinear.trace(str(run), TEXTS, states=tmp_path, done=kept[0], **options)
    assert len(calls) == batches  # none twice
    assert [point.layers for point in again.points] == [point.layers for point in whole.points]
    assert not tmp_path.exists()


def test_checkpoints_may_come_go_and_change(copy, scanned):
    late = (copy / "checkpoint-100").rename(copy.parent / "late")
    first = rectilinear.trace(str(copy), TEXTS, **SIZES)
    late.rename(copy / "checkpoint-100")
    shutil.rmtree(copy / "checkpoint-0")
    replaced(copy / "checkpoint-4" / "model.safetensors", weights_of(copy, 20), -3600)
    del scanned[:]
    result = rectilinear.trace(str(copy), TEXTS, done=first, **SIZES)
    assert scanned == ["checkpoint-4", "checkpoint-100"]
    assert [point.step for point in result.points] == result.provenance["steps"] == list(STEPS)
    assert result.points[1].layers == result.points[2].layers == first.points[2].layers
    assert result.points[0] == first.points[0]  # of what is gone


def weights_of(run, step):
    return (run / f"checkpoint-{step}" / "model.safetensors").read_bytes()


def replaced(file, content, age):
    """Put other content in a file, with another time than that of the writing, as rsync -t, cp -p or a clock may."""
    then = file.stat().st_mtime + age
    file.write_bytes(content)
    os.utime(file, (then, then))


def test_weights_that_are_the_same_are_not_scanned_again_whatever_their_time(copy, result, scanned):
    replaced(copy / "checkpoint-4" / "model.safetensors", weights_of(copy, 4), 3600)
    before = replace(result, provenance={**result.provenance, "model": str(copy)})
    assert rectilinear.trace(str(copy), TEXTS, done=before, **SIZES).points == result.points and not scanned
    replaced(copy / "checkpoint-4" / "model.safetensors", weights_of(copy, 20), -3600)
    told = outline(str(copy), done=before, **SIZES).checkpoints
    assert [one.step for one in told if not one.scanned] == [4]


def test_a_trace_of_an_earlier_version_goes_by_the_time(copy, result, scanned):
    document = replace(result, provenance={**result.provenance, "model": str(copy)}).to_dict()
    for point in document["checkpoints"]:
        del point["weights"]
    before = rectilinear.TraceResult.from_dict(document)
    replaced(copy / "checkpoint-4" / "model.safetensors", weights_of(copy, 4), 3600)
    again = rectilinear.trace(str(copy), TEXTS, done=before, **SIZES)
    assert scanned == ["checkpoint-4"]
    assert again.points[1].weights == result.points[1].weights and again.points[0].weights is None


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"window": 16}, "window 16, which was 32"),
        ({"tokens": 800}, "tokens 800, which was 1600"),
        ({"seed": 1}, "seed 1, which was 0"),
        ({"holdout": 0.5}, "holdout 0.5, which was 0.25"),
        ({"dtype": "bfloat16"}, "dtype bfloat16, which was float32"),
        (
            {"sink_multiple": 3.0, "layers_path": "model.layers"},
            "sink_multiple 3.0, .*, layers_path model.layers, which",
        ),
    ],
)
def test_another_setting_is_named_and_refused(run, result, scanned, changed, said):
    with pytest.raises(ResultError, match=said):
        rectilinear.trace(str(run), TEXTS, done=result, **{**SIZES, **changed})
    assert not scanned


def test_another_run_or_text_is_refused(run, copy, result):
    with pytest.raises(ResultError, match=r"expected the settings .* model "):
        rectilinear.trace(str(copy), TEXTS, done=result, **SIZES)
    with pytest.raises(ResultError, match="got another under the name texts given in Python"):
        rectilinear.trace(str(run), tiny.documents(40, seed=1), done=result, **SIZES)


def test_revisions_are_loaded_each_by_its_name(run, result, monkeypatch):
    """Stands in for the Hub: every function that loads finds a revision in the folder of its step."""

    def here(function):
        def loaded(model, *, revision, **options):
            assert model == "org/model"
            return function(str(run / revision.replace("step", "checkpoint-")), **options)

        return loaded

    for name in ("load", "load_tokenizer", "check_found", "skeleton"):
        monkeypatch.setattr(tracing, name, here(getattr(loading, name)))
    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_refs", lambda self, model: 1 / 0)
    traced = rectilinear.trace("org/model", TEXTS, revisions="step100,step4", **SIZES)
    assert [(one.step, one.name, one.revision) for one in traced.points] == [
        (s, f"step{s}", f"step{s}") for s in (4, 100)
    ]
    assert [one.layers for one in traced.points] == [result.points[1].layers, result.points[3].layers]


def test_progress_counts_all_checkpoints(run):
    seen = []
    rectilinear.trace(str(run), TEXTS, on_progress=seen.append, batch_tokens=512, **SIZES)
    work = [state for state in seen if state.total]
    assert {state.total for state in work} == {4 * 1600}
    assert [state.done for state in work] == sorted(state.done for state in work)
    assert work[-1].done == 4 * 1600 and "step 100, 4 of 4, mean held-out score" in work[-1].said


def test_an_outline_reads_neither_weights_nor_text(run):
    told = outline(str(run), tokens=1600, **SIZES)
    assert told.scan.layers == 3 and told.scan.tokens == 1600
    assert not any(one.scanned for one in told.checkpoints)
    assert 0 < told.seconds < 10
    assert outline(str(run), tokens="all", **SIZES).seconds is None


def test_wrong_options_are_said_before_anything_is_scanned(run, scanned):
    for options, kind, said in (
        ({"layers_path": "nope"}, ModelError, "nope"),
        ({"holdout": 2}, TextError, "holdout"),
        ({"tokens": 8}, TextError, "at least one window"),
    ):
        with pytest.raises(kind, match=said):
            rectilinear.trace(str(run), TEXTS, **{**SIZES, **options})
    assert not scanned
