from itertools import pairwise

import pytest
import torch
from transformers import Trainer, TrainingArguments

import tiny
from rectilinear import cosine_penalty
from rectilinear.errors import ModelError, RectilinearError
from rectilinear.models.stack import decoder_stack, forward, recorded
from rectilinear.ops.training.penalty import Penalty
from rectilinear.ops.training.trainer import LinearityTrainer

LENGTHS = (8, 3, 5, 8, 8, 2, 8, 4)


def rows(lengths=LENGTHS):
    torch.manual_seed(1)
    return [torch.randint(1, tiny.VOCAB, (n,)) for n in lengths]


def collate(batch):
    ids = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in batch], batch_first=True)
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


def trainer(out, model=None, *, kind=LinearityTrainer, data=None, **options):
    own = {name: options.pop(name) for name in ("penalty",) if name in options}
    arguments = {"max_steps": 1, "learning_rate": 1e-2, "logging_steps": 1, "per_device_train_batch_size": 4}
    return kind(
        model=tiny.llama() if model is None else model,
        args=TrainingArguments(
            str(out), report_to="none", use_cpu=True, disable_tqdm=True, save_strategy="no", **{**arguments, **options}
        ),
        train_dataset=rows() if data is None else data,
        data_collator=collate,
        **own,
    )


def logged(run):
    run.train()
    return [entry for entry in run.state.log_history if "loss" in entry]


