import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from disk import flip
from preempted import sigterm, terminated
from rectilinear.errors import ModelError, NonFiniteError, RectilinearError, ResultError, TextError
from rectilinear.ops import pretrain as module
from rectilinear.ops.pretrain import new_model, pretrain
from rectilinear.ops.pretraining.corpus import Collate, documents, packed, train_tokenizer
from rectilinear.ops.pretraining.recipe import Recipe, asked_for
from rectilinear.report.checksums import verify

WORDS = "the a cat dog sat ran on under mat tree and then it was happy sad big red blue Lily said".split()


def stories(count=120, seed=0):
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, random.integers(20, 60))) + "." for _ in range(count)]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("stories") / "stories.txt"
    path.write_text("\n<|endoftext|>\n".join(stories()))
    return str(path)


def options(text, **own):
    """2 x 32 tokens a step, 6 steps."""
    small = {"vocab": 300, "window": 32, "batch": 2, "tokens": 384, "profile": 4, "checkpoints": 2}
    return {"text": (text,), **small, **own}


@pytest.fixture(scope="module")
def plain(text, tmp_path_factory):
    """A finished run without a penalty, and its result."""
    out = tmp_path_factory.mktemp("runs") / "plain"
    return out, pretrain(out, **options(text))


def losses(result):
    return [point.loss for point in result.history]


@pytest.mark.parametrize(
    ("size", "least", "most"),
    [("tiny", 0.75e6, 0.8e6), ("mini", 10e6, 15e6), ("150m", 145.5e6, 154.5e6), ("650m", 630.5e6, 669.5e6)],
)
def test_sizes_have_the_parameters_that_their_names_promise(size, least, most):
    recipe = Recipe(("demo",), size)
    with torch.device("meta"):
        model = new_model(recipe, recipe.shape.vocab, 0)
    assert model.config.model_type == "mistral"
    assert least <= sum(parameter.numel() for parameter in model.parameters()) <= most
    assert recipe.shape.layers >= 8


def test_a_run_leaves_loadable_checkpoints_a_model_and_a_document(plain):
    out, result = plain
    assert [c.folder for c in result.checkpoints] == ["checkpoint-3", "checkpoint-6"]
    assert sorted(p.name for p in out.glob("checkpoint-*")) == ["checkpoint-3", "checkpoint-6"]
    for folder in (out, *out.glob("checkpoint-*")):
        model = AutoModelForCausalLM.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert model.config.use_cache and model.config.eos_token_id == tokenizer.eos_token_id == 0
        assert tokenizer("the cat").input_ids[0] == tokenizer.eos_token_id
        assert tokenizer.decode(tokenizer("the cat").input_ids, skip_special_tokens=True) == "the cat"
    last, end = (AutoModelForCausalLM.from_pretrained(p) for p in (out / "checkpoint-6", out))
    assert all(torch.equal(a, b) for a, b in zip(last.parameters(), end.parameters(), strict=True))
    assert not list(out.rglob("training_args.bin"))
    document = json.loads((out / "pretrain.json").read_text())
    assert document["kind"] == "pretrain" and document["schema"] == 1
    assert document["recipe"]["tokens"] == 384 and document["parameters"] == result.parameters
    assert [json.loads(line)["step"] for line in (out / "linearity.jsonl").read_text().splitlines()] == [0, 4, 6]


def test_losses_fall_from_chance_and_held_out_bits_are_told(plain, text, tmp_path):
    _, result = plain
    assert losses(result)[0] == pytest.approx(np.log(300), abs=0.2)
    assert losses(result)[-1] < losses(result)[0] - 0.5
    assert result.checkpoints[1].loss < result.checkpoints[0].loss
    assert 0.5 < result.checkpoints[1].bits_per_byte < 8
    assert result.history[-1].tokens == 384 and result.checkpoints[-1].tokens == 384


def test_siblings_start_alike_and_see_the_same_batches(plain, text, tmp_path):
    cosine = pretrain(tmp_path / "cosine", **options(text, penalty="cosine", weight=5.0))
    assert losses(cosine)[0] == pytest.approx(losses(plain[1])[0], abs=1e-6)
    assert losses(cosine)[-1] != pytest.approx(losses(plain[1])[-1], abs=1e-6)
    assert all(point.penalty > 0 for point in cosine.history)
    assert all(point.penalty == 0 for point in plain[1].history)


