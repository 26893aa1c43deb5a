"""What the page shows, as pieces of HTML: answers in, text from data escaped."""

from __future__ import annotations

import math
from typing import Any

from rectilinear.ops.whatif import Reading
from rectilinear.report.heatmap import SHADES, shade
from rectilinear.report.html import cells, environment
from rectilinear.report.text import number
from rectilinear.results import ScanResult, TokensResult

TRIGGERS = 8  # of a scan, shown for a layer
SURPRISE, WORSE = 8.0, 4.0  # nats at which a token has the strongest shade, and nats more than the dense model's


def prompt_view(result: TokensResult) -> str:
    """Return the prompt and its heat map; what is picked in it is marked by `mark.js`."""
    return _render("look.html.j2", result=result, shown=result.tokens, rows=cells(result.tokens))


def token_view(result: TokensResult, layer: int, at: int) -> str:
    """Return both lenses of a token, position by position."""
    return _render("token.html.j2", one=result.tokens[at], layer=layer)


def layer_view(result: TokensResult, layer: int, least: float, scan: ScanResult | None) -> str:
    """Return the tokens whose error at a layer is `least` or more, the worst first, and the scan's worst ones."""
    known = [one for one in result.tokens if one.relative_error[layer] is not None]
    found = sorted(
        (one for one in known if _error(one.relative_error[layer]) >= least), key=lambda one: _square(one, layer)
    )
    whole = sum(_square(one, layer) for one in known)
    triggers = scan.layers[layer].triggers[:TRIGGERS] if scan is not None else ()
    return _render(
        "layer.html.j2",
        result=result,
        layer=layer,
        least=least,
        found=found[::-1],
        share=sum(_square(one, layer) for one in found) / whole if whole else None,
        triggers=triggers,
    )


def reading_view(title: str, reading: Reading, dense: Reading | None = None) -> str:
    """Return what a model makes of the prompt; with `dense`, in comparison to what that makes of it."""
    gaps = (
        [None] * len(reading.nats) if dense is None else [a - b for a, b in zip(reading.nats, dense.nats, strict=True)]
    )
    parts: list[dict[str, Any]] = [{"token": reading.tokens[0], "tone": None, "title": "nothing before it"}]
    for token, nats, gap in zip(reading.tokens[1:], reading.nats, gaps, strict=True):
        tone = nats / SURPRISE if gap is None else gap / WORSE
        said = f"{nats:.2f} nats" if gap is None else f"{nats:.2f} nats, {gap:+.2f}"
        parts.append({"token": token, "tone": round(100 * min(max(tone, 0.0), 1.0)), "title": said})
    return _render(
        "reading.html.j2",
        title=title,
        kind="dense" if dense is None else "changed",
        perplexity=_large(reading.perplexity),
        ratio=None if dense is None else _ratio(reading, dense),
        parts=parts,
        completion=reading.completion,
    )


def notice(text: str) -> str:
    """Return a message that something did not go as asked."""
    return _render("notice.html.j2", text=text)


def _error(value: float | None) -> float:
    return -1.0 if value is None else value


def _square(one: Any, layer: int) -> float:
    return (_error(one.relative_error[layer]) * one.contribution_norm[layer]) ** 2


def _ratio(reading: Reading, dense: Reading) -> str | None:
    if not reading.nats:
        return None
    return f"× {_large(math.exp(min(sum(reading.nats) - sum(dense.nats), 700 * len(dense.nats)) / len(dense.nats)))}"


def _large(value: float | None) -> str:
    """Return a positive number in about four figures."""
    if value is None:
        return "–"
    return "∞" if math.isinf(value) else number(value, 2) if value < 1000 else f"{value:.3g}"


def _render(template: str, **values: Any) -> str:
    return environment("rectilinear.app").get_template(template).render(shade=shade, shades=SHADES, **values)