def test_the_record_holds_positions_0_to_L_of_the_raw_stream():
    model = tiny.llama()
    ids = collate(rows())["input_ids"]
    stack = decoder_stack(model)
    with recorded(stack) as positions:
        forward(model, stack, ids, None)
        told = model(input_ids=ids, output_hidden_states=True).hidden_states
    assert len(positions) == len(told) == 4
    for ours, theirs in zip(positions[:-1], told[:-1], strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.allclose(positions[-1], told[-1])
    assert torch.equal(model.model.norm(positions[-1]), told[-1])


def test_the_loss_is_the_models_and_the_weighted_penalty_and_both_are_logged(tmp_path):
    batch = collate(rows((8, 3, 5, 8)))
    model = tiny.llama()
    with recorded(decoder_stack(model)) as positions:
        own = model(**batch).loss.item()
    wanted = 3 * cosine_penalty(positions, batch["attention_mask"]).item()
    (plain,) = logged(trainer(tmp_path, data=rows((8, 3, 5, 8))))
    (entry,) = logged(trainer(tmp_path, data=rows((8, 3, 5, 8)), penalty=Penalty("cosine", 3)))
    assert plain["loss"] == pytest.approx(own, abs=1e-4) and "penalty" not in plain
    assert entry["penalty"] == pytest.approx(wanted, rel=1e-5)
    assert entry["loss"] == pytest.approx(own + wanted, abs=1e-4)


def test_without_a_penalty_it_trains_as_the_trainer_does(tmp_path):
    ours, theirs = (trainer(tmp_path, kind=kind) for kind in (LinearityTrainer, Trainer))
    for run in (ours, theirs):
        run.train()
    for a, b in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("counted", [True, False], ids=["token counts", "means of passes"])
def test_accumulated_passes_weigh_their_real_tokens(counted, tmp_path):
    data, penalty = rows(), Penalty("mse", 1.0)
    runs = []
    for batch, passes in ((8, 1), (2, 4)):
        run = trainer(
            tmp_path,
            data=data,
            penalty=penalty,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=passes,
        )
        run.model_accepts_loss_kwargs = counted
        runs.append(logged(run)[0]["penalty"])
    assert runs[0] == pytest.approx(runs[1], rel=1e-5)
    uneven = [Penalty("mse")(_positions(part), collate(part)["attention_mask"]) for part in (data[:4], data[4:])]
    assert runs[0] != pytest.approx(sum(uneven).item() / 2, rel=1e-3)  # the mean of the passes' means is another


def _positions(part):
    model = tiny.llama()
    batch = collate(part)
    with recorded(decoder_stack(model)) as positions:
        forward(model, decoder_stack(model), batch["input_ids"], batch["attention_mask"])
    return positions


@pytest.mark.parametrize("counted", [True, False], ids=["token counts", "means of passes"])
def test_a_step_of_several_passes_is_the_step_of_one(counted, tmp_path):
    ends = []
    for batch, passes in ((8, 1), (2, 4)):
        run = trainer(
            tmp_path,
            data=rows((6,) * 8),
            penalty=Penalty("mse", 50.0),
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=passes,
            optim="sgd",
            max_grad_norm=0.0,
            learning_rate=1e-3,
        )
        run.model_accepts_loss_kwargs = counted
        run.train()
        ends.append(run.model)
    for a, b, start in zip(*(m.parameters() for m in (*ends, tiny.llama())), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)
        assert not torch.equal(a, start)


def test_the_cosine_penalty_brings_positions_together_and_the_selected_ones_most(tmp_path):
    def cosines(model):
        with recorded(decoder_stack(model)) as p, torch.no_grad():
            forward(model, decoder_stack(model), collate(rows())["input_ids"], None)
        return [torch.cosine_similarity(x, y, dim=-1).mean().item() for x, y in pairwise(p)]

    def trained(penalty):
        run = trainer(tmp_path, penalty=penalty, max_steps=20)
        run.train()
        return cosines(run.model)

    plain, every, one = trained(None), trained(Penalty("cosine", 5)), trained(Penalty("cosine", 5, layers=(1,)))
    assert all(a > b for a, b in zip(every, plain, strict=True))
    assert one[1] - plain[1] > max(one[0] - plain[0], one[2] - plain[2])


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradients_pass_through_checkpointing(reentrant, tmp_path):
    ends = []
    for on in (False, True):
        how = {"gradient_checkpointing_kwargs": {"use_reentrant": reentrant}} if on else {}
        run = trainer(tmp_path, penalty=Penalty("mse", 30), gradient_checkpointing=on, **how, optim="sgd")
        run.train()
        ends.append(run.model)
    for a, b, start in zip(*(model.parameters() for model in (*ends, tiny.llama())), strict=True):
        torch.testing.assert_close(a, b)
        assert not torch.equal(a, start)


def test_a_stream_that_does_not_train_is_refused(tmp_path):
    model = tiny.llama()
    model.model.requires_grad_(False)
    with pytest.raises(ModelError, match="let a layer train"):
        trainer(tmp_path, model, penalty=Penalty("cosine")).train()


def test_the_penalty_that_is_logged_is_the_mean_of_the_steps_since_the_last(tmp_path):
    def found(**options):
        data = rows((8,) * 16)
        return [e["penalty"] for e in logged(trainer(tmp_path, data=data, penalty=Penalty(), max_steps=4, **options))]

    each, pairs = found(logging_steps=1), found(logging_steps=2)
    assert pairs == pytest.approx([sum(each[:2]) / 2, sum(each[2:]) / 2], rel=1e-6)


def test_evaluation_leaves_the_penalty_out(tmp_path):
    run = trainer(tmp_path, penalty=Penalty("cosine", 100))
    found = run.evaluate(rows((8, 3, 5, 8)))["eval_loss"]
    with torch.no_grad():
        own = tiny.llama()(**collate(rows((8, 3, 5, 8)))).loss.item()
    assert found == pytest.approx(own, abs=1e-4)


def test_mixed_precision_trains_with_a_penalty(tmp_path):
    (half,) = logged(trainer(tmp_path, penalty=Penalty("cosine", 3), bf16=True, data=rows((8, 8, 8, 8))))
    (whole,) = logged(trainer(tmp_path, penalty=Penalty("cosine", 3), data=rows((8, 8, 8, 8))))
    assert half["penalty"] == pytest.approx(whole["penalty"], rel=0.02)
    assert half["penalty"] != whole["penalty"]


def test_the_weight_follows_its_schedule(tmp_path):
    weights = {s: [Penalty(weight=2.0, schedule=s).factor(x) for x in (0, 0.05, 0.1, 0.5, 1)] for s in
               ("constant", "warmup", "decay")}  # fmt: skip
    assert weights["constant"] == [2, 2, 2, 2, 2]
    assert weights["warmup"] == pytest.approx([0, 1, 2, 2, 2])
    assert weights["decay"] == pytest.approx([2, 1.9, 1.8, 1, 0])
    run = trainer(tmp_path, penalty=Penalty("mse", 1, schedule="decay"), max_steps=4, learning_rate=0.0)
    found = [entry["penalty"] for entry in logged(run)]
    run = trainer(tmp_path, penalty=Penalty("mse", 1), max_steps=4, learning_rate=0.0)
    whole = [entry["penalty"] for entry in logged(run)]
    assert [a / b for a, b in zip(found, whole, strict=True)] == pytest.approx([1, 0.75, 0.5, 0.25], rel=1e-4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "cosin"}, "cosine, mse, increment, got 'cosin'. Did you mean 'cosine'"),
        ({"schedule": "up"}, "constant, warmup, decay"),
        ({"weight": -0.5}, "weight of 0 or above, got -0.5"),
        ({"weight": float("nan")}, "weight of 0 or above"),
        ({"layers": ()}, "a layer or more"),
        ({"kind": "increment"}, "a target from 0 to 1"),
        ({"kind": "increment", "target": 2.0}, "a target from 0 to 1"),
        ({"target": 0.3}, "increment only, got one for cosine"),
    ],
)
def test_a_wrong_penalty_is_refused_when_it_is_made(options, said):
    with pytest.raises(RectilinearError) as error:
        Penalty(**options)
    assert said in str(error.value)


def test_a_layer_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ModelError, match="from 0 to 2, got 3"):
        trainer(tmp_path, penalty=Penalty(layers=(0, 3)))
