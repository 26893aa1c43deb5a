import copy
import json
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

import tiny
from rectilinear.data.preferences import Pair, Pairs
from rectilinear.data.tasks import Example, Task
from rectilinear.errors import ModelError, NonFiniteError, RectilinearError, ResultError, TextError
from rectilinear.models.load import load
from rectilinear.models.stack import decoder_stack
from rectilinear.ops.delta import delta
from rectilinear.ops.finetune import finetune
from rectilinear.ops.finetuning.lessons import accuracy, lessons, padded
from rectilinear.ops.finetuning.loop import picked, train_
from rectilinear.ops.finetuning.recipe import EXAMPLES, RATES, FinetuneRecipe
from rectilinear.ops.scan import scan
from rectilinear.ops.training.budget import Books

QUICK = {"steps": 4, "batch": 4, "tokens": 400, "scan_window": 20, "batch_tokens": 256}


def examples(count, seed):
    """Texts that begin with the word of their class."""
    return tuple(
        Example(f"w{1 + n % 2} {text}", n % 2, n) for n, text in enumerate(tiny.documents(count, words=6, seed=seed))
    )


@pytest.fixture(scope="module")
def task():
    return Task("words", "made up", ("first", "second"), examples(40, 0), examples(20, 1), ("A note.",))


@pytest.fixture(scope="module")
def pairs():
    texts = tiny.documents(60, words=5)
    made = tuple(Pair(f"{text} w1 w1", f"{text} w2 w2") for text in texts)
    return Pairs("pairs", "made up", made[:40], made[40:])


@pytest.fixture(scope="module")
def documents():
    return tiny.documents(40)


def loaded(folder, outputs=2, seed=0):
    torch.manual_seed(seed)
    return load(str(folder), dtype="float32", outputs=outputs)


def train(folder, source, recipe, seed=0, outputs=2):
    model, tokenizer = loaded(folder, outputs, seed)
    known = lessons(source, tokenizer, tiny.VOCAB, recipe.window)
    model.config.pad_token_id = known.pad
    before = copy.deepcopy(model)
    books = Books(("steps", recipe.limit), {}, lambda point, share: None)
    train_(model, tokenizer, known, recipe, books, seed)
    return before, model, known, books


def moved(before, after):
    old = dict(before.named_parameters())
    return {name for name, parameter in after.named_parameters() if not torch.equal(parameter, old[name])}


def test_a_classifier_learns_what_can_be_learnt(folder, task):
    recipe = FinetuneRecipe(steps=40, batch=8, rate=5e-3)
    before, after, known, books = train(folder, task, recipe)
    assert accuracy(after, known, batch_tokens=100) >= 0.9 > accuracy(before, known, batch_tokens=100)
    assert len(books.points) == 40 and books.points[-1].loss < 0.3 < books.points[0].loss
    assert not after.training and after.config.use_cache == before.config.use_cache


def test_accuracy_is_that_of_texts_one_by_one(folder, task):
    model, tokenizer = loaded(folder)
    uneven = replace(task, test=(*task.test, Example("w3", 1, 99), Example("w4 w5 w6 w7", 0, 100)))
    known = lessons(uneven, tokenizer, tiny.VOCAB, 64)
    model.config.pad_token_id = known.pad
    with torch.inference_mode():
        right = [
            int(model(input_ids=torch.from_numpy(ids)[None].long()).logits.argmax()) == label
            for (ids,), label in zip(known.test, known.test_labels, strict=True)
        ]
    assert accuracy(model, known, batch_tokens=40) == np.mean(right)


