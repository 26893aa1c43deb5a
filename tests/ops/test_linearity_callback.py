import json

import pytest
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments

import tiny
from rectilinear.errors import RectilinearError, TextError
from rectilinear.ops.scan import scan
from rectilinear.ops.training.callback import LinearityCallback
from rectilinear.ops.training.profile import profile, profile_pieces


def trainer(out, tokenizer=None, **options):
    torch.manual_seed(1)
    data = [{"input_ids": row, "labels": row} for row in torch.randint(1, tiny.VOCAB, (32, 8))]
    return Trainer(
        model=tiny.llama(),
        args=TrainingArguments(
            str(out),
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
            learning_rate=1e-2,
            **{"max_steps": 5, "logging_steps": 1, "per_device_train_batch_size": 2, "save_strategy": "no", **options},
        ),
        train_dataset=data,
        processing_class=tokenizer,
    )


def measured(run, texts, **options):
    callback = LinearityCallback(run, texts, every=2, tokens=600, window=32, **options)
    run.add_callback(callback)
    return callback


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_profile_is_the_scan_of_the_same_text_with_fewer_figures():
    model, tokenizer, texts = tiny.llama().train(), tiny.tokenizer(), tiny.documents()
    found = profile(model, profile_pieces(model, tokenizer, texts, tokens=600, window=32))
    assert model.training
    told = scan(model, tokenizer, texts, tokens=600, window=32, sink_multiple=float("inf"))
    assert found.tokens_per_d == pytest.approx(told.provenance["tokens_fit"] / 32, abs=0.01)
    for ours, theirs in zip(found.layers, told.layers, strict=True):
        assert ours.score == pytest.approx(theirs.score.heldout, abs=1e-9)
        assert ours.increment == pytest.approx(theirs.increment.heldout, abs=1e-9)
        assert ours.score_paper == pytest.approx(theirs.score.paper, abs=1e-9)
        assert ours.increment_paper == pytest.approx(theirs.increment.paper, abs=1e-9)
        assert ours.cosine == pytest.approx(theirs.cosine, abs=1e-9)
        assert ours.norm_ratio == pytest.approx(theirs.norm_ratio, abs=1e-9)
    assert found.means()["cosine"] == pytest.approx(told.summary()["cosine"], abs=1e-9)


def test_profiles_come_at_the_start_every_so_many_steps_and_at_the_end(tmp_path):
    run = trainer(tmp_path, tiny.tokenizer())
    told = []

    class Logger(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **_):
            told.append((state.global_step, logs))

    run.add_callback(Logger())
    measured(run, tiny.documents())
    run.train()
    found = lines(tmp_path / "linearity.jsonl")
    assert [entry["step"] for entry in found] == [0, 2, 4, 5]
    assert len({entry["layers"][0]["increment"] for entry in found}) == 4
    logs = {step: entry for step, entry in told if "linearity/increment" in entry}
    assert list(logs) == [0, 2, 4, 5]
    for entry in found:
        values = [layer["increment"] for layer in entry["layers"]]
        assert logs[entry["step"]]["linearity/increment"] == pytest.approx(sum(values) / 3)
        assert [logs[entry["step"]][f"linearity/increment/{i:02d}"] for i in range(3)] == values
    assert [entry["step"] for entry in run.state.log_history if "loss" in entry] == [1, 2, 3, 4, 5]
    assert all("linearity/cosine" in entry for entry in run.state.log_history if "linearity/score" in entry)


def test_measuring_changes_nothing_about_the_training(tmp_path):
    ends = []
    for callback in (False, True):
        run = trainer(tmp_path, tiny.tokenizer())
        if callback:
            measured(run, tiny.documents())
        run.train()
        ends.append(run.model)
    for a, b in zip(*(model.parameters() for model in ends), strict=True):
        assert torch.equal(a, b)


def test_a_resumed_run_drops_the_profiles_beyond_its_checkpoint(tmp_path):
    run = trainer(tmp_path, tiny.tokenizer(), save_strategy="steps", save_steps=3)
    measured(run, tiny.documents())
    run.train()
    whole = lines(tmp_path / "linearity.jsonl")
    with (tmp_path / "linearity.jsonl").open("a") as file:
        file.write('{"step": 6, "layers": [{"la')  # what a kill leaves
    again = trainer(tmp_path, tiny.tokenizer(), save_strategy="steps", save_steps=3)
    measured(again, tiny.documents())
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    found = lines(tmp_path / "linearity.jsonl")
    assert [entry["step"] for entry in found] == [0, 2, 4, 5]
    assert found == whole


def test_wrong_use_is_said_before_the_training(tmp_path):
    with pytest.raises(RectilinearError, match="processing_class"):
        LinearityCallback(trainer(tmp_path), tiny.documents())
    with pytest.raises(RectilinearError, match="every 1 steps or more, got 0"):
        LinearityCallback(trainer(tmp_path, tiny.tokenizer()), tiny.documents(), every=0)
    with pytest.raises(TextError, match="at least one window"):
        LinearityCallback(trainer(tmp_path, tiny.tokenizer()), ["w1 w2"])
