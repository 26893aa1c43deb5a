"""Pairs of answers of which people preferred one, for reward models."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rectilinear.data.benchmarks import BENCHMARKS, VARIABLE
from rectilinear.data.rows import Row, rows_of
from rectilinear.data.tasks import Task, drawn, is_file, parted, read_task, unknown_task
from rectilinear.errors import TextError

REWARD = "reward"  # the name of the published pairs
HUB, FOLDER = "Anthropic/hh-rlhf", "helpful-base"
LOCAL = "hh_rlhf/helpful-base_test.jsonl.gz"


@dataclass(frozen=True)
class Pair:
    """Two texts, the first preferred."""

    chosen: str
    rejected: str


@dataclass(frozen=True)
class Pairs:
    """Pairs to learn from and pairs that judge; notes: what was done to them."""

    name: str
    source: str
    train: tuple[Pair, ...]
    test: tuple[Pair, ...]
    notes: tuple[str, ...] = ()


def read_lessons(name: str, *, test: str | None = None, test_limit: int | None = None) -> Task | Pairs:
    """Return what `finetune` learns from by one name: pairs (`read_pairs`) for "reward" or a file of them, else a task.

    Raises TextError as `read_pairs` and `read_task` do.
    """
    if name == REWARD or _are_pairs(name):
        return read_pairs(name, test=test, test_limit=test_limit)
    if name not in BENCHMARKS and not is_file(name):
        raise unknown_task(name, (*BENCHMARKS, REWARD))
    return read_task(name, test=test, test_limit=test_limit)


def read_pairs(
    name: str = REWARD,
    *,
    test: str | None = None,
    train_limit: int | None = None,
    test_limit: int | None = None,
    seed: int = 0,
) -> Pairs:
    """Return pairs by `chosen` and `rejected`: Anthropic's on helpfulness ("reward"), or a jsonl or parquet file.

    Anthropic's come from the folder named by $RECTILINEAR_DATA, where that holds them, else from the Hub. Where a
    source has no part that judges, and no `test` file is named, a fifth of its pairs does, drawn by `seed`. Pairs of
    twice the same text say nothing: they are left out and counted. `train_limit` and `test_limit` keep so many.

    Raises TextError for a missing field (with file and line), where all pairs are twice the same text, and where none
    is left to learn from or to judge.
    """
    notes: list[str] = []
    local = Path(os.environ.get(VARIABLE, "")).expanduser() / LOCAL
    judging: list[Pair] | None = None
    if name != REWARD:
        source, train = Path(name).name, _pairs(rows_of(name), notes, name)
        judging = None if test is None else _pairs(rows_of(test), notes, test)
    elif test is not None:
        raise TextError(f"expected no test file for {name}, which has a part of its own that judges, got {test}")
    elif os.environ.get(VARIABLE) and local.is_file():
        source, train = f"{LOCAL} in ${VARIABLE}", _pairs(rows_of(str(local)), notes, LOCAL)
    else:
        source = f"{HUB} {FOLDER}"
        train, judging = (_pairs(rows_of(f"{HUB}#{split}", data_dir=FOLDER), notes, HUB) for split in ("train", "test"))
    learns = drawn(train, seed)
    if judging is None:
        learns, judges = parted(learns)
        notes.append(
            f"{source} has no part that judges: {len(judges)} of its {len(train)} pairs, drawn by the seed, do."
        )
    else:
        judges = drawn(judging, seed)
    if not (learns and judges):
        raise TextError(
            f"expected pairs to learn from and to judge in {name}, got {len(learns)} and {len(judges)}: give more pairs"
        )
    return Pairs(name, source, learns[:train_limit], judges[:test_limit], tuple(notes))


def _are_pairs(name: str) -> bool:
    """Tell whether a file's first row has a field of a pair; False where there is no such file, or no row in it."""
    if not Path(name).expanduser().is_file():
        return False
    first = next(rows_of(name), None)
    return first is not None and not first.values.keys().isdisjoint(("chosen", "rejected"))


def _pairs(rows: Iterator[Row], notes: list[str], name: str) -> list[Pair]:
    found = [Pair(row.text("chosen"), row.text("rejected")) for row in rows]
    told = [pair for pair in found if pair.chosen != pair.rejected]
    if found and not told:
        raise TextError(f"expected pairs of two texts, got {len(found)} in {name} that are each twice the same text")
    if len(told) < len(found):
        notes.append(f"{len(found) - len(told)} of {len(found)} pairs are twice the same text and left out.")
    return told