def test_padding_is_an_id_that_no_text_holds(folder, task):
    """The head takes the last token that is not the padding's id: with one that texts hold it would read another."""
    tokenizer = tiny.tokenizer()
    assert lessons(task, tokenizer, tiny.VOCAB, 64).pad == tokenizer.pad_token_id == 0
    unknown = replace(task, train=(*task.train, Example("strange words", 0, 50)))  # the id of unknown words is 0 too
    known = lessons(unknown, tokenizer, tiny.VOCAB, 64)
    assert known.pad != 0 and all(known.pad not in row for lesson in (*known.train, *known.test) for row in lesson)
    every = Example(" ".join(["unknown", *(f"w{i}" for i in range(1, tiny.VOCAB))]), 1, 51)
    with pytest.raises(ModelError, match="no example holds, for padding, got none"):
        lessons(replace(task, train=(*task.train, every)), tokenizer, tiny.VOCAB, 512)
    model, _ = loaded(folder)
    row = np.array([5, 6, 7])
    both = padded([row, np.array([8])], pad=9)
    assert both["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]] and both["attention_mask"].tolist() == [
        [1] * 3,
        [1, 0, 0],
    ]
    model.config.pad_token_id = 9
    with torch.inference_mode():
        alone = model(input_ids=torch.tensor([[8]])).logits
        assert torch.allclose(model(**both).logits[1], alone[0], atol=1e-5)
        model.config.pad_token_id = 8
        assert not torch.allclose(model(**both).logits[1], alone[0], atol=1e-5)


def test_of_a_text_the_end_is_cut_and_of_a_pair_the_beginning(task, pairs):
    tokenizer = tiny.tokenizer()
    short = lessons(task, tokenizer, tiny.VOCAB, 3)
    whole = lessons(task, tokenizer, tiny.VOCAB, 64)
    assert short.truncated == 60 and whole.truncated == 0
    assert short.train[0][0].tolist() == whole.train[0][0][:3].tolist()
    cut, full = lessons(pairs, tokenizer, tiny.VOCAB, 3), lessons(pairs, tokenizer, tiny.VOCAB, 64)
    assert cut.train[0][1].tolist() == full.train[0][1][-3:].tolist() and cut.outputs == 1
    with pytest.raises(TextError, match="an example of a token or more"):
        lessons(replace(task, test=(*task.test, Example("", 0, 9))), tokenizer, tiny.VOCAB, 3)


def test_full_trains_everything_and_lora_the_projections_and_the_head(folder, task):
    before, after, *_ = train(folder, task, FinetuneRecipe(steps=3, batch=4))
    names = set(dict(after.named_parameters()))
    # Rows of words that no example holds stay, but no parameter does as a whole.
    assert moved(before, after) == names
    before, after, *_ = train(folder, task, FinetuneRecipe(method="lora", steps=3, batch=4))
    assert set(dict(after.named_parameters())) == names  # adapters are merged
    assert moved(before, after) == {n for n in names if "_proj" in n or n.startswith("score")}
    model, _ = loaded(folder)
    expected = sum(16 * sum(p.shape) for n, p in model.named_parameters() if "_proj" in n) + model.score.weight.numel()
    assert picked(model, FinetuneRecipe(method="lora")).count == expected


def test_passes_of_a_step_are_averaged(folder, task):
    once = train(folder, task, FinetuneRecipe(steps=2, batch=8))[1]
    twice = train(folder, task, FinetuneRecipe(steps=2, batch=4, accumulate=2))[1]
    for a, b in zip(once.parameters(), twice.parameters(), strict=True):
        assert torch.allclose(a, b, atol=2e-6)


def test_the_result_is_a_delta_of_scans_before_and_after(folder, task, documents):
    kept = []
    result = finetune(str(folder), task, documents, seeds=[3], on_seed=kept.append, **QUICK)
    (seed,), (made,) = result.seeds, kept
    assert (seed.seed, made.seed, made.result) == (3, 3, result)
    options = {"tokens": 400, "window": 20, "batch_tokens": 256}
    base = scan(load(str(folder), dtype="float32")[0], tiny.tokenizer(), documents, **options)
    after = scan(made.model, tiny.tokenizer(), documents, **options)
    expected = delta(base, after, seed=3)
    for layer, wanted in zip(seed.delta.layers, expected.layers, strict=True):
        assert layer.increment.heldout.delta == pytest.approx(wanted.increment.heldout.delta, abs=1e-6)
    assert any(layer.increment.heldout.delta for layer in seed.delta.layers)
    assert result.task["train"] == 40 and result.task["labels"] == ["first", "second"] and "A note." in result.warnings
    assert result.trained == result.parameters == sum(p.numel() for p in made.model.parameters())


