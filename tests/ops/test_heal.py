import copy
import json
import math
import sys

import pytest
import torch

import tiny
from rectilinear.errors import ModelError, NonFiniteError, RectilinearError, ResultError, TextError
from rectilinear.models.linear_block import LinearBlock
from rectilinear.models.load import load
from rectilinear.models.projection import output_projection
from rectilinear.models.stack import decoder_stack
from rectilinear.ops.heal import heal, heal_, outline
from rectilinear.ops.healing import budget, loop
from rectilinear.ops.healing.places import places
from rectilinear.ops.prune import prune
from rectilinear.results import HealResult, Plan

OPTIONS = {"window": 32, "batch": 2, "steps": 3, "holdout": 4}


@pytest.fixture(scope="module")
def dense():
    # With the usual small weights of a fresh model its layers would hardly matter.
    return tiny.llama(num_hidden_layers=5, initializer_range=0.15)


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.tokenizer()


@pytest.fixture(scope="module")
def texts():
    return [text + " " for text in tiny.documents(60)]


@pytest.fixture(scope="module")
def cuts(dense, tokenizer, texts):
    """Cut models by their repair: layers 1 and 3 of five gone."""
    return {
        repair: prune(dense, tokenizer, texts=texts, layers=[1, 3], repair=repair, tokens=None, window=32)
        for repair in ("none", "refit", "linear", "scalar")
    }


def healed(cut, dense, tokenizer, texts, **options):
    return heal(cut.model, dense, tokenizer, texts=texts, plan=cut.plan, **{**OPTIONS, **options})


def changed(before, after):
    """Return the names of parameters that differ."""
    old = dict(before.named_parameters())
    assert old.keys() == dict(after.named_parameters()).keys()
    return {name for name, parameter in after.named_parameters() if not torch.equal(parameter, old[name])}


@pytest.mark.parametrize("train", ["repaired", "lora", "all"])
def test_healing_brings_the_cut_model_nearer_on_held_out_text(cuts, dense, tokenizer, texts, train):
    done = healed(cuts["none"], dense, tokenizer, texts, train=train, steps=60, rate=5e-3)
    result = done.result
    assert result.after.kl < 0.8 * result.before.kl
    losses = [point.loss for point in result.history]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    assert result.dense.kl == 0 and result.steps == 60 and 59 * 64 <= result.tokens <= 60 * 64
    assert result.recovered == pytest.approx(
        (result.before.perplexity - result.after.perplexity) / (result.before.perplexity - result.dense.perplexity)
    )


@pytest.mark.parametrize("train", ["maps", "all"])
def test_layerwise_mse_brings_the_streams_nearer(cuts, dense, tokenizer, texts, train):
    done = healed(cuts["linear"], dense, tokenizer, texts, loss="mse", train=train, steps=60, rate=3e-3)
    assert done.result.history[-1].loss < 0.9 * done.result.history[0].loss
    assert changed(cuts["linear"].model, done.model)


def test_each_way_trains_what_it_says_and_nothing_else(cuts, dense, tokenizer, texts):
    refit, linear = cuts["refit"], cuts["linear"]
    projections = {f"model.layers.{i}.mlp.down_proj.weight" for i in (0, 1)}  # before layers 1 and 3 of the dense one
    maps = {f"model.layers.{i}.{name}" for i in (1, 3) for name in ("weight", "bias")}
    every = {name for name, _ in refit.model.named_parameters()}
    adapted = {name for name in every if name.endswith("proj.weight")}
    for cut, train, wanted in (
        (refit, "repaired", projections),
        (linear, "repaired", maps),
        (linear, "maps", maps),
        (refit, "lora", adapted),
        (refit, "all", every),
    ):
        required = [p.requires_grad for p in cut.model.parameters()]
        before = copy.deepcopy(cut.model)
        done = healed(cut, dense, tokenizer, texts, train=train)
        assert changed(before, done.model) == wanted, train
        assert not changed(before, cut.model)  # the one given stays
        assert [p.requires_grad for p in done.model.parameters()] == required
        said = outline(cut.model, cut.plan, train=train)
        assert said.trained == done.result.trained and said.bytes == 12 * said.trained
        if train != "lora":
            assert said.trained == sum(p.numel() for n, p in done.model.named_parameters() if n in wanted)


def test_one_block_for_a_whole_span_answers_to_the_stream_after_it(dense, tokenizer, texts):
    model = prune(dense, tokenizer, texts=texts, layers=[1, 2, 3], repair="patch", tokens=None, window=32)
    assert [isinstance(layer, LinearBlock) for layer in decoder_stack(model.model)] == [False, True, False]
    assert [place.position for place in places(decoder_stack(model.model), model.plan)] == [1, 4, 5]
    done = healed(model, dense, tokenizer, texts, loss="mse", train="maps")
    assert changed(model.model, done.model) == {"model.layers.1.weight", "model.layers.1.bias"}


