"""What healing reads and writes, and what it refuses."""

import json
import math
import sys

import pytest
import torch

import tiny
from disk import flip, held
from healing import OPTIONS, Stop, changed, healed, until
from preempted import sigterm, terminated
from rectilinear.errors import ModelError, NonFiniteError, RectilinearError, ResultError, TextError
from rectilinear.models.load import load
from rectilinear.models.projection import output_projection
from rectilinear.models.stack import decoder_stack
from rectilinear.ops.heal import heal
from rectilinear.ops.prune import prune
from rectilinear.ops.training.saving import last_checkpoint
from rectilinear.results import HealResult, Plan


def test_without_peft_one_line_names_the_extra(cuts, dense, tokenizer, texts, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft.tuners.lora", None)
    with pytest.raises(ModelError, match=r"rectilinear\[train\]"):
        healed(cuts["refit"], dense, tokenizer, texts, train="lora")


@pytest.mark.parametrize("train", ["repaired", "lora"])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(cuts, dense, tokenizer, texts, tmp_path, train):
    options = {"train": train, "steps": 20, "rate": 1e-3, "checkpoints": tmp_path / "kept"}
    whole = healed(cuts["refit"], dense, tokenizer, texts, train=train, steps=20, rate=1e-3)
    with pytest.raises(Stop):
        healed(cuts["refit"], dense, tokenizer, texts, on_progress=until(13), **options)
    names = {path.name for path in (tmp_path / "kept").iterdir()}
    assert names == {"checkpoint-10", "checkpoint-12"}
    assert not (tmp_path / "kept/checkpoint-12/training_args.bin").exists()
    assert (tmp_path / "kept/checkpoint-12/model.safetensors").exists()
    done = healed(cuts["refit"], dense, tokenizer, texts, resume=True, **options)
    for name, parameter in whole.model.named_parameters():
        torch.testing.assert_close(done.model.get_parameter(name), parameter, atol=0, rtol=0)
    assert [p.loss for p in done.result.history] == [p.loss for p in whole.result.history]
    assert [p.seconds for p in done.result.history] == sorted(p.seconds for p in done.result.history)


def test_a_sigterm_waits_for_the_step_and_its_checkpoint(cuts, dense, tokenizer, texts, tmp_path):
    kept, options = tmp_path / "kept", {"train": "repaired", "steps": 20, "rate": 1e-3}
    with terminated():
        healed(
            cuts["refit"],
            dense,
            tokenizer,
            texts,
            checkpoints=kept,
            on_progress=lambda state: sigterm() if state.task == "healing" and state.done == 7 * 64 else None,
            **options,
        )
    assert (kept / "checkpoint-8").is_dir()
    done = healed(cuts["refit"], dense, tokenizer, texts, checkpoints=kept, resume=True, **options)
    whole = healed(cuts["refit"], dense, tokenizer, texts, **options)
    assert [p.loss for p in done.result.history] == [p.loss for p in whole.result.history]


def test_a_checkpoint_that_a_kill_has_cut_is_passed_over(cuts, dense, tokenizer, texts, tmp_path):
    kept, options = tmp_path / "kept", {"train": "repaired", "steps": 20, "rate": 1e-3}
    with pytest.raises(Stop):
        healed(cuts["refit"], dense, tokenizer, texts, on_progress=until(13), checkpoints=kept, **options)
    (kept / "checkpoint-12/SHA256SUMS").unlink()  # it comes last
    (kept / "checkpoint-14").mkdir()
    done = healed(cuts["refit"], dense, tokenizer, texts, checkpoints=kept, resume=True, **options)
    assert not done.result.warnings
    whole = healed(cuts["refit"], dense, tokenizer, texts, **options)
    assert [p.loss for p in done.result.history] == [p.loss for p in whole.result.history]


def test_a_damaged_checkpoint_is_passed_over_with_a_note(cuts, dense, tokenizer, texts, tmp_path):
    kept, options = tmp_path / "kept", {"train": "repaired", "steps": 5, "rate": 1e-3}
    with pytest.raises(Stop):
        healed(cuts["refit"], dense, tokenizer, texts, on_progress=until(4), checkpoints=kept, **options)
    last = max(kept.glob("checkpoint-*"))
    flip(last / "model.safetensors")
    done = healed(cuts["refit"], dense, tokenizer, texts, checkpoints=kept, resume=True, **options)
    note = f"{last.name} is damaged and passed over: model.safetensors is not as it was written."
    assert note in done.result.warnings
    assert [p.step for p in done.result.history] == [1, 2, 3, 4, 5]
    for name in held(kept / "checkpoint-5"):
        before = flip(kept / "checkpoint-5" / name)
        found, notes = last_checkpoint(kept, "begin again")
        assert found == kept / "checkpoint-4" and "checkpoint-5 is damaged" in notes[0]
        (kept / "checkpoint-5" / name).write_bytes(before[:-1])
        if name != "SHA256SUMS":  # it lacks the end of its last line only
            assert last_checkpoint(kept, "begin again")[0] == kept / "checkpoint-4"
        (kept / "checkpoint-5" / name).write_bytes(before)
    assert last_checkpoint(kept, "begin again") == (kept / "checkpoint-5", ())
    for checkpoint in kept.glob("checkpoint-*"):
        (checkpoint / "optimizer.pt").unlink()
    with pytest.raises(
        ResultError, match=r"no whole checkpoint: checkpoint-5 .*optimizer.pt is missing; start again with"
    ):
        healed(cuts["refit"], dense, tokenizer, texts, checkpoints=kept, resume=True, **options)


def test_checkpoints_of_another_run_are_refused(cuts, dense, tokenizer, texts, tmp_path):
    kept = tmp_path / "kept"
    healed(cuts["refit"], dense, tokenizer, texts, checkpoints=kept, resume=True)  # nothing there: it begins
    with pytest.raises(ResultError, match="add --resume or name another"):
        healed(cuts["refit"], dense, tokenizer, texts, checkpoints=kept)
    with pytest.raises(ResultError, match=r"which had rate 0\.0001"):
        healed(cuts["refit"], dense, tokenizer, texts, checkpoints=kept, resume=True, rate=1e-3)
    for state in kept.glob("*/trainer_state.json"):
        state.write_text("{}")
        state.with_name("SHA256SUMS").unlink()  # as an earlier version wrote it
    with pytest.raises(ResultError, match="expected the books of a training"):
        healed(cuts["refit"], dense, tokenizer, texts, checkpoints=kept, resume=True)


def test_checkpoints_whose_weights_would_be_passed_over_are_refused(cuts, dense, tokenizer, texts, tmp_path):
    from safetensors.torch import load_file, save_file

    options = {"checkpoints": tmp_path / "kept", "train": "repaired"}
    healed(cuts["refit"], dense, tokenizer, texts, **options)
    path = tmp_path / "kept/checkpoint-3/model.safetensors"
    for sums in path.parents[1].glob("*/SHA256SUMS"):
        sums.unlink()
    save_file({f"other.{name}": tensor for name, tensor in load_file(path).items()}, path)
    with pytest.raises(ModelError, match=r"name weights otherwise than it does \(other\..*heal without --resume"):
        healed(cuts["refit"], dense, tokenizer, texts, resume=True, **options)


def test_a_cached_teacher_gives_the_same_losses(cuts, dense, tokenizer, texts, tmp_path):
    options = {"steps": 6, "top_k": 20, "protocol": "documents"}
    live = healed(cuts["refit"], dense, tokenizer, texts, **options)
    first = healed(cuts["refit"], dense, tokenizer, texts, cache_teacher=tmp_path, **options)
    files = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    calls = []
    hook = dense.register_forward_hook(lambda *_: calls.append(1))
    second = healed(cuts["refit"], dense, tokenizer, texts, cache_teacher=tmp_path, **options)
    hook.remove()
    judging = calls.copy()
    assert len(judging) == 2 * 2  # held-out windows only, before and after
    losses = [[point.loss for point in done.result.history] for done in (live, first, second)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6) and losses[1] == losses[2]
    assert files == {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}


def test_a_cache_of_something_else_is_refused_in_one_line(cuts, dense, tokenizer, texts, tmp_path):
    cache = tmp_path / "cache"
    healed(cuts["refit"], dense, tokenizer, texts, cache_teacher=cache)
    with pytest.raises(ResultError, match=r"with top_k 5, got one with top_k 64 in .*cache: name another"):
        healed(cuts["refit"], dense, tokenizer, texts, cache_teacher=cache, top_k=5)
    other = tiny.llama(num_hidden_layers=5, initializer_range=0.1)
    cut = prune(other, tokenizer, texts=texts, layers=[1], tokens=None, window=32)
    with pytest.raises(ResultError, match="with fingerprint"):
        healed(cut, other, tokenizer, texts, cache_teacher=cache)
    with pytest.raises(ResultError, match="or an empty folder"):
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "file").touch()
        healed(cuts["refit"], dense, tokenizer, texts, cache_teacher=tmp_path / "full")
    for path in cache.glob("*.safetensors"):
        path.write_bytes(b"no")
    with pytest.raises(ResultError, match=r"cannot read .*safetensors.*delete it"):
        healed(cuts["refit"], dense, tokenizer, texts, cache_teacher=cache)