def test_seeds_differ_in_head_and_order_and_each_can_be_had_again(folder, task, documents):
    result = finetune(str(folder), task, documents, seeds=[0, 1], **QUICK)
    again = finetune(str(folder), task, documents, seeds=[1], **QUICK)
    one, two = result.seeds
    assert [p.loss for p in one.history] != [p.loss for p in two.history]
    assert [p.loss for p in again.seeds[0].history] == [p.loss for p in two.history]
    assert again.seeds[0].delta.layers == two.delta.layers
    spread = result.change("increment", "heldout")
    values = [seed.delta.mean["increment"].heldout.delta for seed in result.seeds]
    assert spread.mean == pytest.approx(np.mean(values)) and spread.std == pytest.approx(np.std(values, ddof=1))


def test_seeds_that_are_done_are_not_made_again(folder, task, documents, monkeypatch):
    first = finetune(str(folder), task, documents, seeds=[0], **QUICK)
    loads = []
    real = load
    monkeypatch.setattr("rectilinear.ops.finetune.load", lambda *a, **k: loads.append(a) or real(*a, **k))
    both = finetune(str(folder), task, documents, seeds=[0, 1], done=first, **QUICK)
    assert len(loads) == 1 and both.seeds[0] is first.seeds[0] and [s.seed for s in both.seeds] == [0, 1]
    assert finetune(str(folder), task, documents, seeds=[0, 1], done=both, **QUICK).seeds == both.seeds
    assert len(loads) == 1
    with pytest.raises(ResultError, match="which had steps 4: give them again"):
        finetune(str(folder), task, documents, seeds=[2], done=first, **{**QUICK, "steps": 5})
    with pytest.raises(ResultError, match="which had text texts given in Python"):
        finetune(str(folder), task, documents, seeds=[2], done=first, provenance={"text": "other"}, **QUICK)
    other = replace(first, provenance={**first.provenance, "fingerprint": "0"})
    with pytest.raises(ResultError, match="got others by the name of"):
        finetune(str(folder), task, documents, seeds=[2], done=other, **QUICK)


def test_reward_models_learn_which_answer_is_preferred(folder, pairs):
    """Either way round: a head of random numbers may prefer one by chance."""
    turned = [tuple(Pair(pair.rejected, pair.chosen) for pair in part) for part in (pairs.train, pairs.test)]
    unlearnt = 0.0
    for source in (pairs, replace(pairs, train=turned[0], test=turned[1])):
        recipe = FinetuneRecipe(steps=40, batch=8, rate=5e-3)
        before, after, known, books = train(folder, source, recipe, outputs=1)
        assert accuracy(after, known, batch_tokens=100) >= 0.95
        assert books.points[0].loss == pytest.approx(np.log(2), abs=0.2)
        unlearnt += accuracy(before, known, batch_tokens=100)
    assert unlearnt == 1.0


def test_the_reward_loss_is_that_of_bradley_and_terry(folder, pairs):
    few = replace(pairs, train=pairs.train[:4])
    before, _, known, books = train(folder, few, FinetuneRecipe(steps=1, batch=4), outputs=1)
    with torch.inference_mode():
        rewards = [before(input_ids=torch.from_numpy(r)[None].long()).logits.item() for p in known.train for r in p]
    gaps = torch.tensor(rewards[0::2]) - torch.tensor(rewards[1::2])
    assert books.points[0].loss == pytest.approx(float(-torch.nn.functional.logsigmoid(gaps).mean()), abs=1e-4)


