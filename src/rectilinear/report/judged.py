"""An evaluation as tables of text, the same ones for terminal and page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rectilinear.report.text import percent, plain
from rectilinear.results import EvalResult, ModelResult, TaskScore

NONE = "–"


@dataclass(frozen=True)
class Section:
    """One table: the first column names the model or task, the others are mostly numbers. Texts are not escaped.

    spare: columns that a narrow terminal leaves out.
    """

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    spare: frozenset[str] = frozenset()


def sections(result: EvalResult) -> tuple[Section, ...]:
    """Return a table for everything that was measured."""
    makers = (("text", _text), ("lambada", _lambada), ("tasks", _tasks), ("speed", _speed), ("size", _size))
    return tuple(
        make(result)
        for name, make in makers
        if any(getattr(row, name) is not None for row in result.rows) and not (name == "size" and _timed(result))
    )


def quantity(value: float | None, unit: str = "") -> str:
    """Return a number in three or four digits, thousands by their letter: 134.5 M."""
    if value is None:
        return NONE
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g} {letter}{unit}"
    return f"{value:.4g} {unit}".strip()


def _text(result: EvalResult) -> Section:
    rows = [row for row in result.rows if row.text is not None]
    protocols = list(dict.fromkeys(row.text.protocol.words for row in rows if row.text))
    words = protocols[0] if len(protocols) == 1 else "each model by its own tokenizer and context; see the document"
    columns: dict[str, Callable[[ModelResult], str]] = {
        "perplexity": lambda row: _of(row.text, "perplexity", _perplexity),
        "95 %": lambda row: _interval(row.text, "perplexity", _perplexity),
        f"× {plain(result.rows[0].name, 16)}": lambda row: _of(row.text, "ratio", _ratio),
        "95 % paired": lambda row: _interval(row.text, "ratio", _ratio),
        "bits/byte": lambda row: _of(row.text, "bits_per_byte", lambda v: f"{v:.4f}"),
        "top-1": lambda row: _of(row.text, "accuracy", percent),
        "KL": lambda row: _of(row.divergence, "kl", lambda v: f"{v:.4f}"),
        "KL 95 %": lambda row: _interval(row.divergence, "kl", lambda v: f"{v:.4f}"),
        "agreement": lambda row: _of(row.divergence, "agreement", percent),
    }
    return _section(f"Text {result.provenance.get('text')}", words, columns, rows)


def _lambada(result: EvalResult) -> Section:
    rows = [row for row in result.rows if row.lambada is not None]
    columns: dict[str, Callable[[ModelResult], str]] = {
        "accuracy": lambda row: _of(row.lambada, "accuracy", percent),
        "95 %": lambda row: _interval(row.lambada, "accuracy", percent),
        "perplexity per word": lambda row: _of(row.lambada, "perplexity", _perplexity),
    }
    count = rows[0].lambada.passages if rows[0].lambada else 0
    return _section("LAMBADA", f"last word of {count:,} passages, greedy", columns, rows)


def _tasks(result: EvalResult) -> Section:
    """Return one row a metric, the models side by side."""
    rows = [row for row in result.rows if row.tasks is not None]
    scores = [{(score.task, score.metric): score for score in row.tasks or ()} for row in rows]
    asked = {key: score for each in reversed(scores) for key, score in each.items()}
    body = tuple(
        (
            plain(score.task),
            plain(score.metric) + {True: " ↑", False: " ↓", None: ""}[score.higher_is_better],
            *(_with_error(each.get(key)) for each in scores),
            f"{score.n:,}",
            score.data,
            plain(score.version),
            score.fingerprint,
        )
        for key, score in asked.items()
    )
    facts = result.provenance
    note = f"zero-shot, by lm-evaluation-harness {facts.get('versions', {}).get('lm_eval')}; value ± standard error"
    if facts.get("tasks_limit") is not None:
        note += f"; at most the first {facts['tasks_limit']:,} documents of each: compare no published figures"
    local = dict.fromkeys(plain(score.task) for score in asked.values() if score.data == "local")
    if local:
        note += f"; local data for {', '.join(local)}"
    details = ("documents", "data", "version", "fingerprint")
    columns = ("task", "metric", *(plain(row.name, 24) for row in rows), *details)
    return Section("Tasks", note, columns, body, frozenset(details))


def _with_error(score: TaskScore | None) -> str:
    value = _of(score, "value", _ratio)
    return value if score is None or score.stderr is None else f"{value} ± {score.stderr:.4f}"


def _speed(result: EvalResult) -> Section:
    rows = [row for row in result.rows if row.speed is not None]
    first, base = rows[0].speed, plain(rows[0].name, 16)
    assert first is not None
    note = (
        f"batch of one, medians of {first.repeats} rounds, models in turn: {first.prompt} tokens read, "
        f"{first.new_tokens} generated with a cache"
    )
    if first.peak_scope == "process":
        note += f"; the process held {quantity(first.peak_bytes, 'B')} at most"
    columns: dict[str, Callable[[ModelResult], str]] = {
        "prefill tokens/s": lambda row: _of(row.speed, "prefill", quantity),
        "generate tokens/s": lambda row: _of(row.speed, "generate", quantity),
        f"× {base}": lambda row: _of(row.speed, "generate", lambda v: f"{v / first.generate:.3f}"),
        "cache a token": lambda row: _of(row.speed, "cache_bytes_per_token", lambda v: quantity(v, "B")),
        **_sizes(),
    }
    if first.peak_scope == "model":
        columns["peak"] = lambda row: _of(row.speed, "peak_bytes", lambda v: quantity(v, "B"))
    return _section("Speed and size", note, columns, rows, keep=f"× {base}" if len(rows) > 1 else "")


def _size(result: EvalResult) -> Section:
    dtypes = ", ".join(dict.fromkeys(str(row.facts.get("dtype")) for row in result.rows))
    return _section("Size", f"parameters counted once, in {dtypes}", _sizes(), result.rows)


def _sizes() -> dict[str, Callable[[ModelResult], str]]:
    return {
        "layers": lambda row: str(row.size.layers),
        "parameters": lambda row: quantity(row.size.parameters),
        "weights": lambda row: quantity(row.size.bytes, "B"),
    }


def _timed(result: EvalResult) -> bool:
    return any(row.speed is not None for row in result.rows)


def _section(
    title: str,
    note: str,
    columns: dict[str, Callable[[ModelResult], str]],
    rows: Sequence[ModelResult],
    keep: str | None = None,
) -> Section:
    """Fill the table and leave out columns that say nothing; `keep` names the only `×` column to stay."""
    cells = {name: [cell(row) for row in rows] for name, cell in columns.items()}
    told = [
        name
        for name, column in cells.items()
        if any(cell != NONE for cell in column) and (keep is None or not name.startswith("×") or name == keep)
    ]
    body = tuple((plain(row.name), *(cells[name][i] for name in told)) for i, row in enumerate(rows))
    return Section(title, note, ("model", *told), body, frozenset(name for name in told if "95 %" in name))


def _of(part: Any, name: str, form: Callable[[Any], str]) -> str:
    value = None if part is None else getattr(part, name)
    return NONE if value is None else form(value)


def _interval(part: Any, name: str, form: Callable[[Any], str]) -> str:
    low, high = _of(part, f"{name}_low", form), _of(part, f"{name}_high", form)
    return NONE if NONE in (low, high) else f"{low} … {high}"


def _perplexity(value: float) -> str:
    return "∞" if math.isinf(value) else f"{value:,.2f}" if value < 1e6 else f"{value:.2e}"


def _ratio(value: float) -> str:
    return "∞" if math.isinf(value) else f"{value:.4f}" if value < 1e3 else f"{value:.2e}"