def test_the_two_seeds_are_of_weights_and_of_data(plain, text, tmp_path):
    first = {}
    for name in ("seed", "data_seed"):
        pretrain(tmp_path / name, **options(text, **{name: 1}))
        first[name] = (tmp_path / name / "tokenizer.json").read_text()
    assert first["seed"] == (plain[0] / "tokenizer.json").read_text()  # the same documents trained it
    assert first["data_seed"] != first["seed"]


def test_a_recipe_trains_the_same_model_again(plain, tmp_path):
    out, result = plain
    again = pretrain(tmp_path / "again", out / "recipe.yaml")
    assert losses(again) == losses(result)
    assert (tmp_path / "again" / "recipe.yaml").read_text() == (out / "recipe.yaml").read_text()
    other = asked_for(out / "recipe.yaml", minutes=1.0, penalty="mse")
    assert (other.tokens, other.minutes, other.penalty, other.window) == (None, 1.0, "mse", 32)
    larger = asked_for(out / "recipe.yaml", size="mini")
    assert (larger.window, larger.vocab, larger.tokens) == (512, 4096, 384)


class Killed(BaseException):
    pass


def killed_at(step):
    def on_progress(state):
        if state.task == "training" and state.done >= step * 64:
            raise Killed

    return on_progress


@pytest.mark.parametrize("penalty", ["none", "cosine"])
def test_a_run_that_was_killed_goes_on_to_the_same_losses(penalty, text, tmp_path):
    asked = options(text, penalty=penalty, weight=5.0, tokens=768)  # 12 steps: checkpoints at each tenth
    whole = pretrain(tmp_path / "whole", **asked)
    with pytest.raises(Killed):
        pretrain(tmp_path / "killed", **asked, on_progress=killed_at(9))
    there = sorted(p.name for p in (tmp_path / "killed").glob("checkpoint-*"))
    assert there == ["checkpoint-6", "checkpoint-8"]  # one that stays, and the last of those that do not
    (tmp_path / "killed" / "checkpoint-9").mkdir()  # what a kill leaves of one
    done = pretrain(tmp_path / "killed", **asked, resume=True)
    assert losses(done) == losses(whole)
    assert [p.penalty for p in done.history] == [p.penalty for p in whole.history]
    assert done.checkpoints == whole.checkpoints
    assert {p.name for p in (tmp_path / "killed").glob("checkpoint-*[0-9]")} >= {"checkpoint-6", "checkpoint-12"}
    assert (tmp_path / "killed" / "linearity.jsonl").read_text() == (tmp_path / "whole" / "linearity.jsonl").read_text()
    with pytest.raises(ResultError, match="one that is done"):
        pretrain(tmp_path / "killed", **asked, resume=True)


def test_a_sigterm_waits_for_the_step_and_a_checkpoint_that_does_not_stay(text, tmp_path):
    asked = options(text, tokens=64 * 40)  # 40 steps: checkpoints at each fourth
    whole = pretrain(tmp_path / "whole", **asked)

    def preempted(state):
        if state.task == "training" and state.done == 9 * 64:
            sigterm()

    with terminated():
        pretrain(tmp_path / "run", **asked, on_progress=preempted)
    last = tmp_path / "run" / "checkpoint-10"  # it came when the ninth step had ended
    assert last.is_dir()
    done = pretrain(tmp_path / "run", **asked, resume=True)
    assert not last.exists() and not (tmp_path / "run" / "checkpoint-8").exists()
    assert losses(done) == losses(whole) and done.checkpoints == whole.checkpoints


def test_what_cannot_be_resumed_is_said(text, tmp_path):
    with pytest.raises(Killed):
        pretrain(tmp_path / "run", **options(text), on_progress=killed_at(4))
    with pytest.raises(ResultError, match=r"penalty none, not mse; seed 0, not 7: give --recipe"):
        pretrain(tmp_path / "run", **options(text, penalty="mse", seed=7), resume=True)
    other = tmp_path / "other.txt"
    other.write_text("\n<|endoftext|>\n".join(stories(seed=1)))
    recipe = tmp_path / "run" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace(text, str(other)))
    with pytest.raises(ResultError, match="its files have changed"):
        pretrain(tmp_path / "run", recipe, resume=True)
    with pytest.raises(ResultError, match="exists; add --force"):
        pretrain(tmp_path / "run", recipe)
    assert pretrain(tmp_path / "run", recipe, force=True).history


def test_a_run_to_resume_begins_where_nothing_was_kept(text, tmp_path):
    whole = pretrain(tmp_path / "run", **options(text), resume=True)
    assert verify(tmp_path / "run")[1] == []
    killed = tmp_path / "killed"
    killed.mkdir()
    (killed / "recipe.yaml").write_bytes((tmp_path / "run" / "recipe.yaml").read_bytes())
    (killed / "checkpoint-1").mkdir()
    with pytest.raises(ResultError, match="which had seed 0, not 7"):
        pretrain(killed, **options(text, seed=7), resume=True)
    assert losses(pretrain(killed, **options(text), resume=True)) == losses(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "run"]