def test_trl_reports_nothing(folder, pairs, monkeypatch):
    import trl.trainer.base_trainer as base

    told = []
    monkeypatch.setattr(base, "send_telemetry", lambda *a, **k: told.append(a))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        train(folder, pairs, FinetuneRecipe(steps=1, batch=2), outputs=1)
    assert not told and not [str(one.message) for one in warned if one.category is FutureWarning]


def test_reward_models_are_measured_too(folder, pairs, documents):
    result = finetune(str(folder), pairs, documents, seeds=[0], method="lora", **QUICK)
    assert result.task["labels"] is None and result.task["majority"] is None
    assert 0 <= result.after.mean <= 1 and result.after.std is None and len(result.seeds[0].delta.layers) == 3


def test_long_histories_are_thinned_and_json_reads_back(folder, task, documents):
    from rectilinear.results import FinetuneResult

    result = finetune(str(folder), task, documents, seeds=[0], **{**QUICK, "steps": 130, "batch": 1})
    assert len(result.seeds[0].history) == 100 and result.seeds[0].history[-1].step == 130
    assert FinetuneResult.from_dict(json.loads(result.to_json())) == result


def test_a_loss_that_is_no_number_stops(folder, task, documents):
    with pytest.raises(NonFiniteError, match="the loss was NaN or infinite at step"):
        finetune(str(folder), task, documents, seeds=[0], **{**QUICK, "rate": 1e30, "steps": 20})


def test_recipes_are_checked():
    for options, said in (
        ({"method": "half"}, "a method of full, lora, got 'half'"),
        ({"steps": 1, "examples": 2}, "one budget"),
        ({"steps": 0}, "steps above 0"),
        ({"rate": 0}, "lr above 0"),
        ({"warmup": 1}, "warm-up"),
        ({"holdout": 0}, "holdout between 0 and 1"),
    ):
        with pytest.raises(RectilinearError, match=said):
            FinetuneRecipe(**options).check()
    assert FinetuneRecipe(examples=33, batch=4, accumulate=2).limit == 5
    assert FinetuneRecipe().limit == EXAMPLES // 8 and FinetuneRecipe(method="lora").learning_rate == RATES["lora"]
    facts = FinetuneRecipe(examples=80).facts()
    assert facts["steps"] == 10 and facts["rate"] == RATES["full"] and facts["rank"] is None


def test_wrong_input_is_told(folder, task, pairs, documents, monkeypatch, tmp_path):
    with pytest.raises(RectilinearError, match="a seed or more"):
        finetune(str(folder), task, documents, seeds=[], **QUICK)
    with pytest.raises(TextError, match="at least one window"):
        finetune(str(folder), task, ["w1 w2"], seeds=[0], **QUICK)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "lfm2", "architectures": ["Lfm2ForCausalLM"]}
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "config.json").write_text(json.dumps(config))
    (strange / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    with pytest.raises(ModelError, match=r"a family with a classification head, got .* of type 'lfm2'"):
        finetune(str(strange), task, documents, seeds=[0], **QUICK)
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(RectilinearError, match=r"trl for reward models, got none: pip install 'rectilinear\[reward\]'"):
        finetune(str(folder), pairs, documents, seeds=[0], **QUICK)
    monkeypatch.setitem(sys.modules, "peft.tuners.lora", None)
    with pytest.raises(ModelError, match=r"peft for lora, got none: pip install 'rectilinear\[train\]'"):
        finetune(str(folder), task, documents, seeds=[0], method="lora", **QUICK)


@pytest.mark.parametrize("family", ["gpt2", "opt", "bloom", "gpt_neox", "falcon"])
def test_families_are_fine_tuned(family, task, tmp_path):
    import families

    families.FAMILIES[family]().save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    recipe = FinetuneRecipe(steps=1, batch=4, method="lora")
    before, after, known, _ = train(tmp_path, task, recipe)
    assert accuracy(after, known, batch_tokens=100) >= 0
    assert len(decoder_stack(after)) == families.LAYERS and moved(before, after)
