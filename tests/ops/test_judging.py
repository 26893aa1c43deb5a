from __future__ import annotations

import json
import time

import pytest

import tiny
from grader import GOOD, grader
from rectilinear.errors import ResultError, TextError
from rectilinear.ops.judging import client as line
from rectilinear.ops.judging.client import Client, JudgeError, Pace
from rectilinear.ops.judging.completions import completions
from rectilinear.ops.judging.rubric import messages, parse
from rectilinear.ops.judging.run import Settings, estimate, judge
from rectilinear.results.judging import GRADES, Completion

pytest.importorskip("openai", reason="needs the extra judge")
PROMPTS = ("w1 w2 w3", "w4 w5")
KEY = "sk-very-secret"


@pytest.fixture(scope="module")
def model():
    return tiny.llama(initializer_range=0.3)


def graded(model, url, journal=None, **options):
    settings = Settings(**{"judges": ("referee",), "tokens": 5, "parallel": 1, **options})
    return judge(model, tiny.tokenizer(), PROMPTS, Client(url, KEY, timeout=1.0), settings, journal=journal)


def grades(*values):
    return json.dumps(dict(zip(GRADES, values, strict=True)))


def test_means_are_those_of_the_grades(model):
    answers = [grades(1, 2, 3, 4), grades(3, 4, 5, 10)]
    with grader(lambda number, body: answers[number]) as (url, seen):
        result = graded(model, url)
    assert {name: mean.mean for name, mean in result.means.items()} == {
        "grammar": 2, "creativity": 3, "consistency": 4, "plot": 7, "mean": 4,
    }  # fmt: skip
    plot = result.means["plot"]
    assert plot.low <= plot.mean <= plot.high and (plot.low, plot.high) == (4, 10)
    assert result.provenance["tokens_in"] == 200 and result.provenance["tokens_out"] == 40
    assert not result.agreement and not result.warnings
    assert [one["model"] for one in seen] == ["referee"] * 2
    assert seen[0]["authorization"] == f"Bearer {KEY}" and seen[0]["path"] == "/v1/chat/completions"
    start, end = seen[0]["messages"][1]["content"].split(" *** ")
    assert start == PROMPTS[0] and end == result.completions[0].text.strip()
    assert KEY not in result.to_json()


def test_a_completion_is_what_the_model_gives(model):
    import torch

    one = next(completions(model, tiny.tokenizer(), PROMPTS, samples=1, tokens=4, temperature=0, seed=0))
    ids = tiny.tokenizer()(PROMPTS[0], return_tensors="pt")["input_ids"]
    for _ in range(4):
        ids = torch.cat([ids, model(ids).logits[:, -1].argmax(-1, keepdim=True)], 1)
    assert one.text == tiny.tokenizer().decode(ids[0, 3:])


def test_who_goes_no_further_keeps_gradients_and_the_models_mode(model):
    import torch

    model.train()
    try:
        begun = completions(model, tiny.tokenizer(), PROMPTS, samples=2, tokens=4, temperature=0, seed=0)
        next(begun)
        assert model.training and torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    finally:
        model.eval()


def test_completions_do_not_depend_on_where_the_run_began(model):
    def made(start):
        options = {"samples": 2, "tokens": 6, "temperature": 1.0, "seed": 5, "start": start}
        return list(completions(model, tiny.tokenizer(), PROMPTS, **options))

    assert made(0)[2:] == made(1)
    assert len({one.text for one in made(0)}) == 4


def test_a_prompt_that_fills_the_context_is_refused(model):
    short = tiny.llama(max_position_embeddings=3)
    with pytest.raises(TextError, match="got 3 in prompt 1"):
        list(completions(short, tiny.tokenizer(), PROMPTS, samples=1, tokens=4, temperature=0, seed=0))


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (GOOD, True),
        (f"```json\n{GOOD}\n```", True),
        (f"Here: {GOOD} as asked.", True),
        ("", False),
        (None, False),
        ("{", False),
        ("[8, 6, 7, 5]", False),
        (grades(8, 6, 7, 11), False),
        (grades(8, 6, 7, 0), False),
        (grades(8, 6, 7, 5.5), False),
        (grades(8, 6, 7, "5"), False),
        (grades(True, 6, 7, 5), False),
        ('{"grammar": 8, "creativity": 6, "plot": 7}', False),
    ],
)
def test_what_counts_as_an_answer(answer, found):
    assert parse(answer) == (json.loads(GOOD) if found else None)


def test_a_malformed_answer_is_asked_for_again(model):
    with grader(lambda number, body: "no idea" if number == 0 else GOOD) as (url, seen):
        result = graded(model, url)
    assert len(seen) == 3 and all(one.grades for one in result.graded)
    assert result.graded[0].tokens_in == 200  # both tries are paid for


def test_a_judge_that_never_answers_in_form_is_counted_not_guessed(model):
    def behave(number, body):
        return "seven" if PROMPTS[0] in body["messages"][1]["content"] else GOOD

    with grader(behave) as (url, _):
        result = graded(model, url)
    assert [one.grades is None for one in result.graded] == [True, False]
    assert result.means["mean"].mean == 6.5
    assert "1 of 2 gradings" in result.warnings[0]


