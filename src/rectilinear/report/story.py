"""What a scan found, in sentences: said before the figures are shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rectilinear.report.plots import judged
from rectilinear.report.text import number, percent, plain, token
from rectilinear.results import ScanResult, Score, mean

NEAR = 0.1  # scores closer than this are not set against each other


@dataclass(frozen=True)
class Note:
    """A sentence about one layer, or about none: the words before its name and those after."""

    before: str
    layer: int | None = None
    after: str = ""


def finding(result: ScanResult) -> str:
    """Return what the scan found in one sentence."""
    score, added = (mean(_best(getattr(layer, name)) for layer in result.layers) for name in ("score", "increment"))
    if score is None or added is None:
        return "Nothing varies in this stream: there is no score."
    but = "but only " if 0 < added < score - NEAR else "and "
    where = "on unseen text" if _heldout(result) else "on the text they were fitted on"
    return (
        f"Linear maps explain {share(score)} of what the layers put out {where}, "
        f"{but}{share(added)} of what the layers add to the stream."
    )


def notes(result: ScanResult) -> list[Note]:
    """Return what else is worth knowing before the figures, the most telling first."""
    return [note for make in (_formula, _sinks, _ends, _worst) for note in make(result)]


def compared(results: Sequence[ScanResult], labels: Sequence[str]) -> str:
    """Return in one sentence how linear the layers of several scans are in what they add, the most linear first."""
    means = [mean(judged(layer.increment) for layer in result.layers) for result in results]
    names = [
        plain(label) + ("" if _heldout(result) else " (in-sample)")
        for label, result in zip(labels, results, strict=True)
    ]
    ranked = sorted(((m, n) for m, n in zip(means, names, strict=True) if m is not None), reverse=True)
    if len(ranked) < 2:
        return "Fewer than two of the scans have a score: there is nothing to compare."
    (most, first), *others = ranked
    rest = ", ".join(f"{share(value)} in {label}" for value, label in others)
    return f"Linear maps explain {share(most)} of what the layers add to the stream in {first}, {rest}."


def least_linear(result: ScanResult) -> int:
    """Return the layer whose increment a linear map explains least: the one worth looking at first."""
    return min(_known(result), default=(0.0, 0))[1]


def share(value: float) -> str:
    """Return an explained share in words fit for a sentence, never rounded up to all."""
    if value <= 0:
        return "nothing"
    return "all" if value == 1 else percent(min(value, 0.9999), 0 if 0.01 <= value < 0.99 else 2)


def _formula(result: ScanResult) -> Iterator[Note]:
    """Set the published formula beside the strict score, and say where the difference comes from."""
    if not _heldout(result):
        return
    summary = result.summary()
    score, added = (summary[name] for name in ("score", "increment"))
    if None in (*score.values(), *added.values()):
        return
    unseen, sinks = (100 * (score[a] - score[b]) for a, b in (("paper", "heldout"), ("heldout", "ordinary")))
    yield Note(
        f"By the published formula it is {percent(score['paper'])} and {percent(added['paper'])}: its score is "
        f"{_points(unseen)} for judging on the text it was fitted on, and {_points(sinks)} for counting sink tokens."
    )


def _points(points: float) -> str:
    return f"{abs(points):.1f} points {'higher' if points >= 0 else 'lower'}"


def _sinks(result: ScanResult) -> Iterator[Note]:
    heavy = max(result.layers, key=lambda layer: (layer.sinks.variance_share or 0.0, layer.sinks.count))
    sinks = heavy.sinks
    if not sinks.count:
        yield Note("No token is a sink: none has massive activation.")
        return
    names = ", ".join(token(plain(name, 16)) for name in dict.fromkeys(t["token"] for t in sinks.tokens[:5]))
    yield Note(
        "Sinks weigh most in ",
        heavy.layer,
        f": {percent(sinks.share_of_tokens, 2)} of the tokens carry {percent(sinks.variance_share)} of the variance "
        f"({names}).",
    )


def _ends(result: ScanResult) -> Iterator[Note]:
    known = _known(result)
    if len(known) > 1:
        (low, least), (high, _) = min(known), max(known)
        yield Note(
            "Least linear in what it adds is ",
            least,
            f": {number(low, 2)}, where the most linear layer has {number(high, 2)}.",
        )


def _worst(result: ScanResult) -> Iterator[Note]:
    worst = [(layer.tails.share_1, layer.layer) for layer in result.layers if layer.tails.share_1 is not None]
    if worst:
        most, at = max(worst)
        average, there = percent(mean(value for value, _ in worst), 0), percent(most, 0)
        said = f"The worst 1 % of the tokens carry {average} of the squared error in the mean layer, and {there} in "
        yield Note(said, at, ".")


def _heldout(result: ScanResult) -> bool:
    return any(layer.score.heldout is not None for layer in result.layers)


def _best(score: Score) -> float | None:
    """Return the strictest of the scores there are."""
    return judged(score) if score.ordinary is None else score.ordinary


def _known(result: ScanResult) -> list[tuple[float, int]]:
    scored = [(_best(layer.increment), layer.layer) for layer in result.layers]
    return [(value, layer) for value, layer in scored if value is not None]
