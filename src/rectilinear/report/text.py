"""Numbers and text from data, made fit to be read; shared by terminal, figures and page."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from rectilinear.errors import visible as visible

TICKS = "▁▂▃▄▅▆▇█"


def number(value: float | None, digits: int = 4) -> str:
    """Return a fixed number of decimals, cut and not rounded up to 1: 0.99996 is not exactly linear."""
    if value is None:
        return "–"
    if value <= -100:
        return f"{value:.0f}"
    if value < 1:
        value = min(value, 1 - 10**-digits)
    return f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 4) -> str:
    """Return a difference with its sign."""
    return "–" if value is None else f"{value:+.{digits}f}"


def between(low: float | None, high: float | None, form: Callable[[float], str] = signed) -> str:
    """Return an interval."""
    return "–" if low is None or high is None else f"{form(low)} … {form(high)}"


def plus_minus(spread: Any, form: Callable[[float], str] = signed) -> str:
    """Return "mean ± std" of a `results.Spread`, the mean alone where there is no deviation."""
    if spread.mean is None:
        return "–"
    return form(spread.mean) if spread.std is None else f"{form(spread.mean)} ± {form(spread.std).lstrip('+')}"


def share(value: float) -> str:
    """Return a share with three decimals."""
    return f"{value:.3f}"


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share as a percentage."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def token(value: Any) -> str:
    """Return a token in quotes, so that spaces at its ends show."""
    return "'" + visible(value) + "'"


def flowing(value: Any, longest: int) -> str:
    """Return plain text in which a line that ends is marked, and ends."""
    return "↵\n".join(visible(line) for line in str(value)[:longest].split("\n")) + (
        "…" if len(str(value)) > longest else ""
    )


def plain(value: Any, longest: int = 60) -> str:
    """Return visible text, cut to `longest` characters."""
    text = visible(value)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def sparkline(values: Iterable[float | None], width: int = 60) -> str:
    """Return one block character a value, 0 to 1 from low to high, `·` for None; at most `width` of them."""
    known = list(values)
    if len(known) > width:
        known = [known[i * len(known) // width] for i in range(width)]
    return "".join("·" if v is None else TICKS[round(min(max(v, 0.0), 1.0) * (len(TICKS) - 1))] for v in known)


def bar(value: float | None, width: int = 5) -> str:
    """Return a bar of `width` cells for a value in [0, 1]."""
    if value is None:
        return "·" * width
    full, rest = divmod(round(min(max(value, 0.0), 1.0) * width * 8), 8)
    return ("█" * full + ("▏▎▍▌▋▊▉"[rest - 1] if rest else "")).ljust(width, "·")
