"""Published tasks of two classes: where they come from, and how their rows become texts and labels.

What is asked stands first and the long passage last, as in "question: ... passage: ...", so that what a short context
cuts off is the passage's end. To add one: a function from a row to (group, text, label) and a line in BENCHMARKS.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rectilinear.data.rows import Row, rows_of
from rectilinear.errors import TextError

VARIABLE = "RECTILINEAR_DATA"
Made = Iterator[tuple[Hashable, str, int]]

ENTAILS = ("entailment", "contradiction", "neutral")  # of CB, in the Hub's order
FOLLOWS = ("entailment", "not_entailment")  # of RTE


@dataclass(frozen=True)
class Benchmark:
    """A task on the Hub, or as files of the same fields in the folder that $RECTILINEAR_DATA names.

    hub: name[:config]; local: a path below that folder with {split}; splits: what the parts that learn and judge are
    called, as (Hub, local); labels: of class 0 and 1; examples: makes (group, text, label) of a row.
    """

    hub: str
    local: str
    labels: tuple[str, str]
    examples: Callable[[Row], Made]
    splits: dict[str, tuple[str, str]]
    notes: tuple[str, ...] = ()


def benchmark_rows(benchmark: Benchmark, split: str) -> tuple[Iterable[Row], str]:
    """Return the rows of "train" or "test", and what their source is called; raises TextError while reading."""
    online, offline = benchmark.splits[split]
    folder = os.environ.get(VARIABLE)
    file = Path(folder).expanduser() / benchmark.local.format(split=offline) if folder else None
    if file is not None and file.is_file():
        return rows_of(str(file)), f"{Path(benchmark.local).parent.name} in ${VARIABLE}"
    return rows_of(f"{benchmark.hub}#{online}"), benchmark.hub


def _boolq(row: Row) -> Made:
    passage = row.text("passage")
    yield passage, f"question: {row.text('question')} passage: {passage}", _class(row, (False, True), True)


def _entailment(names: Sequence[str]) -> Callable[[Row], Made]:
    def examples(row: Row) -> Made:
        premise = row.text("premise")
        text = f"hypothesis: {row.text('hypothesis')} premise: {premise}"
        yield premise, text, _class(row, names, "entailment")

    return examples


def _copa(row: Row) -> Made:
    text = f"{row.text('question')}: 1. {row.text('choice1')} 2. {row.text('choice2')} premise: {row.text('premise')}"
    yield text, text, _class(row, (0, 1), 1)


def _wic(row: Row) -> Made:
    text = f"word: {row.text('word')} first: {row.text('sentence1')} second: {row.text('sentence2')}"
    yield text, text, _class(row, (False, True), True)


def _multirc(row: Row) -> Made:
    """Give an example an answer, blank ones left out; the published files nest them, the Hub has a row for each."""
    if "passage" not in row.values:
        yield from _answer(row, "answer", row.text("paragraph"), row.text("question"))
        return
    passage = row.inside(row.value("passage"), "passage")
    for asked in passage.items("questions"):
        question = passage.inside(asked, "questions")
        for answer in question.items("answers"):
            each = question.inside(answer, "answers")
            yield from _answer(each, "text", passage.text("text"), question.text("question"))


def _answer(row: Row, name: str, passage: str, question: str) -> Made:
    answer = row.value(name)
    if not isinstance(answer, str) or answer.strip():
        yield passage, f"question: {question} answer: {row.text(name)} passage: {passage}", _class(row, (0, 1), 1)


def _arc(row: Row) -> Made:
    """Give an example a choice: the right one or not."""
    question, choices = row.text("question"), row.value("choices")
    if isinstance(choices, dict):  # the Hub's
        inside, key = row.inside(choices, "choices"), row.text("answerKey")
        known, choices = inside.items("label"), inside.items("text")
        if key not in known:
            raise TextError(f"expected an answerKey of {', '.join(map(str, known))} in {row.place}, got {key!r}")
        right = known.index(key)
    else:
        choices, right = row.items("choices"), row.value("label")
    for number, choice in enumerate(choices):
        yield question, f"question: {question} answer: {choice}", int(number == right)


def _class(row: Row, names: Sequence[Any], positive: Any) -> int:
    """Return 1 where the label, by name or by its place among `names`, is `positive`; raises TextError for others."""
    label = row.value("label")
    if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(names):
        label = names[label]
    if label not in names:
        raise TextError(f"expected a label of {', '.join(map(str, names))} in {row.place}, got {label!r}")
    return int(label == positive)


def _superglue(name: str, labels: tuple[str, str], examples: Callable[[Row], Made], *notes: str) -> Benchmark:
    return Benchmark(
        f"aps/super_glue:{name.lower()}",
        f"superglue/{name}_{{split}}.jsonl.gz",
        labels,
        examples,
        {"train": ("train", "train"), "test": ("validation", "val")},
        notes,
    )


BENCHMARKS = {
    "boolq": _superglue("BoolQ", ("no", "yes"), _boolq),
    "multirc": _superglue(
        "MultiRC", ("wrong", "right"), _multirc, "MultiRC: one example an answer; blank answers are left out."
    ),
    "cb": _superglue(
        "CB",
        ("not entailment", "entailment"),
        _entailment(ENTAILS),
        "CB has three classes; contradiction and neutral are taken as one, not entailment, as in RTE.",
    ),
    "rte": _superglue("RTE", ("not entailment", "entailment"), _entailment(FOLLOWS)),
    "copa": _superglue("COPA", ("first", "second"), _copa),
    "wic": _superglue("WiC", ("different", "same"), _wic),
    "arc_easy": Benchmark(
        "allenai/ai2_arc:ARC-Easy",
        "arc_easy/arc_easy_{split}.jsonl.gz",
        ("wrong", "right"),
        _arc,
        {"train": ("train", "train"), "test": ("test", "test")},
        ("ARC-easy: one example a choice, the right one or not.",),
    ),
}