def test_a_checkpoint_keeps_its_own_precision(tokenizer, texts, tmp_path):
    dense = tiny.llama(num_hidden_layers=4, initializer_range=0.15).to(torch.bfloat16)
    cut = prune(dense, tokenizer, texts=texts, layers=[1], repair="none", tokens=None, window=32)
    done = healed(cut, dense, tokenizer, texts, train="repaired")
    assert done.model.dtype == torch.float32
    again, _ = load(str(done.save(tmp_path / "healed")))
    assert again.dtype == torch.bfloat16


def test_the_folder_holds_model_plan_and_document(cuts, dense, tokenizer, texts, tmp_path):
    done = healed(cuts["linear"], dense, tokenizer, texts)
    out = done.save(tmp_path / "healed")
    assert Plan.load(out) == cuts["linear"].plan
    document = json.loads((out / "heal.json").read_text())
    assert (document["schema"], document["kind"]) == (1, "heal")
    assert document["spent"]["steps"] == 3 and document["recipe"]["budget"] == {"steps": 3}
    assert len(document["history"]) == 3 and document["provenance"]["versions"]["torch"]
    card, page = ((out / name).read_text() for name in ("README.md", "report.html"))
    assert "layers, healed" in card and "3 steps" in card and "rectilinear.load(folder)" in card
    assert "A healed model" in page and 'id="figure-healing"' in page
    again, _ = load(str(out))
    assert not changed(done.model, again)
    # And what was healed can be healed on.
    healed_again = heal(again, dense, tokenizer, texts=texts, plan=Plan.load(out), train="maps", **OPTIONS)
    assert isinstance(healed_again.result, HealResult)