def test_a_damaged_checkpoint_is_passed_over_with_a_note(plain, text, tmp_path):
    asked = options(text)
    with pytest.raises(Killed):
        pretrain(tmp_path / "run", **asked, on_progress=killed_at(5))
    flip(tmp_path / "run" / "checkpoint-4" / "model.safetensors")
    done = pretrain(tmp_path / "run", **asked, resume=True)
    assert done.warnings == ("checkpoint-4 is damaged and passed over: model.safetensors is not as it was written.",)
    assert losses(done) == losses(plain[1]) and done.checkpoints == plain[1].checkpoints
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (plain[0] / "model.safetensors").read_bytes()
    assert verify(tmp_path / "run")[1] == []
    (tmp_path / "run" / "pretrain.json").unlink()
    for checkpoint in (tmp_path / "run").glob("checkpoint-*"):
        (checkpoint / "optimizer.pt").write_bytes(b"")
    with pytest.raises(
        ResultError, match=r"no whole checkpoint: checkpoint-6 .*optimizer\.pt .*; give --force to start"
    ):
        pretrain(tmp_path / "run", **asked, resume=True)


def test_a_run_that_ends_before_its_first_checkpoint_leaves_nothing(text, tmp_path):
    with pytest.raises(Killed):
        pretrain(tmp_path / "run", **options(text, checkpoints=1, tokens=64 * 30), on_progress=killed_at(1))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("broken", ["loss", "weights"])
def test_a_loss_that_is_no_number_stops_the_run_at_its_step_and_keeps_the_checkpoint(
    broken, text, tmp_path, monkeypatch
):
    from rectilinear.ops.pretraining.loop import Pretrainer

    compute = Pretrainer.compute_loss

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss = compute(self, model, inputs, return_outputs, num_items_in_batch)
        if self.state.global_step == 4 and broken == "loss":
            return loss * float("nan")
        if self.state.global_step == 4:
            self.model.model.norm.weight.data[0] = float("inf")
        return loss

    monkeypatch.setattr(Pretrainer, "compute_loss", compute_loss)
    step = {"loss": r"loss was NaN or infinite at step 5", "weights": r"(weights|loss) w(as|ere) NaN or infinite"}[
        broken
    ]
    with pytest.raises(NonFiniteError, match=step):
        pretrain(tmp_path / "run", **options(text))
    kept = sorted(p.name for p in (tmp_path / "run").glob("checkpoint-*"))
    assert "checkpoint-3" in kept and "checkpoint-5" not in kept
    for name in kept:
        weights = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / name).parameters()
        assert all(torch.isfinite(weight).all() for weight in weights)


@pytest.mark.parametrize(
    ("own", "error", "said"),
    [
        ({"size": "tin"}, RectilinearError, "tiny, mini, 150m, 650m, got 'tin'. Did you mean 'tiny'"),
        ({"weight": -1.0}, RectilinearError, "weight of 0 or above, got -1.0"),
        ({"penalty": "cos"}, RectilinearError, "cosine, mse, increment, got 'cos'"),
        ({"penalty": "cosine", "layers": (10,)}, ModelError, "from 0 to 7, got 10"),
        ({"minutes": 1.0}, RectilinearError, "one budget of tokens and minutes"),
        ({"tokenizer": "x"}, RectilinearError, "leave --vocab out"),
        ({"tokenizer": "x", "vocab": None}, ModelError, "cannot load the tokenizer of 'x'"),
        ({"vocab": 100}, RectilinearError, "257 tokens or more"),
        ({"batch": 0}, RectilinearError, "batch above 0, got 0"),
        ({"holdout": 0.0}, RectilinearError, "holdout as a share"),
        ({"text": ()}, RectilinearError, "got none: name it, --text"),
        ({"window": 1 << 14}, TextError, "at least one window of 16384 tokens"),
        ({"batch": 1 << 10}, TextError, "1024 windows of 32 tokens or more, a batch"),
        ({"penalty": "increment", "target": 0.2}, RectilinearError, "384 tokens or more in a forward pass"),
    ],
)
def test_wrong_recipes_are_one_line_and_leave_nothing(own, error, said, text, tmp_path):
    with pytest.raises(error) as found:
        pretrain(tmp_path / "run", **{**options(text), **own})
    assert said in str(found.value) and "\n" not in str(found.value)
    assert not list(tmp_path.iterdir())


