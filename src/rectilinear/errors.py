"""Errors for mistakes a user can mend; the command prints them as one line and exits with code 2."""

from collections.abc import Iterable
from difflib import get_close_matches


class RectilinearError(Exception):
    """Base of every error caused by input. The message says what was expected, what came, and what to do."""


class ModelError(RectilinearError):
    """The model cannot be found, loaded or understood."""


class TextError(RectilinearError):
    """The text cannot be read, is empty, or is too short."""


class ResultError(RectilinearError):
    """A result folder is missing, damaged, of another schema version, or cannot be written."""


class NonFiniteError(RectilinearError):
    """An activation was NaN or infinite."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ' Did you mean X?' for the closest of `known`, or an empty string."""
    match = get_close_matches(name, list(known), n=1)
    return f" Did you mean {match[0]!r}?" if match else ""


def first_line(error: BaseException) -> str:
    """Return the first line that says something in an error of a library, made visible; its kind where none does."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return visible(lines[0]) if lines else type(error).__name__


def visible(value: object) -> str:
    """Return text with control characters, direction marks and lone surrogates written out as escapes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(value))