def test_low_rank_adapters_are_merged_into_a_plain_model(cuts, dense, tokenizer, texts, tmp_path, monkeypatch):
    from peft.tuners.lora import LoraModel

    seen = {}
    merge = LoraModel.merge_and_unload
    ids = torch.arange(1, 33)[None]

    def watched(tuner):
        with torch.no_grad():
            seen["logits"] = tuner.model(ids).logits
        seen["adapters"] = [name for name, _ in tuner.model.named_parameters() if "lora_" in name]
        return merge(tuner)

    monkeypatch.setattr(LoraModel, "merge_and_unload", watched)
    done = healed(cuts["refit"], dense, tokenizer, texts, train="lora", rate=1e-2)
    assert len(seen["adapters"]) == 2 * 7 * 3
    assert done.model.state_dict().keys() == cuts["refit"].model.state_dict().keys()
    assert type(done.model) is type(dense) and not hasattr(done.model, "peft_config")
    again, _ = load(str(done.save(tmp_path / "healed")))
    with torch.no_grad():
        torch.testing.assert_close(done.model(ids).logits, seen["logits"], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(again(ids).logits, done.model(ids).logits)


def test_without_peft_one_line_names_the_extra(cuts, dense, tokenizer, texts, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft.tuners.lora", None)
    with pytest.raises(ModelError, match=r"rectilinear\[train\]"):
        healed(cuts["refit"], dense, tokenizer, texts, train="lora")


class Stop(Exception):
    pass


def until(step):
    def on_progress(state):
        if state.task == "healing" and state.done >= step * 64:
            raise Stop

    return on_progress


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


def test_an_interrupted_healing_in_place_leaves_no_adapters(cuts, dense, tokenizer, texts):
    model = copy.deepcopy(cuts["refit"].model)
    with pytest.raises(Stop):
        heal_(
            model,
            dense,
            tokenizer,
            texts=texts,
            plan=cuts["refit"].plan,
            on_progress=until(2),
            train="lora",
            **OPTIONS,
        )
    assert not changed(cuts["refit"].model, model)


def test_checkpoints_of_another_run_are_refused(cuts, dense, tokenizer, texts, tmp_path):
    kept = tmp_path / "kept"
    with pytest.raises(ResultError, match="leave --resume out"):
        healed(cuts["refit"], dense, tokenizer, texts, checkpoints=kept, resume=True)
    healed(cuts["refit"], dense, tokenizer, texts, checkpoints=kept)
    with pytest.raises(ResultError, match="add --resume or name another"):
        healed(cuts["refit"], dense, tokenizer, texts, checkpoints=kept)
    with pytest.raises(ResultError, match=r"which had rate 0\.0001"):
        healed(cuts["refit"], dense, tokenizer, texts, checkpoints=kept, resume=True, rate=1e-3)
    (kept / "checkpoint-3/trainer_state.json").write_text("{")
    with pytest.raises(ResultError, match="cannot resume"):
        healed(cuts["refit"], dense, tokenizer, texts, checkpoints=kept, resume=True)


def test_checkpoints_whose_weights_would_be_passed_over_are_refused(cuts, dense, tokenizer, texts, tmp_path):
    from safetensors.torch import load_file, save_file

    options = {"checkpoints": tmp_path / "kept", "train": "repaired"}
    healed(cuts["refit"], dense, tokenizer, texts, **options)
    path = tmp_path / "kept/checkpoint-3/model.safetensors"
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


def test_pads_and_accumulated_passes_change_nothing(cuts, dense, tokenizer):
    texts = tiny.documents(3, words=20) + tiny.documents(3, words=31, seed=1)
    options = {"protocol": "documents", "steps": 1, "holdout": 1, "train": "all", "rate": 1e-2}
    one = healed(cuts["refit"], dense, tokenizer, texts, **{**options, "batch": 5})
    many = healed(cuts["refit"], dense, tokenizer, texts, **{**options, "batch": 1, "accumulate": 5})
    assert one.result.history[0].loss == pytest.approx(many.result.history[0].loss, rel=1e-5)
    assert one.result.tokens == many.result.tokens < 5 * 32


def test_the_loss_of_training_is_what_an_evaluation_measures(cuts, dense, tokenizer, texts):
    """One step at the cut model's weights: KL over all positions, the last one of each window included."""
    from rectilinear.core.distillation import kl
    from rectilinear.data.windows import joined

    done = healed(cuts["refit"], dense, tokenizer, texts, steps=1, batch=50, read=32 * 60)
    windows = joined(tokenizer, texts, tokens=32 * 60, window=32, stride=32)
    ids = torch.stack([torch.from_numpy(w.ids).long() for w in windows[: 60 - 4]])
    with torch.no_grad():
        losses = kl(cuts["refit"].model(ids).logits.flatten(0, 1), dense(ids).logits.flatten(0, 1)).view(56, 32)
    # The seed picks 50 of the 56 windows.
    assert abs(done.result.history[0].loss - float(losses.mean())) < 3 * float(losses.mean(1).std()) / math.sqrt(50)


def test_mixed_precision_trains_single_precision_weights_and_leaves_no_trace(cuts, dense, tokenizer):
    texts = tiny.documents(12, words=20) + tiny.documents(12, words=31, seed=1)  # of two lengths: pads
    options = {"protocol": "documents", "steps": 4, "rate": 1e-3}
    single = healed(cuts["refit"], dense, tokenizer, texts, **options)
    mixed = healed(cuts["refit"], dense, tokenizer, texts, bf16=True, **options)
    assert {p.dtype for p in mixed.model.parameters()} == {torch.float32}
    assert "forward" not in vars(mixed.model) and mixed.model.config.use_cache == dense.config.use_cache
    a, b = (done.result.history[0].loss for done in (single, mixed))
    assert a == pytest.approx(b, rel=0.05) and a != b


def test_a_checkpoint_keeps_its_own_precision(tokenizer, texts, tmp_path):
    dense = tiny.llama(num_hidden_layers=4, initializer_range=0.15).to(torch.bfloat16)
    cut = prune(dense, tokenizer, texts=texts, layers=[1], repair="none", tokens=None, window=32)
    done = healed(cut, dense, tokenizer, texts, train="repaired")
    assert done.model.dtype == torch.float32
    again, _ = load(str(done.save(tmp_path / "healed")))
    assert again.dtype == torch.bfloat16


def test_a_budget_of_time_ends_in_time_at_a_rate_of_nothing(cuts, dense, tokenizer, texts, monkeypatch):
    clock = [0.0]

    def tick():
        clock[0] += 0.05
        return clock[0]

    monkeypatch.setattr(budget.time, "perf_counter", tick)
    told, rates = [], []
    monkeypatch.setattr(loop, "rate", lambda *given: rates.append(budget.rate(*given)) or rates[-1])
    done = healed(cuts["refit"], dense, tokenizer, texts, steps=None, minutes=0.1, on_progress=told.append)
    assert 5 <= done.result.seconds <= 6.5 and 5 < done.result.steps < 60
    assert max(rates) > 0.9 and rates[0] < 0.3 and rates[-1] < 0.1
    last = [state for state in told if state.task == "healing"][-1]
    assert last.done <= last.total and "loss" in last.said


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_the_rate_rises_and_falls_with_the_budget(schedule):
    rates = [budget.rate(i / 100, schedule, 0.1) for i in range(101)]
    assert rates[0] == budget.FLOOR and rates[10] == 1 and rates[-1] == pytest.approx(0, abs=1e-12)
    assert rates[:11] == sorted(rates[:11]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(0.5) and (rates[30] > 0.8) == (schedule == "cosine")
    assert budget.rate(0, schedule, 0.0) == 1


def test_a_budget_of_tokens(cuts, dense, tokenizer, texts):
    assert healed(cuts["refit"], dense, tokenizer, texts, steps=None, tokens=300).result.tokens == 320


def test_places_of_every_layer(cuts, dense):
    seen = {}
    for name, cut in cuts.items():
        found = places(decoder_stack(cut.model), cut.plan)
        seen[name] = [(place.position, place.block, place.before_cut) for place in found]
    assert seen["refit"] == seen["none"] == [(2, False, True), (4, False, True), (5, False, False)]
    assert seen["linear"] == [(i + 1, i in (1, 3), False) for i in range(5)]
    first = Plan(**{**vars(cuts["none"].plan), "remove": (0, 1)})
    assert [place.position for place in places(decoder_stack(cuts["none"].model), first)] == [3, 4, 5]


def test_the_same_seed_gives_the_same_weights(cuts, dense, tokenizer, texts):
    one, two, other = (healed(cuts["refit"], dense, tokenizer, texts, train="lora", seed=s) for s in (1, 1, 2))
    assert not changed(one.model, two.model) and changed(one.model, other.model)


def test_the_folder_holds_model_plan_and_document(cuts, dense, tokenizer, texts, tmp_path):
    done = healed(cuts["linear"], dense, tokenizer, texts)
    out = done.save(tmp_path / "healed")
    assert Plan.load(out) == cuts["linear"].plan
    document = json.loads((out / "heal.json").read_text())
    assert (document["schema"], document["kind"]) == (1, "heal")
    assert document["spent"]["steps"] == 3 and document["recipe"]["budget"] == {"steps": 3}
    assert len(document["history"]) == 3 and document["provenance"]["versions"]["torch"]
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
        ({"rate": 1e38, "steps": 30, "train": "all"}, NonFiniteError, "lower --lr"),
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


def test_loggers_get_the_losses(cuts, dense, tokenizer, texts, monkeypatch):
    from transformers import TrainerCallback
    from transformers.integrations import integration_utils

    seen = []

    class Logger(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            seen.append(logs)

    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "mine", Logger)
    healed(cuts["refit"], dense, tokenizer, texts, report_to=("mine",))
    assert [set(logs) >= {"loss", "learning_rate"} for logs in seen[:3]] == [True] * 3


def test_it_is_silent(cuts, dense, tokenizer, texts, capfd):
    healed(cuts["refit"], dense, tokenizer, texts, train="lora")
    assert capfd.readouterr() == ("", "")


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
