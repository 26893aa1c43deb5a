import gzip
import json

import datasets
import pytest

from rectilinear.data.benchmarks import BENCHMARKS, VARIABLE
from rectilinear.data.preferences import Pairs, read_lessons, read_pairs
from rectilinear.data.tasks import Example, read_task
from rectilinear.errors import TextError

# One row of each task as the Hub has it, the text and label that it becomes.
HUB = {
    "boolq": ({"question": "q", "passage": "p", "label": 1}, [("question: q passage: p", 1)]),
    "multirc": (
        {"paragraph": "p", "question": "q", "answer": "a", "label": 1},
        [("question: q answer: a passage: p", 1)],
    ),
    "cb": ({"premise": "p", "hypothesis": "h", "label": 2}, [("hypothesis: h premise: p", 0)]),
    "rte": ({"premise": "p", "hypothesis": "h", "label": 0}, [("hypothesis: h premise: p", 1)]),
    "copa": (
        {"premise": "p", "choice1": "a", "choice2": "b", "question": "cause", "label": 1},
        [("cause: 1. a 2. b premise: p", 1)],
    ),
    "wic": ({"word": "w", "sentence1": "a", "sentence2": "b", "label": 0}, [("word: w first: a second: b", 0)]),
    "arc_easy": (
        {"question": "q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "B"},
        [("question: q answer: a", 0), ("question: q answer: b", 1)],
    ),
}
# The same as files of the published form, where that differs.
FILES = {
    **HUB,
    "boolq": ({"question": "q", "passage": "p", "label": True}, HUB["boolq"][1]),
    "multirc": (
        {"passage": {"text": "p", "questions": [{"question": "q", "answers": [{"text": "a", "label": 1}]}]}},
        HUB["multirc"][1],
    ),
    "cb": ({"premise": "p", "hypothesis": "h", "label": "neutral"}, HUB["cb"][1]),
    "rte": ({"premise": "p", "hypothesis": "h", "label": "entailment"}, HUB["rte"][1]),
    "wic": ({"word": "w", "sentence1": "a", "sentence2": "b", "label": False}, HUB["wic"][1]),
    "arc_easy": ({"question": "q", "choices": ["a", "b"], "label": 1}, HUB["arc_easy"][1]),
}
OTHER = {"boolq": False, "multirc": 0, "cb": "entailment", "rte": "not_entailment", "copa": 0, "wic": True}


def other(name, row):
    """Return the row with its label turned, so that both classes are there."""
    if name == "arc_easy":
        return row
    if name == "multirc" and "passage" in row:
        question = {"question": "q", "answers": [{"text": "b", "label": 0}, {"text": " ", "label": 1}]}
        return {"passage": {"text": "p", "questions": [question]}}
    return {**row, "label": OTHER[name]}


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(json.dumps(row) for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.fixture(autouse=True)
def no_data(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_comes_from_the_hub(name, monkeypatch):
    asked = []

    def load_dataset(*args, split, streaming):
        asked.append((*args, split))
        assert streaming
        return [HUB[name][0], other(name, HUB[name][0])]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    task = read_task(name)
    judges = "test" if name == "arc_easy" else "validation"
    assert [part[-1] for part in asked] == ["train", judges] and len({part[:2] for part in asked}) == 1
    assert task.source == ":".join(asked[0][:2])
    assert set(HUB[name][1]) <= {(e.text, e.label) for e in task.train}
    assert {e.label for e in task.test} == {0, 1}


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_comes_from_files_of_the_same_fields(name, tmp_path, monkeypatch):
    benchmark = BENCHMARKS[name]
    row = FILES[name][0]
    for split in benchmark.splits.values():
        write(tmp_path / benchmark.local.format(split=split[1]), [row, other(name, row)])
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    monkeypatch.setattr(datasets, "load_dataset", None)
    task = read_task(name)
    assert set(FILES[name][1]) <= {(e.text, e.label) for e in task.train}
    assert len(task.train) == len(task.test) == {"arc_easy": 4}.get(name, 2)  # no blank answer of MultiRC
    assert "$RECTILINEAR_DATA" in task.source


def test_real_files_have_the_published_sizes(data, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(data))
    for name, sizes in {"boolq": (9427, 3270), "cb": (250, 56), "rte": (2490, 277), "multirc": (27240, 4848)}.items():
        task = read_task(name)
        assert (len(task.train), len(task.test)) == sizes
    assert read_task("rte").majority == pytest.approx(146 / 277)
    assert len({e.group for e in read_task("multirc").test}) == 83  # passages
    assert sum(e.label for e in read_task("cb").train) == 115
    assert any("contradiction and neutral" in note for note in read_task("cb").notes)


def test_answers_of_one_passage_are_of_one_group(tmp_path, monkeypatch):
    answers = [{"text": str(i), "label": i % 2} for i in range(4)]
    rows = [{"passage": {"text": t, "questions": [{"question": "q", "answers": answers}]}} for t in ("p", "r")]
    for split in ("train", "val"):
        write(tmp_path / f"superglue/MultiRC_{split}.jsonl.gz", rows)
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    groups = {e.text[-1]: e.group for e in read_task("multirc").test}
    assert groups == {"p": 0, "r": 1} and all(e.group == groups[e.text[-1]] for e in read_task("multirc").test)


def test_ones_own_rows_have_a_text_or_a_question_and_a_passage(tmp_path):
    rows = [{"text": "t", "label": "spam"}, {"question": "q", "passage": "p", "label": "ham"}] * 10
    task = read_task(str(write(tmp_path / "own.jsonl", rows)), seed=3)
    assert task.labels == ("ham", "spam") and (len(task.train), len(task.test)) == (16, 4)
    found = {(e.text, e.label) for e in (*task.train, *task.test)}
    assert found == {("t", 1), ("question: q passage: p", 0)}
    assert "own.jsonl has no part that judges: 4 of its 20 rows" in task.notes[0]
    assert read_task(str(tmp_path / "own.jsonl"), seed=3) == task
    assert read_task(str(tmp_path / "own.jsonl"), seed=4) != task


def test_another_file_judges_where_it_is_named(tmp_path):
    train = write(tmp_path / "a.jsonl", [{"text": f"t{i}", "label": i % 2 == 0} for i in range(6)])
    test = write(tmp_path / "b.jsonl.gz", [{"text": f"u{i}", "label": i % 2 == 0} for i in range(4)])
    task = read_task(str(train), test=str(test))
    assert task.labels == ("False", "True") and task.notes == ()
    assert sorted(e.text for e in task.test) == ["u0", "u1", "u2", "u3"]
    assert Example("t0", 1, 0) in task.train


def test_limits_keep_examples_drawn_by_the_seed(tmp_path):
    path = write(tmp_path / "own.jsonl", [{"text": f"t{i}", "label": i % 2} for i in range(200)])
    few = read_task(str(path), train_limit=20, test_limit=10, seed=1)
    whole = read_task(str(path), seed=1)
    assert (len(few.train), len(few.test)) == (20, 10)
    assert set(few.train) < set(whole.train) and set(few.test) < set(whole.test)
    assert [e.text for e in few.train] != sorted(e.text for e in few.train)


def test_the_majority_is_that_of_what_learns(tmp_path):
    train = write(tmp_path / "a.jsonl", [{"text": "t", "label": label} for label in (0, 0, 0, 1)])
    test = write(tmp_path / "b.jsonl", [{"text": "t", "label": label} for label in (1, 1, 1, 0)])
    assert read_task(str(train), test=str(test)).majority == 0.25


def test_what_is_missing_is_named_with_file_and_line(tmp_path):
    own = tmp_path / "own.jsonl"
    cases = [
        ('{"text": "a", "label": 1}\n\n{"text": "b"}', "field 'label' in line 3 of own.jsonl, got text"),
        ('{"question": "a", "label": 1}', "field 'passage' in line 1 of own.jsonl, got question, label"),
        ('{"label": 1}', "field 'text' in line 1 of own.jsonl, got label"),
        ('{"text": " ", "label": 1}', "text in the field 'text' of line 1 of own.jsonl, got blank text"),
        ('{"text": ["a"], "label": 1}', "got list"),
        ('{"text": "a", "label": [1]}', "expected a class in the field 'label' of line 1 of own.jsonl, got list"),
        ('{"text": "a", "label": 1}\n{"text": "b", "label": 1}', "expected two classes in .*, got 1: 1"),
        ("\n".join(f'{{"text": "a", "label": {i}}}' for i in range(7)), "got 7: 0, 1, 2, 3, 4 ..."),
        ("", "got 0: no rows"),
        ("\n".join(f'{{"text": "a", "label": {i == 9}}}'.lower() for i in range(10)), "expected both classes"),
    ]
    for text, said in cases:
        own.write_text(text)
        with pytest.raises(TextError, match=said):
            read_task(str(own))


def test_wrong_rows_of_a_benchmark_are_named_too(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    cases = [
        ("boolq", {"question": "q", "passage": "p", "label": "maybe"}, "a label of False, True in line 1 of BoolQ"),
        ("boolq", {"question": "q", "label": True}, "field 'passage' in line 1 of BoolQ_train.jsonl.gz"),
        ("cb", {"premise": "p", "hypothesis": "h", "label": 3}, "entailment, contradiction, neutral in line 1"),
        ("multirc", {"passage": "p"}, "expected an object in the field 'passage' of line 1 of MultiRC"),
        ("multirc", {"passage": {"text": "p"}}, "field 'questions' in passage of line 1 of MultiRC"),
        (
            "arc_easy",
            {"question": "q", "choices": {"text": ["a"], "label": ["A"]}, "answerKey": "E"},
            "an answerKey of A in line 1 of arc_easy_train.jsonl.gz, got 'E'",
        ),
    ]
    for name, row, said in cases:
        write(tmp_path / BENCHMARKS[name].local.format(split="train"), [row])
        with pytest.raises(TextError, match=said):
            read_task(name)


def test_an_unknown_task_brings_the_nearest_names(tmp_path):
    with pytest.raises(TextError, match=r"Did you mean 'boolq'"):
        read_task("bolq")
    with pytest.raises(TextError, match=r"got neither: .*gone.jsonl"):
        read_task(str(tmp_path / "gone.jsonl"))
    with pytest.raises(TextError, match=r"expected no test file for cb"):
        read_task("cb", test="x.jsonl")


PAIRS = [{"chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(20)]


def test_pairs_come_from_the_hub(monkeypatch):
    asked = []

    def load_dataset(name, config, *, split, streaming, data_dir):
        asked.append((name, split, data_dir))
        return [*PAIRS, {"chosen": "same", "rejected": "same"}]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    pairs = read_pairs(train_limit=7)
    assert asked == [("Anthropic/hh-rlhf", split, "helpful-base") for split in ("train", "test")]
    assert (len(pairs.train), len(pairs.test)) == (7, 20)
    assert pairs.notes == ("1 of 21 pairs are twice the same text and left out.",) * 2


def test_pairs_come_from_files(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    write(tmp_path / "hh_rlhf/helpful-base_test.jsonl.gz", PAIRS)
    pairs = read_pairs()
    assert (len(pairs.train), len(pairs.test)) == (16, 4) and "4 of its 20 pairs" in pairs.notes[0]
    assert not set(pairs.train) & set(pairs.test)
    own = write(tmp_path / "own.jsonl", PAIRS[:5])
    judged = read_pairs(str(tmp_path / "hh_rlhf/helpful-base_test.jsonl.gz"), test=str(own), test_limit=3)
    assert (len(judged.train), len(judged.test)) == (20, 3)


def test_pairs_that_say_nothing_are_refused(tmp_path):
    own = write(tmp_path / "own.jsonl", [{"chosen": "a", "rejected": "a "}] * 10)
    with pytest.raises(TextError, match=r"expected pairs of two texts, got 10 in .*own\.jsonl that are each twice"):
        read_pairs(str(own))
    write(own, [{"chosen": "a", "rejected": "b"}])
    with pytest.raises(TextError, match=r"to judge in .*own\.jsonl, got 1 and 0: give more pairs"):
        read_pairs(str(own))
    write(own, [{"chosen": "a"}])
    with pytest.raises(TextError, match=r"field 'rejected' in line 1 of own\.jsonl, got chosen"):
        read_pairs(str(own))
    with pytest.raises(TextError, match="no test file for reward"):
        read_pairs(test="x.jsonl")


def test_one_name_stands_for_a_task_or_for_pairs(tmp_path, monkeypatch):
    own = tmp_path / "own.jsonl"
    write(own, PAIRS)
    assert isinstance(read_lessons(str(own), test_limit=2), Pairs)
    write(own, [{"text": str(i), "label": i % 2} for i in range(20)])
    assert len(read_lessons(str(own), test_limit=2).test) == 2
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    write(tmp_path / "hh_rlhf/helpful-base_test.jsonl.gz", PAIRS)
    assert read_lessons("reward").name == "reward"
    for name, meant in (("Rewrad", "reward"), ("bolq", "boolq")):
        with pytest.raises(TextError, match=rf"arc_easy, reward\) or .* got '{name}'. Did you mean '{meant}'"):
            read_lessons(name)
    write(own, [{"rejected": "a"}, *PAIRS])
    with pytest.raises(TextError, match=r"field 'chosen' in line 1 of own\.jsonl, got rejected"):
        read_lessons(str(own))


def test_real_pairs(data, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(data))
    pairs = read_pairs()
    assert len(pairs.train) + len(pairs.test) == 2352 and "2 of 2354 pairs" in pairs.notes[0]