def test_rate_limits_and_broken_servers_are_waited_out(model):
    trouble = [429, 503, 429]
    with grader(lambda number, body: trouble[number] if number < len(trouble) else GOOD) as (url, seen):
        assert all(one.grades for one in graded(model, url).graded)
    assert len(seen) == 5


@pytest.mark.parametrize(
    ("what", "said"), [("hang", "did not answer in time"), ("cut", "cannot reach"), (429, "status 429")]
)
def test_a_run_that_stops_is_taken_up_where_it_stopped(model, tmp_path, monkeypatch, what, said):
    monkeypatch.setattr(line, "RETRIES", 0)
    journal = tmp_path / "kept.jsonl"
    with (
        grader(lambda number, body: GOOD if number == 0 else what) as (url, _),
        pytest.raises(JudgeError, match=f"{said}.*1 gradings are kept in .*run again"),
    ):
        graded(model, url, journal)
    assert KEY not in journal.read_text()
    with journal.open("a") as file:
        file.write('{"graded": {"pro')  # killed in the middle of a line
    with grader(lambda number, body: GOOD) as (url, seen):
        resumed = graded(model, url, journal)
    assert len(seen) == 1 and len(resumed.graded) == 2
    assert not journal.exists()
    with grader(lambda number, body: GOOD) as (url, _):
        whole = graded(model, url)
    assert resumed.completions == whole.completions and resumed.means == whole.means


def test_grades_under_other_settings_are_not_mixed_in(model, tmp_path, monkeypatch):
    monkeypatch.setattr(line, "RETRIES", 0)
    journal = tmp_path / "kept.jsonl"
    with grader(lambda number, body: 500) as (url, _):
        with pytest.raises(JudgeError):
            graded(model, url, journal)
        with pytest.raises(ResultError, match="with another seed, another tokens"):
            graded(model, url, journal, tokens=6, seed=1)
        journal.write_text(journal.read_text().replace("completion", "complexion"))
        with pytest.raises(ResultError, match="is damaged"):
            graded(model, url, journal)


def test_a_key_that_is_refused_is_not_shown(model):
    with grader(lambda number, body: (401, f"Incorrect key {KEY}")) as (url, _), pytest.raises(JudgeError) as stop:
        graded(model, url)
    assert "does not accept the key" in str(stop.value) and KEY not in str(stop.value)
    with grader(lambda number, body: (404, f"no model for {KEY}")) as (url, _), pytest.raises(JudgeError) as stop:
        graded(model, url)
    assert "no model for ***" in str(stop.value)


def test_a_judge_without_a_key_is_refused_but_on_this_machine():
    with pytest.raises(JudgeError, match="--key-env"):
        Client("https://judge.example/v1", None)
    Client("http://localhost:8000/v1", None)


def test_agreement_of_two_gradings(model):
    with grader(lambda number, body: grades(5 + number % 2, 1 + 9 * (number % 2), 5, 2 + number // 2)) as (url, _):
        agreed = graded(model, url, repeats=2).agreement
    assert agreed["grammar"].pairs == 2
    assert [agreed[name].within_one for name in GRADES] == [1, 0, 1, 1]
    assert agreed["grammar"].kappa == pytest.approx(-1) and agreed["creativity"].kappa == pytest.approx(-1)
    assert agreed["consistency"].kappa is None  # nothing to disagree about
    assert agreed["plot"].kappa == pytest.approx(1)


def test_kappa_is_that_of_scikit_learn():
    from sklearn.metrics import cohen_kappa_score

    from rectilinear.ops.judging.run import _agreement
    from rectilinear.results.judging import Graded

    pairs = [(3, 4), (7, 7), (1, 5), (9, 8), (2, 2)]
    valid = [
        Graded(number, 0, "referee", repeat, dict.fromkeys(GRADES, value))
        for number, pair in enumerate(pairs)
        for repeat, value in enumerate(pair)
    ]
    both = [*pairs, *((b, a) for a, b in pairs)]
    labels = list(range(1, 11))
    expected = cohen_kappa_score(*zip(*both, strict=True), labels=labels, weights="quadratic")
    assert _agreement(valid, "plot").kappa == pytest.approx(expected)


def test_several_judges_grade_the_same_completions(model):
    with grader(lambda number, body: GOOD) as (url, seen):
        result = graded(model, url, judges=("first", "second"), repeats=2, parallel=3)
    assert sorted(one["model"] for one in seen) == ["first"] * 4 + ["second"] * 4
    assert result.agreement["plot"].pairs == 2 * 6


def test_requests_keep_their_pace():
    pace = Pace(per_minute=1200)
    start = time.monotonic()
    for _ in range(4):
        pace.wait()
    assert time.monotonic() - start >= 3 * 0.05


def test_the_estimate_counts_every_request():
    one = estimate(PROMPTS, Settings(("a",), tokens=50))
    many = estimate(PROMPTS, Settings(("a", "b"), samples=2, repeats=3, tokens=50))
    assert one.requests == 2 and many.requests == 24
    assert many.tokens_in == 12 * one.tokens_in
    characters = sum(len(m["content"]) for p in PROMPTS for m in messages(Completion(0, 0, p, "")))
    assert one.tokens_in == characters // 4 + 100
    assert one.cost((1e6, 0)) == one.tokens_in
