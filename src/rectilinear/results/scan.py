"""The result of a scan; arrays that are too long for JSON travel beside it in safetensors."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rectilinear.errors import ResultError
from rectilinear.results.checked import DAMAGED, checked
from rectilinear.results.document import SCHEMA, clean, mean
from rectilinear.results.shown import Drawn

MOMENTS, MOMENTS_DOCUMENT = "moments", "moments.json"  # kept in a folder within the result's


@dataclass(frozen=True)
class Score:
    """One layer's linearity, three ways. 1 is exactly linear; None where it is undefined.

    paper: all tokens, in-sample (arXiv 2405.12250, section 3). heldout: map fitted on the first documents, judged on
    unseen ones, with a 95 % interval by bootstrap over documents. ordinary: held-out, sink tokens set apart.
    `*_tokens_per_d` is the number of tokens the score's map was fitted on over the width d.
    """

    paper: float | None
    heldout: float | None
    heldout_low: float | None
    heldout_high: float | None
    ordinary: float | None
    ordinary_low: float | None
    ordinary_high: float | None


@dataclass(frozen=True)
class Sinks:
    """Tokens of massive activation in a layer's input or output.

    count and share_of_tokens over all tokens; variance_share: their share of the centred squared norm of the layer's
    output; tokens: the most frequent ones as {"token", "position", "count", "norm"} (position within the window;
    norm is the largest seen, at the layer's output).
    """

    count: int
    share_of_tokens: float
    variance_share: float | None
    tokens: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Tails:
    """Per-token error of the held-out map, all held-out tokens: how heavy is its tail.

    median, p99, max: of the per-token L2 error. share_01, share_1, share_5: share of the squared error carried by the
    worst 0.1, 1 and 5 % of tokens. tail_index: Hill estimate on the worst 5 % (smaller is heavier).
    """

    median: float | None
    p99: float | None
    max: float | None
    share_01: float | None
    share_1: float | None
    share_5: float | None
    tail_index: float | None


@dataclass(frozen=True)
class Spectrum:
    """Shape of the cloud of a layer's outputs (ordinary tokens).

    anisotropy: largest covariance eigenvalue over the trace. effective_rank: exp of the entropy of the normalised
    eigenvalues. intrinsic_dimension: TwoNN on a sample.
    """

    anisotropy: float | None
    effective_rank: float | None
    intrinsic_dimension: float | None


@dataclass(frozen=True)
class SubmoduleScore:
    """Linearity of one submodule's contribution as a function of the stream that it reads."""

    name: str
    score: Score
    norm_ratio: float


@dataclass(frozen=True)
class LayerResult:
    """Everything measured for one layer (0-based); norms are L2, in the model's own units.

    On unseen text: triggers, the worst tokens, with the text before each; error_tokens, those that carry most of the
    squared error in all, as {"token", "count", "error"} (share of it); error_classes, kinds of tokens as {"class",
    "tokens", "error", "tail_index"} (shares of both, and as in Tails).
    """

    layer: int
    score: Score
    increment: Score
    norm_ratio: float
    cosine: float
    cosine_std: float
    stream_norm_median: float
    stream_norm_max: float
    sinks: Sinks
    tails: Tails
    spectrum: Spectrum
    triggers: tuple[dict[str, Any], ...] = ()
    error_tokens: tuple[dict[str, Any], ...] = ()
    error_classes: tuple[dict[str, Any], ...] = ()
    submodules: tuple[SubmoduleScore, ...] = ()


@dataclass(frozen=True)
class Passage:
    """A passage of the held-out text: its first token's place, from 0, in a document, and its n tokens as text."""

    document: int
    position: int
    tokens: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class ScanResult(Drawn):
    """A scan of one model on one text.

    provenance: model, revision, text, tokens, tokens_fit, tokens_heldout, documents, unit, tokens_per_d,
    tokens_per_d_ordinary, d, window, dtype, device, seed, versions, command, time, seconds.
    arrays: numpy arrays by name (`error_histogram` [L, bins], `error_edges` [bins + 1], per-block bootstrap sums,
    `eigenvalues` [L, d], ...). warnings: plain sentences. passage: held-out text whose relative errors are kept token
    by token (`passage_error` [L, n], `passage_sink` [L, n]); None where nothing was held out. moments: the folder that
    they are kept in, None where they are not.
    """

    provenance: dict[str, Any]
    layers: tuple[LayerResult, ...]
    warnings: tuple[str, ...] = ()
    arrays: dict[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)
    passage: Passage | None = None
    moments: Path | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document: schema, kind, provenance, summary, warnings, passage, layers."""
        return clean(
            {
                "schema": SCHEMA,
                "kind": "scan",
                "provenance": self.provenance,
                "summary": self.summary(),
                "warnings": self.warnings,
                "passage": self.passage,
                "layers": self.layers,
            }
        )

    def to_json(self) -> str:
        """Return the document as indented JSON; NaN never appears."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False, ensure_ascii=True)

    def summary(self) -> dict[str, Any]:
        """Return means over layers of the scores, the norm ratio and the cosine."""
        out: dict[str, Any] = {}
        for name in ("score", "increment"):
            scores = [getattr(layer, name) for layer in self.layers]
            out[name] = {k: mean(getattr(s, k) for s in scores) for k in ("paper", "heldout", "ordinary")}
        out["norm_ratio"] = mean(layer.norm_ratio for layer in self.layers)
        out["cosine"] = mean(layer.cosine for layer in self.layers)
        return out

    def save(self, out: str | Path, *, force: bool = False) -> Path:
        """Write the whole folder (JSON, arrays, CSV, plots, HTML report) at once or not at all; return its path.

        Moments that were kept go with it.

        Raises ResultError where the folder exists and `force` is False, or where it cannot be written.
        """
        from rectilinear.report.folder import save  # the report knows the results, not the other way round

        return save(self, Path(out), force=force)

    @classmethod
    def from_dict(cls, document: dict[str, Any], arrays: dict[str, np.ndarray] | None = None) -> ScanResult:
        """Rebuild from `to_dict`; raises ResultError for another schema version or missing keys."""
        found = document.get("schema")
        if found != SCHEMA or document.get("kind") != "scan":
            raise ResultError(
                f"expected a scan result of schema {SCHEMA}, got kind {document.get('kind')!r} of schema {found!r}; "
                "scan again with this version of rectilinear"
            )
        try:
            layers = tuple(_layer(item) for item in document["layers"])
            passage = _passage(document.get("passage"))
            return checked(
                cls(dict(document["provenance"]), layers, tuple(document["warnings"]), arrays or {}, passage)
            )
        except DAMAGED as error:
            raise ResultError(f"the scan result is damaged: {error}; scan again") from error


def _passage(item: dict[str, Any] | None) -> Passage | None:
    """Rebuild a passage, None for a scan made before they were kept."""
    return None if item is None else Passage(item["document"], item["position"], tuple(item["tokens"]))


def _layer(item: dict[str, Any]) -> LayerResult:
    sinks = {**item["sinks"], "tokens": tuple(item["sinks"]["tokens"])}
    parts = {
        "score": Score(**item["score"]),
        "increment": Score(**item["increment"]),
        "sinks": Sinks(**sinks),
        "tails": Tails(**item["tails"]),
        "spectrum": Spectrum(**item["spectrum"]),
        "triggers": tuple(item["triggers"]),
        "error_tokens": tuple(item.get("error_tokens", ())),  # of a scan made before they were kept
        "error_classes": tuple(item.get("error_classes", ())),
        "submodules": tuple(
            SubmoduleScore(s["name"], Score(**s["score"]), s["norm_ratio"]) for s in item["submodules"]
        ),
    }
    return LayerResult(**{**item, **parts})
