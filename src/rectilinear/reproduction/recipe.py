"""Recipes: one YAML file a figure or table of the paper, with its claims, their rules and the published values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rectilinear.errors import RectilinearError, nearest
from rectilinear.plainyaml import from_yaml
from rectilinear.reproduction.rules import Claim, Condition
from rectilinear.results import Spread

HERE = Path(__file__).parent / "recipes"
ALL = "all"


@dataclass(frozen=True)
class Recipe:
    """How to make one figure or table again.

    measure: the function of `measures` that reads the runs; options: its own. runs: templates by scale. labels: of all
    values that rules and tables name; published: those of the paper. limits: by scale, why a test may say nothing.
    """

    name: str
    title: str
    source: str
    measure: str
    options: Mapping[str, Any]
    runs: Mapping[str, Sequence[str]]
    claims: tuple[Claim, ...]
    labels: Mapping[str, str]
    published: Mapping[str, Spread]
    limits: Mapping[str, str]


def names() -> list[str]:
    """Return the names of all recipes: figures, then tables."""
    return sorted(path.stem for path in HERE.glob("*.yaml"))


def chosen(asked: Sequence[str]) -> list[Recipe]:
    """Return recipes by name, "all" for every one; raises RectilinearError for an unknown name."""
    known = names()
    for name in asked:
        if name not in (*known, ALL):
            raise RectilinearError(f"expected {', '.join(known)} or {ALL}, got {name!r}.{nearest(name, known)}")
    return [load(name) for name in (known if ALL in asked else dict.fromkeys(asked))]


def load(name: str) -> Recipe:
    """Return the recipe of a known name."""
    found = from_yaml((HERE / f"{name}.yaml").read_text(encoding="utf-8"))
    values = found.get("values", {})
    return Recipe(
        name=name,
        title=found["title"],
        source=found["source"],
        measure=found["measure"],
        options=found.get("options", {}),
        runs=found["runs"],
        claims=tuple(_claim(item) for item in found["claims"]),
        labels={name: _entry(value)["label"] for name, value in values.items()} | _labels(found),
        published={n: _spread(_entry(v)["paper"]) for n, v in values.items() if "paper" in _entry(v)} | _table(found),
        limits=found.get("limits", {}),
    )


def _claim(item: Mapping[str, Any]) -> Claim:
    parts = (tuple(Condition.parse(text) for text in item.get(key, ())) for key in ("holds", "needs"))
    return Claim(item["says"], *parts)


def _entry(value: Any) -> Mapping[str, Any]:
    """Return an entry of `values`, which may be its label alone."""
    return {"label": value} if isinstance(value, str) else value


def _spread(value: Any) -> Spread:
    return Spread(*value) if isinstance(value, list) else Spread(value)


def _cells(found: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the cells of a published table, under names as "OPT-125M, CB"."""
    table = found.get("published", {"columns": [], "rows": {}})
    return [
        (f"{row}, {column}", value)
        for row, cells in table["rows"].items()
        for column, value in zip(table["columns"], cells, strict=True)
    ]


def _labels(found: Mapping[str, Any]) -> dict[str, str]:
    return {name: name for name, _ in _cells(found)}


def _table(found: Mapping[str, Any]) -> dict[str, Spread]:
    return {name: _spread(value) for name, value in _cells(found)}
