import gc
import json
import logging
import math
import sys
import weakref
from dataclasses import replace

import pytest
import torch
import transformers as hf

import rectilinear
import taskdata
import tiny
from rectilinear.ops.tasks.prepare import Tasks, Unit, foresee, prepare
from rectilinear.ops.tasks.run import run_tasks
from rectilinear.ops.tasks.silence import silence

LOCAL = ("arc_easy", "boolq", "cb", "copa", "lambada_openai", "multirc", "rte", "sglue_rte", "wic", "wikitext")
PASSAGES = [(row["context"], f" {row['continuation']}") for row in taskdata.LAMBADA]
# Of the first document: a context, a continuation, and what is right.
FIRST = {
    "arc_easy": ("Question: w1 w21\nAnswer:", " w1 w4", 1),
    "boolq": ("w1 -- w2\nQuestion: is w1?\nAnswer:", " no", 0),
    "cb": ("w0 w1?\nQuestion: w0. True, False, or Neither?\nAnswer:", " True", 1),
    "copa": ("W1 w2 therefore", "  w3 w4.", " w5."),
    "lambada_openai": ("w1 w6 w10,", " w4", " w4"),
    "multirc": ("w1 w2.\nQuestion: w1?\nAnswer:", " w2\nIs the answer correct? yes", 1),
    "rte": ("w1 w2.\nQuestion: w3. True or False?\nAnswer:", " True", 1),
    "sglue_rte": ("w1 w2.\nQuestion: w3. True or False?\nAnswer:", " True", 1),
    "wic": (
        "Sentence 1: w1 w2.\nSentence 2: w2 w3.\nQuestion: Is the word 'w2' used in the same way in the two sentences "
        "above?\nAnswer:",
        " no",
        0,
    ),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return taskdata.write(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def at_home(root, tmp_path, monkeypatch):
    """The folder is named, and what the data sets' library makes of it is not kept."""
    import datasets

    monkeypatch.setenv("RECTILINEAR_DATA", str(root))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def model():
    return tiny.llama(initializer_range=0.15)


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = tiny.tokenizer()
    tokenizer.eos_token = "<unk>"
    return tokenizer


def nats(model, tokenizer, context, continuation):
    """The log-likelihood of a continuation, by hand."""
    ids, start = tokenizer(context + continuation)["input_ids"], len(tokenizer(context)["input_ids"])
    with torch.inference_mode():
        p = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return sum(float(p[i - 1, ids[i]]) for i in range(start, len(ids)))


def by_name(scores):
    return {(score.task, score.metric): score for score in scores}


def arc_by_hand(model, tokenizer):
    """Accuracy of ARC by the likeliest choice, as it is and per character."""
    right = [0, 0]
    for row in taskdata.ARC:
        prompt = f"Question: {row['question']}\nAnswer:"
        found = [nats(model, tokenizer, prompt, f" {choice}") for choice in row["choices"]]
        normed = [n / len(choice) for n, choice in zip(found, row["choices"], strict=True)]
        for i, values in enumerate((found, normed)):
            right[i] += values.index(max(values)) == row["label"]
    return [count / len(taskdata.ARC) for count in right]


def test_arc_is_what_log_likelihoods_by_hand_give(model, tokenizer):
    acc, acc_norm = arc_by_hand(model, tokenizer)
    found = by_name(run_tasks(model, tokenizer, prepare(["arc_easy"])))
    score = found["arc_easy", "acc"]
    assert 0 < acc < 1 and acc != acc_norm  # else the test could not fail
    assert (score.value, found["arc_easy", "acc_norm"].value) == (acc, acc_norm)
    assert score.stderr == pytest.approx(math.sqrt(acc * (1 - acc) / (len(taskdata.ARC) - 1)))
    assert (score.n, score.data, score.version, score.higher_is_better) == (8, "local", "1.0", True)


@pytest.mark.parametrize("repair", ["none", "linear"])
def test_cut_models_are_asked_like_any(repair, cuts, dense, tokenizer):
    cut = cuts[repair].model
    both = rectilinear.evaluate(
        {"dense": dense, "cut": cut}, tokenizer, passages=PASSAGES, tasks=["lambada", "arc_easy"], batch_tokens=32
    )
    assert arc_by_hand(cut, tokenizer) != arc_by_hand(dense, tokenizer)
    for model, row in zip((dense, cut), both.models, strict=True):
        found = by_name(row.tasks)
        assert [found["arc_easy", metric].value for metric in ("acc", "acc_norm")] == arc_by_hand(model, tokenizer)
        # The harness and the measure of this package are each other's oracle.
        assert found["lambada_openai", "acc"].value == row.lambada.accuracy
        assert found["lambada_openai", "perplexity"].value == pytest.approx(row.lambada.perplexity, rel=1e-5)
        assert found["lambada_openai", "perplexity"].stderr > 0
        assert found["lambada_openai", "perplexity"].higher_is_better is False
    assert both.provenance["tasks"] == "lambada_openai, arc_easy" and both.provenance["versions"]["lm_eval"]
    assert "lambada_standard was left out" in both.warnings[0] and "Hub" in both.warnings[0]


def test_all_local_tasks_run(model, tokenizer):
    loaded = prepare(LOCAL)
    assert not loaded.notes and all(unit.local for unit in loaded.units)
    found = by_name(run_tasks(model, tokenizer, loaded))
    sizes = {task: score.n for (task, _), score in found.items()}
    assert sizes == dict(zip(LOCAL, (8, 2, 3, 2, 3, 3, 2, 2, 2, 2), strict=True))
    assert found["cb", "f1"].stderr is None and found["cb", "acc"].stderr is not None
    assert math.log2(found["wikitext", "byte_perplexity"].value) == pytest.approx(
        found["wikitext", "bits_per_byte"].value
    )
    assert found["rte", "acc"].value == found["sglue_rte", "acc"].value


@pytest.mark.parametrize("name", FIRST)
def test_local_rows_are_asked_in_the_harness_words(name):
    (unit,) = prepare([name]).units
    task = unit.loaded["tasks"][name]
    with silence():
        task.build_all_requests()
    instance = task.instances[0]
    assert (*instance.arguments, task.doc_to_target(instance.doc)) == FIRST[name]


def test_wikitext_is_cut_into_pages_as_on_the_hub():
    (unit,) = prepare(["wikitext"]).units
    pages = [doc["page"] for doc in unit.loaded["tasks"]["wikitext"].eval_docs]
    assert pages == [" = w1 = \n \n w2 w3 \n = = w4 = = \n w5 ", " = w6 = \n \n w7 w8 \n"]


def test_the_fingerprint_is_of_what_was_asked_and_not_of_its_place(model, tokenizer, root, tmp_path, monkeypatch):
    def fingerprint(limit=None):
        return run_tasks(model, tokenizer, prepare(["arc_easy"], limit))[0].fingerprint

    first = fingerprint()
    assert fingerprint(7) != first
    monkeypatch.setenv("RECTILINEAR_DATA", str(taskdata.write(tmp_path / "elsewhere")))
    assert fingerprint() == first
    changed = [{**row, "label": 0} for row in taskdata.ARC]
    taskdata.write_rows(tmp_path / "elsewhere" / "arc_easy" / "arc_easy_test.jsonl.gz", changed)
    assert fingerprint() != first


def test_the_hubs_rows_and_local_ones_have_one_fingerprint(model, tokenizer, monkeypatch):
    import datasets

    def from_the_hub(path, name, **options):
        assert (path, name, options) == ("allenai/ai2_arc", "ARC-Easy", {})
        rows = [
            {
                "id": f"Mercury_{i}",
                "question": row["question"],
                "choices": {"text": row["choices"], "label": list("1234"[: len(row["choices"])])},
                "answerKey": "1234"[row["label"]],
            }
            for i, row in enumerate(taskdata.ARC)
        ]
        return datasets.DatasetDict(
            {split: datasets.Dataset.from_list(rows) for split in ("train", "validation", "test")}
        )

    local = run_tasks(model, tokenizer, prepare("arc_easy"))
    monkeypatch.delenv("RECTILINEAR_DATA")
    monkeypatch.setattr(datasets, "load_dataset", from_the_hub)
    hub = run_tasks(model, tokenizer, prepare("arc_easy"))
    assert {score.data for score in hub} == {"hub"}
    assert hub == tuple(replace(score, data="hub") for score in local)


def test_a_model_that_was_asked_is_let_go(tokenizer):
    asked = tiny.llama()
    run_tasks(asked, tokenizer, prepare("cb"))
    gone = weakref.ref(asked)
    gc.disable()
    try:
        del asked
        assert gone() is None  # at once, without the collector of circles
    finally:
        gc.enable()


def test_a_group_has_a_line_of_its_own(model, tokenizer):
    from lm_eval.api.group import Group
    from lm_eval.config.group import AggMetricConfig

    loaded = {name: unit.loaded["tasks"][name] for unit in prepare(["arc_easy", "boolq"]).units for name in [unit.name]}
    group = Group(
        "pair", aggregate_metric_list=[AggMetricConfig(metric="acc", weight_by_size=True)], metadata={"version": 3}
    )
    for task in loaded.values():
        group.add(task)
    unit = Unit("pair", False, {"tasks": loaded, "groups": {"pair": group}, "group_map": {}})
    found = by_name(run_tasks(model, tokenizer, Tasks((unit,))))
    whole = found["pair", "acc"]
    assert (whole.n, whole.version, whole.data) == (10, "3", "hub")
    assert whole.value == pytest.approx((8 * found["arc_easy", "acc"].value + 2 * found["boolq", "acc"].value) / 10)
    assert whole.fingerprint not in {found["arc_easy", "acc"].fingerprint, found["boolq", "acc"].fingerprint}


def test_what_cannot_be_had_is_left_out_and_nothing_left_is_an_error(tokenizer, monkeypatch):
    loaded = prepare(["piqa", "arc_easy", "arc_easy"], 2)
    assert [unit.name for unit in loaded.units] == ["arc_easy"] and loaded.limit == 2
    (note,) = loaded.notes
    assert "piqa was left out" in note
    with pytest.raises(rectilinear.RectilinearError, match=r"no task can be run.*piqa"):
        prepare(["piqa"])
    monkeypatch.setattr("lm_eval.api.task.ConfigurableTask.UNSAFE_CODE", True, raising=False)
    with pytest.raises(rectilinear.RectilinearError, match="runs code that a model writes"):
        prepare(["arc_easy"])
    monkeypatch.delenv("RECTILINEAR_DATA")
    with pytest.raises(rectilinear.RectilinearError, match=r"arc_easy was left out.*Hub"):
        prepare(["arc_easy"])


def test_an_empty_file_and_a_wrong_folder_are_clear(tmp_path, monkeypatch):
    monkeypatch.setenv("RECTILINEAR_DATA", str(tmp_path / "gone"))
    with pytest.raises(rectilinear.RectilinearError, match="expected a folder in RECTILINEAR_DATA"):
        prepare(["arc_easy"])
    monkeypatch.setenv("RECTILINEAR_DATA", str(tmp_path))
    taskdata.write_rows(tmp_path / "arc_easy" / "arc_easy_test.jsonl.gz", [])
    with pytest.raises(rectilinear.RectilinearError, match="arc_easy was left out"):
        prepare(["arc_easy"])
    with pytest.raises(rectilinear.RectilinearError, match="local data of the task arc_easy cannot be read"):
        foresee(["arc_easy"])


def test_an_unknown_task_gets_the_nearest_name():
    with pytest.raises(rectilinear.RectilinearError, match=r"got 'arc_eazy'\. Did you mean 'arc_easy'"):
        prepare(["arc_eazy", "cb"])


def test_what_would_be_asked_is_foreseen(monkeypatch):
    told = {task.name: (task.documents, task.requests) for task in foresee(["arc_easy", "lambada"])}
    assert told == {
        "arc_easy": (8, sum(len(row["choices"]) for row in taskdata.ARC)),
        "lambada_openai": (3, 3),
        "lambada_standard": (None, None),
    }
    monkeypatch.setattr("rectilinear.ops.tasks.prepare.TRIED", 2)
    assert foresee(["arc_easy"], 4)[0].requests == 14  # four documents of 3.5 choices each, by the first two


@pytest.mark.parametrize("module", ["lm_eval", "lm_eval.tasks"])
def test_without_the_harness_the_extra_is_named(module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(rectilinear.RectilinearError, match=r"pip install 'rectilinear\[tasks\]'"):
        prepare(["arc_easy"])


def test_an_old_harness_is_refused(monkeypatch):
    monkeypatch.delattr("lm_eval.tasks.TaskManager.load")
    with pytest.raises(rectilinear.RectilinearError, match=r"0.4.12 or newer"):
        prepare(["arc_easy"])


def test_a_model_that_cannot_be_asked_is_one_clear_line(model, tokenizer):
    loaded = prepare(["multirc"])
    with pytest.raises(rectilinear.ModelError, match="fails on the task multirc"):
        run_tasks(tiny.llama(max_position_embeddings=4), tokenizer, loaded)
    broken = tiny.llama()
    with torch.no_grad():
        broken.lm_head.weight.fill_(float("nan"))
    with pytest.raises(rectilinear.NonFiniteError, match="NaN"):
        run_tasks(broken, tokenizer, loaded)
    with pytest.raises(rectilinear.ModelError, match="start or end token"):
        run_tasks(model, tiny.tokenizer(), loaded)


def test_batches_hold_as_many_tokens_as_asked_for_and_the_window_bounds_them(model, tokenizer):
    seen = []
    handle = model.register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape)))
    loaded = prepare(["lambada_openai"])
    run_tasks(model, tokenizer, loaded, batch_tokens=5)
    assert seen == [(1, 4)] * 3  # "w1 w6 w10 ,", of which the last predicts "w4"
    seen.clear()
    run_tasks(model, tokenizer, loaded, batch_tokens=10)
    assert seen == [(2, 4), (1, 4)]
    seen.clear()
    run_tasks(model, tokenizer, loaded, batch_tokens=5, window=2)
    assert [width for _, width in seen] == [2, 2]
    handle.remove()


