"""What a pretraining is asked for, as it is saved beside its output and run again."""

from __future__ import annotations

import dataclasses
import math
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rectilinear.errors import RectilinearError, ResultError, first_line, nearest
from rectilinear.ops.pretraining.sizes import SIZES, Shape
from rectilinear.ops.training.callback import EVERY
from rectilinear.ops.training.penalty import Penalty
from rectilinear.plainyaml import from_yaml

NONE = "none"
MINUTES = 60.0
CHARACTERS = 6  # of text a token: generous, for how much text a budget of tokens can use


@dataclass(frozen=True)
class Recipe:
    """How to train a model from scratch.

    size: one of `SIZES`. text: sources of documents, as `read_text` takes them. tokenizer: a folder or Hub id whose
    tokenizer is used, None to train one of `vocab` tokens. penalty: none, cosine, mse or increment; weight, layers
    (None for all), penalty_schedule and target: as in `Penalty`. Of the budgets tokens (read in training) and minutes
    at most one is given; none is an hour. read: million characters of text to read, None for all that a budget of
    tokens can use. holdout: share of the text that only judges. window: context in tokens; batch: windows in one
    forward pass; accumulate: passes in one step; rate: AdamW's highest learning rate; each None for that of the size.
    warmup: share of the budget. checkpoints: how many, each at twice the budget's share of the one before. profile:
    steps from one linearity profile to the next. bf16: mixed precision, None for where the device is a GPU. seed: of
    the first weights; data_seed: of what is held out and of the order of windows.
    """

    text: tuple[str, ...] = ()
    size: str = "tiny"
    tokenizer: str | None = None
    vocab: int | None = None
    penalty: str = NONE
    weight: float = 0.5
    layers: tuple[int, ...] | None = None
    penalty_schedule: str = "constant"
    target: float | None = None
    tokens: int | None = None
    minutes: float | None = None
    read: float | None = None
    holdout: float = 0.05
    window: int | None = None
    batch: int | None = None
    accumulate: int = 1
    rate: float | None = None
    warmup: float = 0.02
    checkpoints: int = 6
    profile: int = EVERY
    bf16: bool | None = None
    seed: int = 0
    data_seed: int = 0

    def check(self) -> None:
        """Raise RectilinearError, one line, for a name that is not known, numbers out of range, or contradictions."""
        if self.size not in SIZES:
            raise RectilinearError(
                f"expected a size of {', '.join(SIZES)}, got {self.size!r}.{nearest(self.size, SIZES)}"
            )
        if not self.text:
            raise RectilinearError("expected text to train on, got none: name it, --text")
        if self.tokens is not None and self.minutes is not None:
            raise RectilinearError(
                f"expected one budget of tokens and minutes, got tokens {self.tokens} and minutes {self.minutes}"
            )
        if self.tokenizer is not None and self.vocab is not None:
            raise RectilinearError("expected a tokenizer or the size of one to train, got both: leave --vocab out")
        self._check_numbers()
        if self.vocab is not None and self.vocab < 257:
            raise RectilinearError(
                f"expected a vocabulary of 257 tokens or more, every byte and the end, got {self.vocab}"
            )
        added = self.added  # which checks itself
        if added is not None:
            added.check_layers(self.shape.layers)

    def _check_numbers(self) -> None:
        for name in ("tokens", "minutes", "read", "window", "batch", "accumulate", "rate", "checkpoints", "profile"):
            number = getattr(self, name)
            if number is not None and not 0 < number < math.inf:
                raise RectilinearError(f"expected {name} above 0, got {number}")
        for name in ("warmup", "holdout"):
            share = getattr(self, name)
            if not 0 <= share < 1 or (name == "holdout" and not share):
                raise RectilinearError(f"expected {name} as a share above 0 and below 1, got {share}")

    @property
    def shape(self) -> Shape:
        """The size's shape, with what was asked for in place of its own."""
        asked = {name: getattr(self, name) for name in ("vocab", "window", "batch", "rate")}
        return dataclasses.replace(SIZES[self.size], **{name: v for name, v in asked.items() if v is not None})

    @property
    def added(self) -> Penalty | None:
        """The penalty, None for none."""
        # Made for "none" too: a wrong weight is a mistake there as well.
        kind = "cosine" if self.penalty == NONE else self.penalty
        penalty = Penalty(kind, self.weight, self.layers, self.penalty_schedule, self.target)
        return None if self.penalty == NONE else penalty

    @property
    def step_tokens(self) -> int:
        """Tokens of one step."""
        return self.shape.window * self.shape.batch * self.accumulate

    @property
    def limit(self) -> tuple[str, float]:
        """The budget's kind, steps or seconds, and its size."""
        if self.tokens is not None:
            return "steps", math.ceil(self.tokens / self.step_tokens)
        return "seconds", 60 * (MINUTES if self.minutes is None else self.minutes)

    @property
    def characters(self) -> int | None:
        """Characters of text to read, None for all."""
        if self.read is not None:
            return int(1e6 * self.read)
        return None if self.tokens is None else max(CHARACTERS * self.tokens, 1 << 20)

    @property
    def marks(self) -> tuple[float, ...]:
        """Shares of the budget after which a checkpoint is kept: 1, and each half of the one after it."""
        return tuple(2.0 ** (i + 1 - self.checkpoints) for i in range(self.checkpoints))

    def to_yaml(self) -> str:
        """Return the recipe as YAML."""
        found = dataclasses.asdict(self)
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}
        return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read a recipe that `to_yaml` wrote; raises ResultError where it is missing, damaged or has unknown names."""
        try:
            found = from_yaml(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ResultError(f"cannot read the recipe {path}: {first_line(error)}") from error
        if not isinstance(found, dict):
            raise ResultError(f"expected a recipe with one name: value a line in {path}, got {type(found).__name__}")
        return cls(**_fields(found))


def _fields(found: dict[str, Any]) -> dict[str, Any]:
    """Return values fit for a Recipe's fields; raises ResultError for a name that is none, or another kind of value."""
    kinds = {field.name: str(field.type) for field in dataclasses.fields(Recipe)}
    for name, value in found.items():
        if name not in kinds:
            raise ResultError(f"expected only names of a recipe, got {name!r}.{nearest(str(name), kinds)}")
        if not _fits(value, kinds[name]):
            raise ResultError(f"expected {name} of a recipe as {kinds[name]}, got {reprlib.repr(value)}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}


def differences(made: Recipe, asked: Recipe) -> str:
    """Return what differs between two recipes, as `name old, not new`; empty where nothing does."""
    pairs = zip(dataclasses.asdict(made).items(), dataclasses.asdict(asked).values(), strict=True)
    return "; ".join(f"{name} {old}, not {new}" for (name, old), new in pairs if old != new)


def _fits(value: Any, kind: str) -> bool:
    kinds = [part.strip() for part in kind.split("|")]
    if value is None:
        return "None" in kinds
    if isinstance(value, (list, tuple)):
        inner = next((str if "str" in part else int for part in kinds if part.startswith("tuple")), None)
        return inner is not None and all(type(item) is inner for item in value)
    if isinstance(value, bool):
        return "bool" in kinds
    return (isinstance(value, int) and bool({"int", "float"} & set(kinds))) or type(value).__name__ in kinds


def asked_for(file: str | Path | None, **asked: Any) -> Recipe:
    """Return the recipe in a file, or the default one, with what is asked for (not None) in place of its own.

    A budget that is asked for takes the place of both, another size that of all that goes with a size; what goes with
    it is written out, so that the recipe says the same when defaults change. Raises RectilinearError, one line, for a
    wrong recipe.
    """
    base = Recipe() if file is None else Recipe.load(file)
    given = {name: value for name, value in asked.items() if value is not None}
    if {"tokens", "minutes"} & set(given):
        base = dataclasses.replace(base, tokens=None, minutes=None)
    if given.get("size", base.size) != base.size:
        base = dataclasses.replace(base, vocab=None, window=None, batch=None, rate=None)
    recipe = dataclasses.replace(base, **given)
    recipe.check()
    own = recipe.shape
    vocab = own.vocab if recipe.tokenizer is None else None
    return dataclasses.replace(recipe, vocab=vocab, window=own.window, batch=own.batch, rate=own.rate)