def test_wrong_wishes_are_one_line(cuts, dense, tokenizer, texts):
    cut = cuts["refit"]
    other = tiny.llama(num_hidden_layers=5, initializer_range=0.1)
    for options, kind, said in (
        ({"loss": "kll"}, ModelError, "Did you mean 'kl'"),
        ({"train": "map"}, ModelError, "Did you mean 'maps'"),
        ({"train": "maps"}, ModelError, "cut it with --repair linear"),
        ({"schedule": "flat"}, ModelError, "a schedule of cosine, linear"),
        ({"minutes": 1.0}, RectilinearError, "one budget of minutes, steps and tokens, got minutes 1.0 and steps 3"),
        ({"steps": 0}, RectilinearError, "steps above 0, got 0"),
        ({"rate": math.nan}, RectilinearError, "lr above 0"),
        ({"batch": 0}, RectilinearError, "batch above 0"),
        ({"warmup": 1.0}, RectilinearError, "warm-up as a share"),
        ({"loss": "mse", "top_k": 5}, RectilinearError, "expected the loss kl"),
        ({"resume": True}, RectilinearError, "--checkpoints"),
        ({"report_to": ("tensorboard",)}, RectilinearError, "--checkpoints"),
        ({"report_to": ("wandbb",)}, RectilinearError, "wandbb is not supported"),
        ({"report_to": ("comet_ml",)}, RectilinearError, "cannot train with these options"),
        ({"window": 900}, TextError, "five windows of 900|at least one window of 900"),
        ({"rate": 1e30, "steps": 30, "train": "all"}, NonFiniteError, "lower --lr"),
    ):
        with pytest.raises(kind, match=said):
            healed(cut, dense, tokenizer, texts, **options)
    with pytest.raises(ResultError, match="name that one with --teacher"):
        healed(cut, other, tokenizer, texts)
    with pytest.raises(ResultError, match="heal the model that was saved beside the plan"):
        heal(dense, dense, tokenizer, texts=texts, plan=cut.plan)
    with pytest.raises(ModelError, match="repaired by scalar"):
        healed(cuts["scalar"], dense, tokenizer, texts, loss="mse", train="all")


def test_a_window_beyond_the_model_is_cut_with_a_note(tokenizer, texts):
    dense = tiny.llama(num_hidden_layers=4, max_position_embeddings=16)
    cut = prune(dense, tokenizer, texts=texts, layers=[1], repair="none", tokens=None, window=16)
    done = healed(cut, dense, tokenizer, texts)
    assert "from 32 to 16" in done.result.warnings[0] and done.result.recipe["window"] == 16


def test_experts_have_no_repaired_projection():
    import transformers as hf

    torch.manual_seed(0)
    config = hf.MixtralConfig(
        vocab_size=tiny.VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=2,
    )
    dense = hf.MixtralForCausalLM(config).eval()
    texts = [text + " " for text in tiny.documents(60)]
    cut = prune(dense, tiny.tokenizer(), texts=texts, layers=[1], repair="none", tokens=None, window=32)
    with pytest.raises(ModelError, match="train lora or all"):
        healed(cut, dense, tiny.tokenizer(), texts, train="repaired")
    with pytest.raises(ModelError):
        output_projection(decoder_stack(cut.model)[0])
    assert healed(cut, dense, tiny.tokenizer(), texts, train="all").result.steps == 3