def test_model_tokenizer_and_process_are_left_as_they_were(model, capsys):
    from tqdm import tqdm

    tokenizer = hf.PreTrainedTokenizerFast(tokenizer_object=tiny.tokenizer().backend_tokenizer, eos_token="<unk>")
    model.train()
    rectilinear.evaluate(model, tokenizer, tasks=["lambada_openai", "cb"])
    assert model.training and tokenizer.pad_token is None
    model.eval()
    assert capsys.readouterr() == ("", "")
    with silence():
        assert tqdm([1], disable=False).disable
        assert not logging.getLogger("huggingface_hub.utils").isEnabledFor(logging.ERROR)
    assert logging.getLogger("huggingface_hub.utils").isEnabledFor(logging.ERROR)
    assert not tqdm([], disable=False, file=sys.stdout).disable


def test_progress_tells_of_requests(model, tokenizer):
    seen = []
    rectilinear.evaluate({"m": model}, tokenizer, tasks=["arc_easy", "wikitext"], on_progress=seen.append)
    assert {state.task for state in seen} == {"arc_easy m", "wikitext m"} and {state.unit for state in seen} == {
        "requests"
    }
    assert (seen[-1].done, seen[-1].total) == (2, 2)
    assert max(state.done for state in seen) == sum(len(row["choices"]) for row in taskdata.ARC)


def test_the_document_reads_back(model, tokenizer):
    result = rectilinear.evaluate(model, tokenizer, tasks=["cb"], tasks_limit=2)
    assert rectilinear.EvalResult.from_dict(json.loads(result.to_json())) == result
    old = result.to_dict()
    del old["models"][0]["tasks"]
    assert rectilinear.EvalResult.from_dict(old).models[0].tasks is None