def test_several_processes_are_refused(text, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RectilinearError, match="one process to pretrain in"):
        pretrain(tmp_path / "run", **options(text))


def test_an_empty_text_is_refused(tmp_path):
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(TextError, match="two documents or more, one to train on and one to judge, got 0"):
        pretrain(tmp_path / "run", **options(str(tmp_path / "empty.txt")))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("size: [", "cannot read the recipe"),
        ("- tiny", "expected a recipe with one name: value a line"),
        ("text: [demo]\nwieght: 1", "names of a recipe, got 'wieght'. Did you mean 'weight'"),
        ("text: [demo]\nweight: heavy", "expected weight of a recipe as float, got 'heavy'"),
        ("text: [1]", "expected text of a recipe as tuple[str, ...], got [1]"),
        ("text: [demo]\nseed: 1.5", "expected seed of a recipe as int, got 1.5"),
        ("text: [demo]\nbf16: 1", "expected bf16 of a recipe as bool | None, got 1"),
    ],
)
def test_a_damaged_recipe_is_one_line(content, said, tmp_path):
    (tmp_path / "recipe.yaml").write_text(content)
    with pytest.raises(ResultError) as error:
        asked_for(tmp_path / "recipe.yaml")
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_recipe_survives_its_file(tmp_path):
    recipe = Recipe(("a.txt", "b"), "mini", penalty="mse", weight=2, layers=(1, 2), tokens=10**9, bf16=False, rate=1e-3)
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    assert Recipe.load(tmp_path / "recipe.yaml") == recipe


def test_documents_are_each_taken_once_whatever_their_case():
    one, two = ["A cat.", "The  Dog", "a b"], ["a cat.", "the dog\n", "new", " "]
    found = documents([one, two], characters=None, share=0.1, seed=0)
    assert sorted(found.training + found.heldout) == ["A cat.", "The  Dog", "a b", "new"]
    assert found.dropped == 2 and len(found.heldout) == 1
    again = documents([one, two], characters=None, share=0.1, seed=0)
    assert again == found
    assert any(documents([one, two], characters=None, share=0.1, seed=s) != found for s in range(1, 5))


def test_no_token_attends_to_another_document_in_its_window():
    texts = stories(6)
    tokenizer = train_tokenizer(texts, 300, 256)
    windows = packed(tokenizer, texts, 256)
    batch = Collate(0)(list(windows))
    row = batch["input_ids"][0]
    first, second, third, *_ = (row == 0).nonzero().flatten().tolist()
    assert first == 0 and batch["position_ids"][0, second] == 0
    model = new_model(Recipe(("demo",), window=256), 300, 0).eval()
    ids, places = batch["input_ids"][:1], batch["position_ids"][:1]
    with torch.no_grad():
        together = model(input_ids=ids, position_ids=places, use_cache=False).logits[0, second:third]
        alone = model(input_ids=ids[:, second:third], use_cache=False).logits[0]
        naive = model(input_ids=ids, use_cache=False).logits[0, second:third]
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(naive, alone, rtol=1e-4, atol=1e-5)


def test_a_given_tokenizer_is_used(plain, text, tmp_path):
    out, _ = plain
    recipe = options(text, tokenizer=str(out), vocab=None, tokens=64)
    assert pretrain(tmp_path / "run", **recipe).vocab == 300
    assert (tmp_path / "run" / "tokenizer.json").read_text() == (out / "tokenizer.json").read_text()


def test_a_budget_of_minutes_ends_with_a_checkpoint_whatever_the_clock_says_meanwhile(text, tmp_path, monkeypatch):
    """A clock that moves at each look, so that marks are passed between two looks and several at once."""
    now = iter(range(1, 10**6))
    monkeypatch.setattr("rectilinear.ops.training.budget.time.perf_counter", lambda: float(next(now)))
    result = pretrain(tmp_path / "run", **options(text, tokens=None, minutes=2.0, checkpoints=4))
    assert result.history[-1].seconds >= 120
    assert result.checkpoints[-1].step == result.history[-1].step
    there = {path.name for path in (tmp_path / "run").glob("checkpoint-*")}
    assert there == {checkpoint.folder for checkpoint in result.checkpoints}
    assert 2 <= len(there) <= 4


def test_the_sample_leaves_the_random_numbers_alone(plain, text):
    out, result = plain
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    before = torch.get_rng_state()
    assert module._sample(model, tokenizer, Recipe((text,), window=32)) == result.sample
    assert torch.equal(torch.get_rng_state(), before)
