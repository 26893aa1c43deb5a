import copy
import math

import pytest
import torch

import tiny
from healing import OPTIONS, Stop, changed, healed, until
from rectilinear.models.linear_block import LinearBlock
from rectilinear.models.load import load
from rectilinear.models.stack import decoder_stack
from rectilinear.ops.heal import heal_, outline
from rectilinear.ops.healing.places import places
from rectilinear.ops.prune import prune
from rectilinear.ops.training import budget, loop
from rectilinear.results import Plan


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
