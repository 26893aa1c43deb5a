import json
import shutil
from types import SimpleNamespace

import pytest

import tiny
from rectilinear.errors import ModelError
from rectilinear.models.checkpoints import find_checkpoints
from rectilinear.models.load import check_found, load
from rectilinear.models.revisions import PYTHIA, revision_names, spread, step_in
from training import STEPS, save_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("runs") / "run")


def bare(root, *names, **state):
    """Make folders that hold nothing but, where given, a Trainer's state."""
    for name in names:
        (root / name).mkdir(parents=True)
        if state:
            (root / name / "trainer_state.json").write_text(json.dumps(state))
    return root


def test_a_folder_gives_its_checkpoints_in_the_order_of_steps(run):
    found = find_checkpoints(str(run))
    assert [(one.step, one.name) for one in found] == [(step, f"checkpoint-{step}") for step in STEPS]
    assert load(found[2].model, device="cpu")[0].config.num_hidden_layers == 3


def test_the_final_model_counts_where_it_is_of_a_later_step(run, tmp_path):
    top = shutil.copytree(run, tmp_path / "run")
    tiny.llama().save_pretrained(top)
    assert [one.step for one in find_checkpoints(str(top))] == list(STEPS)  # of what step is not known
    for step, found in ((100, list(STEPS)), (101, [*STEPS, 101])):
        (top / "trainer_state.json").write_text(json.dumps({"global_step": step}))
        assert [one.step for one in find_checkpoints(str(top))] == found
    assert find_checkpoints(str(top))[-1].model == str(top)


def test_a_pattern_gives_folders_and_a_state_their_steps(run, tmp_path):
    found = find_checkpoints(checkpoints=f"{run}/checkpoint-?0*")
    assert [one.step for one in found] == [20, 100]
    for step in (5, 50):
        bare(tmp_path, f"run-{step}/final", global_step=step)
    found = find_checkpoints(checkpoints=str(tmp_path / "run-*" / "final"))
    assert [(one.step, one.name) for one in found] == [(s, str(tmp_path / f"run-{s}" / "final")) for s in (5, 50)]


def test_what_gives_no_checkpoints_is_said(run, tmp_path):
    bare(tmp_path, "empty", "run/checkpoint-last", "twice/a-step5", "twice/b-step5")
    bare(tmp_path, "half/checkpoint-x", global_step="5")
    for options, said in (
        ({}, "got none"),
        ({"model": "org/model"}, "a model on the Hub needs --revisions"),
        ({"model": str(tmp_path / "empty")}, "no checkpoint-STEP folders in"),
        ({"model": str(tmp_path / "run")}, "the step of .*checkpoint-last is not known"),
        ({"model": str(tmp_path / "half")}, "the step of .*checkpoint-x is not known"),
        ({"checkpoints": str(tmp_path / "none-*")}, "no folder matches .*none-"),
        ({"checkpoints": str(tmp_path / "twice" / "*")}, "got [ab]-step5 and [ab]-step5 of 5"),
        ({"revisions": "step1"}, "--revisions with a model on the Hub"),
        ({"model": "org/model", "revisions": "step1", "checkpoints": "x"}, "without --checkpoints"),
        ({"model": str(run), "revisions": "step1"}, "which is here"),
        ({"model": "org/model", "revisions": "main"}, "with a step in their names, like step512, got 'main'"),
        ({"model": "org/model", "revisions": " , "}, "got none"),
    ):
        with pytest.raises(ModelError, match=said) as error:
            find_checkpoints(**options)
        assert "\n" not in str(error.value)


def test_steps_are_read_from_names():
    names = ("step512", "checkpoint-500", "step1000-tokens4B", "intermediate-step-480k-1T", "step_3", "main", "epoch-2")
    assert [step_in(name) for name in names] == [512, 500, 1000, 480_000, 3, None, None]


def test_the_steps_of_pythia():
    names = revision_names("pythia")
    assert len(names) == 154
    assert names[:4] == ("step0", "step1", "step2", "step4") and names[10:12] == ("step512", "step1000")
    assert names[-1] == "step143000"


def test_some_of_pythias_steps_spread_over_all_magnitudes():
    assert revision_names("pythia:2") == ("step0", "step143000")
    eight = spread("8")
    assert (eight[0], eight[-1]) == (0, 143_000)
    # Even steps would have one below 1000.
    assert sum(step < 1000 for step in eight) >= 4
    assert all(len(set(spread(str(n)))) == n for n in range(2, 155))
    assert spread("154") == PYTHIA
    for wrong in ("1", "155", "few", ""):
        with pytest.raises(ModelError, match="N from 2 to 154"):
            revision_names(f"pythia:{wrong}")


def test_a_revision_that_does_not_exist_lists_near_ones(monkeypatch):
    refs = SimpleNamespace(branches=[SimpleNamespace(name=f"step{step}") for step in PYTHIA], tags=[])
    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_refs", lambda self, model: refs)
    assert [one.revision for one in find_checkpoints("org/pythia", revisions="step512,step1")] == ["step1", "step512"]
    with pytest.raises(
        ModelError, match="no revision 'step513' of org/pythia on the Hub: near ones are step256, step512, step1000"
    ):
        find_checkpoints("org/pythia", revisions="step1,step513")
    refs.branches = [SimpleNamespace(name="main")]
    with pytest.raises(ModelError, match="it has 1, none of such a name"):
        find_checkpoints("org/pythia", revisions="step1")


def test_without_the_hub_revisions_are_taken_as_they_are(monkeypatch):
    def offline(self, model):
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_refs", offline)
    assert find_checkpoints("org/pythia", revisions="step513")[0].revision == "step513"


def test_a_missing_shard_is_named(tmp_path):
    tiny.llama().save_pretrained(tmp_path, max_shard_size="50KB")
    tiny.tokenizer().save_pretrained(tmp_path)
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 2
    check_found(str(tmp_path))
    shards[1].unlink()
    with pytest.raises(ModelError, match=f"expected {len(shards)} files of weights .*: no {shards[1].name}"):
        check_found(str(tmp_path))


def test_weights_cut_short_are_found_without_reading_them(run, tmp_path):
    place = shutil.copytree(run / "checkpoint-4", tmp_path / "short")
    weights = place / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"cannot read the weights of .*short', model\.safetensors"):
        check_found(str(place))


def test_a_checkpoint_without_a_tokenizer_takes_the_one_of_its_run(tmp_path):
    root = save_run(tmp_path / "run", (3,), tokenizer="above")
    assert load(str(root / "checkpoint-3"), device="cpu")[1]("w9")["input_ids"] == [9]
    with pytest.raises(ModelError, match="cannot load the tokenizer"):
        load(str((root / "checkpoint-3").rename(root / "other")), device="cpu")
