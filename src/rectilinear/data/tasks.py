"""Tasks of two classes, for probes and fine-tuning: examples to learn from and examples that judge."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from rectilinear.data.benchmarks import BENCHMARKS, Benchmark, benchmark_rows
from rectilinear.data.rows import Row, rows_of
from rectilinear.errors import TextError, nearest

T = TypeVar("T")
TEST_SHARE = 0.2  # of the examples, where a source has no part that judges
SHOWN = 5  # classes named in an error


@dataclass(frozen=True)
class Example:
    """A text and its class, 0 or 1. Examples of one group (of one passage, one question) are not independent."""

    text: str
    label: int
    group: int


@dataclass(frozen=True)
class Task:
    """A task of two classes. labels: what 0 and 1 are called; train learns, test judges; notes: what was done to it."""

    name: str
    source: str
    labels: tuple[str, str]
    train: tuple[Example, ...]
    test: tuple[Example, ...]
    notes: tuple[str, ...] = ()

    @property
    def majority(self) -> float:
        """Accuracy on `test` of always saying the class that is more frequent in `train`."""
        usual = int(2 * sum(example.label for example in self.train) > len(self.train))
        return sum(example.label == usual for example in self.test) / len(self.test)


def read_task(
    name: str, *, test: str | None = None, train_limit: int | None = None, test_limit: int | None = None, seed: int = 0
) -> Task:
    """Return a task by name (see `BENCHMARKS`), or one of the user's own.

    A benchmark comes from the folder named by $RECTILINEAR_DATA, where that holds it, else from the Hub. One's own is a
    jsonl or parquet file whose rows have `label` and `text`, or `label`, `question` and `passage`; `test` names another
    one that judges, by default a fifth of the rows of each class does. Any two values can be the classes: the one that
    is sorted first is 0. Both parts are shuffled by `seed`; `train_limit` and `test_limit` keep so many examples.

    Raises TextError for an unknown name, a missing or empty field (with file and line), and for any other number of
    classes than two in either part.
    """
    if name in BENCHMARKS:
        if test is not None:
            raise TextError(f"expected no test file for {name}, which has a part of its own that judges, got {test}")
        task = _benchmark(name, BENCHMARKS[name])
    elif is_file(name):
        task = _own(name, test, seed)
    else:
        raise unknown_task(name, BENCHMARKS)
    kept = replace(task, train=drawn(task.train, seed)[:train_limit], test=drawn(task.test, seed)[:test_limit])
    for part, examples in (("train", kept.train), ("test", kept.test)):
        if len({example.label for example in examples}) < 2:
            raise TextError(
                f"expected both classes ({' and '.join(kept.labels)}) among the {len(examples)} {part} examples of "
                f"{name}, got one: give more examples"
            )
    return kept


def is_file(name: str) -> bool:
    """Tell whether a name is that of a file of rows, be it there or not."""
    return Path(name).expanduser().is_file() or Path(name.removesuffix(".gz")).suffix in (".jsonl", ".json", ".parquet")


def unknown_task(name: str, known: Iterable[str]) -> TextError:
    """Return the error for a name that is neither a file nor among the `known`."""
    return TextError(
        f"expected a task ({', '.join(known)}) or a jsonl or parquet file, got {name!r}.{nearest(name.lower(), known)}"
    )


def drawn(rows: Sequence[T], seed: int) -> tuple[T, ...]:
    """Return the rows in an order drawn by the seed."""
    return tuple(rows[index] for index in np.random.default_rng(seed).permutation(len(rows)))


def _benchmark(name: str, benchmark: Benchmark) -> Task:
    parts, source = {}, ""
    for split in ("train", "test"):
        rows, source = benchmark_rows(benchmark, split)
        parts[split] = tuple(_numbered(benchmark.examples(row) for row in rows))
    return Task(name, source, benchmark.labels, parts["train"], parts["test"], benchmark.notes)


def _numbered(groups: Iterable[Iterable[tuple[Hashable, str, int]]]) -> Iterator[Example]:
    """Yield the examples of every row, their groups (any keys) as numbers."""
    numbers: dict[Hashable, int] = {}
    for examples in groups:
        for key, text, label in examples:
            yield Example(text, label, numbers.setdefault(key, len(numbers)))


def _own(name: str, test: str | None, seed: int) -> Task:
    train = list(_labelled(rows_of(name)))
    judging = None if test is None else list(_labelled(rows_of(test)))
    labels = _classes([label for _, label in (*train, *(judging or []))], name)

    def examples(rows: Sequence[tuple[str, Any]]) -> tuple[Example, ...]:
        return tuple(Example(text, labels.index(label), number) for number, (text, label) in enumerate(rows))

    called, known = (str(labels[0]), str(labels[1])), Path(name).name
    if judging is not None:
        return Task(known, known, called, examples(train), examples(judging))
    kept: list[Example] = []
    judges: list[Example] = []
    for label in (0, 1):  # a share of each class
        learns, rest = parted(drawn([example for example in examples(train) if example.label == label], seed))
        kept += learns
        judges += rest
    note = f"{known} has no part that judges: {len(judges)} of its {len(train)} rows, drawn by the seed, do."
    return Task(known, known, called, tuple(kept), tuple(judges), (note,))


def parted(rows: Sequence[T]) -> tuple[tuple[T, ...], tuple[T, ...]]:
    """Return rows, in a drawn order, as those that learn and the share of them that judges."""
    count = round(TEST_SHARE * len(rows))
    return tuple(rows[count:]), tuple(rows[:count])


def _labelled(rows: Iterable[Row]) -> Iterator[tuple[str, Any]]:
    for row in rows:
        asked = "text" not in row.values and not row.values.keys().isdisjoint(("question", "passage"))
        text = f"question: {row.text('question')} passage: {row.text('passage')}" if asked else row.text("text")
        label = row.value("label")
        if not isinstance(label, (bool, int, float, str)):
            raise TextError(f"expected a class in the field 'label' of {row.place}, got {type(label).__name__}")
        yield text, label


def _classes(found: Sequence[Any], name: str) -> list[Any]:
    labels = sorted(set(found), key=lambda label: (str(type(label)), label))
    if len(labels) != 2:
        shown = ", ".join(map(str, labels[:SHOWN])) + (" ..." if len(labels) > SHOWN else "")
        raise TextError(f"expected two classes in {name}, got {len(labels)}: {shown or 'no rows'}")
    return labels
