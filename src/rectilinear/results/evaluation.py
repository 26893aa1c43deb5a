"""The result of an evaluation: one entry a model, and what they were judged on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rectilinear.errors import ResultError
from rectilinear.results.checked import DAMAGED, checked
from rectilinear.results.document import SCHEMA, clean
from rectilinear.results.shown import Shown


@dataclass(frozen=True)
class Protocol:
    """How a text was cut and which tokens were predicted; perplexities compare only under the same one.

    name: "joined" (one text, full windows) or "documents" (no window crosses a document). window, stride: in tokens.
    bos: whether the tokenizer put a start token before the text or before each document. tokens: predicted ones, of
    tokens_read. bytes: UTF-8 bytes of the text that the predicted tokens cover, None where the tokenizer does not tell.
    words: all of this as a sentence.
    """

    name: str
    window: int
    stride: int
    windows: int
    documents: int | None
    bos: bool
    tokens: int
    tokens_read: int
    bytes: int | None
    words: str


@dataclass(frozen=True)
class TextScore:
    """How well a model predicts a text; intervals are 95 %, by bootstrap over windows or documents.

    nats: summed over the predicted tokens; perplexity: exp(nats / tokens); bits_per_byte: nats / ln 2 / bytes.
    accuracy: share of tokens that are the most likely one. ratio: perplexity over the baseline's, with a paired
    interval; None for the baseline itself and where the windows differ.
    """

    protocol: Protocol
    nats: float
    perplexity: float
    perplexity_low: float | None
    perplexity_high: float | None
    bits_per_byte: float | None
    accuracy: float
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None


@dataclass(frozen=True)
class Divergence:
    """Distance to the reference model on the same tokens: KL(reference || model) in nats per token.

    agreement: share of tokens where both find the same next token most likely. Intervals are 95 %.
    """

    kl: float
    kl_low: float | None
    kl_high: float | None
    agreement: float
    agreement_low: float | None
    agreement_high: float | None


@dataclass(frozen=True)
class Lambada:
    """Last words of passages, as lm-evaluation-harness' lambada_openai counts them.

    accuracy: share of passages whose last word is generated greedily, with a 95 % interval. perplexity: exp of the
    mean over passages of the word's summed nats: per word, not per token.
    """

    passages: int
    accuracy: float
    accuracy_low: float | None
    accuracy_high: float | None
    perplexity: float


@dataclass(frozen=True)
class TaskScore:
    """One metric of a task of lm-evaluation-harness, or of a group of tasks, zero-shot.

    task, metric: as the harness names them; a filter's name follows the metric's after a comma. value, stderr: the
    harness's own, stderr None where it gives none. n: documents asked about. version: the task's. fingerprint: 16 hex
    digits of all that was asked: configuration, requests and targets. data: "local" or "hub". higher_is_better: None
    where the harness does not say.
    """

    task: str
    metric: str
    value: float
    stderr: float | None
    n: int
    version: str
    fingerprint: str
    data: str
    higher_is_better: bool | None


@dataclass(frozen=True)
class Size:
    """parameters: each counted once, tied ones too. bytes: they take in memory."""

    layers: int
    parameters: int
    bytes: int


@dataclass(frozen=True)
class Speed:
    """Medians over repeats, batch of one; the models of one run are timed in turn.

    prefill, generate: tokens/s of reading `prompt` tokens and of `new_tokens` steps with a cache, always the most
    likely token. cache_bytes_per_token: of keys and values after the prefill. peak_bytes: the most memory in use,
    on CUDA by this model ("model"), else by the whole process ("process"); None where it is not told.
    """

    prefill: float
    generate: float
    prompt: int
    new_tokens: int
    repeats: int
    cache_bytes_per_token: float | None
    peak_bytes: int | None
    peak_scope: str


@dataclass(frozen=True)
class ModelResult:
    """Everything measured of one model; None where it was not asked for.

    facts: model, revision, fingerprint, model_type, dtype, device.
    """

    name: str
    facts: dict[str, Any]
    size: Size
    text: TextScore | None = None
    divergence: Divergence | None = None
    lambada: Lambada | None = None
    speed: Speed | None = None
    tasks: tuple[TaskScore, ...] | None = None


@dataclass(frozen=True, repr=False)
class EvalResult(Shown):
    """Models judged side by side.

    provenance: text, tokens (asked for), lambada, tasks, tasks_limit, seed, versions, command, time, seconds.
    reference: the model that divergences are measured to, where there is one. warnings: plain sentences.
    """

    provenance: dict[str, Any]
    models: tuple[ModelResult, ...]
    reference: ModelResult | None = None
    warnings: tuple[str, ...] = ()

    @property
    def rows(self) -> tuple[ModelResult, ...]:
        """The reference, where there is one, and the models; the first is the baseline of all ratios."""
        return self.models if self.reference is None else (self.reference, *self.models)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document: schema, kind, provenance, warnings, reference, models."""
        body = clean(self)
        order = ("provenance", "warnings", "reference", "models")
        return {"schema": SCHEMA, "kind": "eval", **{key: body[key] for key in order}}

    def to_json(self) -> str:
        """Return the document as indented JSON; NaN never appears."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False, ensure_ascii=True)

    def save(self, out: str | Path, *, force: bool = False) -> Path:
        """Write eval.json, eval.csv and eval.html to a folder at once or not at all; return its path.

        Raises ResultError where the folder exists and `force` is False, or where it cannot be written.
        """
        from rectilinear.report.evaluation import save_eval  # the report knows the results, not the other way round

        return save_eval(self, Path(out), force=force)

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> EvalResult:
        """Rebuild from `to_dict`; raises ResultError for another schema version, another kind or missing keys."""
        found = document.get("schema")
        if found != SCHEMA or document.get("kind") != "eval":
            raise ResultError(
                f"expected an evaluation of schema {SCHEMA}, got kind {document.get('kind')!r} of schema {found!r}; "
                "evaluate again with this version of rectilinear"
            )
        try:
            reference = document["reference"]
            result = cls(
                dict(document["provenance"]),
                tuple(_model(item) for item in document["models"]),
                None if reference is None else _model(reference),
                tuple(document["warnings"]),
            )
            return checked(result)
        except DAMAGED as error:
            raise ResultError(f"the evaluation is damaged: {error}; evaluate again") from error


def _model(item: dict[str, Any]) -> ModelResult:
    parts: dict[str, Any] = {"size": Size(**item["size"])}
    if (text := item["text"]) is not None:
        parts["text"] = TextScore(**{**text, "protocol": Protocol(**text["protocol"])})
    for name, kind in (("divergence", Divergence), ("lambada", Lambada), ("speed", Speed)):
        if item[name] is not None:
            parts[name] = kind(**item[name])
    if (tasks := item.get("tasks")) is not None:  # documents from before there were tasks have no such key
        parts["tasks"] = tuple(TaskScore(**task) for task in tasks)
    return ModelResult(**{**item, **parts})
