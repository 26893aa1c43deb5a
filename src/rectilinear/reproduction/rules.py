"""Rules that decide a claim: conditions on measured values, kept with the recipe as text ("score_mean >= 0.985")."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rectilinear.results import FAILS, HOLDS, UNTESTABLE, Spread, Verdict

SIGNS: dict[str, tuple[str, Callable[[float, float], bool]]] = {
    ">=": ("at least", operator.ge),
    "<=": ("at most", operator.le),
    ">": ("above", operator.gt),
    "<": ("below", operator.lt),
    "==": ("equal to", operator.eq),
}
Values = Mapping[str, Spread | None]


@dataclass(frozen=True)
class Condition:
    """A measured value, by its name, against a number or another value."""

    left: str
    sign: str
    right: str

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Read "name sign name-or-number"; raises ValueError for anything else."""
        left, sign, right = text.split()
        if sign not in SIGNS:
            raise ValueError(f"expected a sign of {' '.join(SIGNS)}, got {sign!r}")
        return cls(left, sign, right)

    @property
    def names(self) -> tuple[str, ...]:
        """The values that are compared."""
        return tuple(side for side in (self.left, self.right) if not _is_number(side))

    def missing(self, values: Values) -> tuple[str, ...]:
        """Return the names of the values that were not measured."""
        return tuple(name for name in self.names if _of(name, values) is None)

    def holds(self, values: Values) -> bool:
        """Tell whether it is so; all its values must be known."""
        left, right = _of(self.left, values), _of(self.right, values)
        assert left is not None and right is not None
        return SIGNS[self.sign][1](left, right)

    def said(self, values: Values, labels: Mapping[str, str]) -> str:
        """Return the condition with its numbers: "mean score: 0.979, asked for at least 0.985"."""
        right = shown(_of(self.right, values)) + ("" if _is_number(self.right) else f" ({labels[self.right]})")
        return f"{labels[self.left]}: {shown(_of(self.left, values))}, asked for {SIGNS[self.sign][0]} {right}"

    def words(self, labels: Mapping[str, str]) -> str:
        """Return the condition in words, without numbers measured."""
        return f"{labels[self.left]} {SIGNS[self.sign][0]} {labels.get(self.right, self.right)}"


@dataclass(frozen=True)
class Claim:
    """What the paper says. needs: what must be so for a test to say anything; holds: what must be so if it is right."""

    says: str
    holds: tuple[Condition, ...]
    needs: tuple[Condition, ...] = ()


def judge(claim: Claim, values: Values, labels: Mapping[str, str], limits: str = "") -> Verdict:
    """Return the verdict on a claim, with the numbers that decide it.

    values: as measured, None or absent where not; labels: of all that a rule may name; limits: a sentence on why a test
    at this scale may say nothing.
    """
    rules = tuple(condition.words(labels) for condition in (*claim.needs, *claim.holds))
    missing = dict.fromkeys(name for c in (*claim.needs, *claim.holds) for name in c.missing(values))
    unmet = [] if missing else [condition for condition in claim.needs if not condition.holds(values)]
    if missing or unmet:
        why = (
            f"Not measured: {', '.join(labels[name] for name in missing)}" if missing else _said(unmet, values, labels)
        )
        return Verdict(claim.says, UNTESTABLE, f"{why}. {limits}".strip(), rules)
    wrong = [condition for condition in claim.holds if not condition.holds(values)]
    reason = _said(wrong or claim.holds, values, labels)
    return Verdict(claim.says, FAILS if wrong else HOLDS, f"{reason}.", rules)


def _said(conditions: Sequence[Condition], values: Values, labels: Mapping[str, str]) -> str:
    said = "; ".join(condition.said(values, labels) for condition in conditions)
    return said[:1].upper() + said[1:]


def shown(value: float | None) -> str:
    """Return a number short enough for a sentence."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 1 else f"{value:.4g}"


def _of(side: str, values: Values) -> float | None:
    if _is_number(side):
        return float(side)
    found = values.get(side)
    return None if found is None else found.mean


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
