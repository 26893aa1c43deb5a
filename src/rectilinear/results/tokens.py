"""The result of a look at single tokens: each layer's linear error on them, and what the stream says on its way."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rectilinear.errors import ResultError
from rectilinear.results.checked import DAMAGED, checked
from rectilinear.results.document import SCHEMA, clean
from rectilinear.results.shown import Drawn

Values = tuple[float | None, ...]


@dataclass(frozen=True)
class Guess:
    """A next token as text, and its probability."""

    token: str
    probability: float


@dataclass(frozen=True)
class TokenResult:
    """One token of the prompt, in a model of L layers; x is a layer's input, y its output, z = y - x.

    relative_error: ||z - map(x)|| / ||z|| [L]; bias_share: ||bias of the map|| / ||z|| [L]; both None where the layer
    adds nothing. stream_norm: ||y|| [L]. contribution_norm: ||z|| [L]. cosine: of x and y [L]. sink: whether x or y is
    massive [L]. logit_lens: what the head says of the stream at each position [L + 1]. linear_lens: the same after the
    linear map from there to the end [L + 1]; at position L both are the model's own prediction, which stands alone
    where a token's lenses were not asked for. next_rank (1 is the most likely) and next_probability: of the token that
    came next, None at the prompt's end.
    """

    position: int
    id: int
    token: str
    relative_error: Values
    bias_share: Values
    stream_norm: Values
    contribution_norm: Values
    cosine: Values
    sink: tuple[bool, ...]
    logit_lens: tuple[Guess, ...]
    linear_lens: tuple[Guess, ...]
    next_rank: int | None
    next_probability: float | None

    @property
    def prediction(self) -> Guess:
        """What the model says comes next."""
        return self.logit_lens[-1]

    @property
    def median_error(self) -> float | None:
        """Median of the relative error over layers; None where no layer adds anything."""
        known = [value for value in self.relative_error if value is not None]
        return median(known) if known else None


@dataclass(frozen=True, repr=False)
class TokensResult(Drawn):
    """A prompt, token by token.

    provenance: the model's facts, prompt_tokens, d, layers, maps (text, tokens, window, sink_multiple ... of their
    fit), versions, command, time. warnings: plain sentences.
    """

    provenance: dict[str, Any]
    tokens: tuple[TokenResult, ...]
    warnings: tuple[str, ...] = ()

    @property
    def layers(self) -> int:
        """Layers of the model."""
        return len(self.tokens[0].relative_error)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document: schema, kind, provenance, warnings, tokens."""
        tokens = [
            {**dataclasses.asdict(token), "prediction": dataclasses.asdict(token.prediction)} for token in self.tokens
        ]
        body = {"provenance": self.provenance, "warnings": list(self.warnings), "tokens": tokens}
        return clean({"schema": SCHEMA, "kind": "tokens", **body})

    def to_json(self) -> str:
        """Return the document as JSON, one line a token; NaN never appears."""
        document = self.to_dict()
        tokens = document.pop("tokens")
        head = json.dumps(document, indent=1, allow_nan=False).removesuffix("\n}")
        lines = ",\n  ".join(json.dumps(token, allow_nan=False) for token in tokens)
        return f'{head},\n "tokens": [\n  {lines}\n ]\n}}'

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> TokensResult:
        """Rebuild from `to_dict`; raises ResultError for another kind or schema version, or missing keys."""
        if document.get("schema") != SCHEMA or document.get("kind") != "tokens":
            raise ResultError(
                f"expected a tokens result of schema {SCHEMA}, got kind {document.get('kind')!r} of schema "
                f"{document.get('schema')!r}; run rectilinear tokens again"
            )
        try:
            tokens = tuple(_token(item) for item in document["tokens"])
            return checked(cls(dict(document["provenance"]), tokens, tuple(document["warnings"])))
        except DAMAGED as error:
            raise ResultError(f"the tokens result is damaged: {error}; run rectilinear tokens again") from error

    def save(self, out: str | Path, maps: Callable[[Path], Any] | None = None, *, force: bool = False) -> Path:
        """Write tokens.json, heatmap.svg, heatmap.png and tokens.html to a folder at once or not at all; return it.

        `maps` writes the maps into it too, as `Maps.save` does. Raises ResultError where the folder exists and `force`
        is False, or where it cannot be written.
        """
        from rectilinear.report.tokens import save_tokens  # the report knows the results, not the other way round

        return save_tokens(self, Path(out), maps, force=force)


def _token(item: dict[str, Any]) -> TokenResult:
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in item.items()}
    del values["prediction"]  # the end of the lens
    for lens in ("logit_lens", "linear_lens"):
        values[lens] = tuple(Guess(**guess) for guess in item[lens])
        if not values[lens]:
            raise ValueError(f"a token without a {lens}")
    return TokenResult(**values)
