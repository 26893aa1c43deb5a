"""Calls of libraries that read what strangers wrote: whatever they raise is one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rectilinear.errors import ModelError, RectilinearError, first_line
from rectilinear.hub import fault
from rectilinear.models.quiet import quiet


@contextmanager
def one_line(what: str) -> Iterator[None]:
    """Keep the libraries silent, and raise a ModelError that begins with `what` for any exception of theirs.

    A configuration that is wrong makes them raise almost any kind: it is read where it is used.
    """
    try:
        with quiet():
            yield
    except RectilinearError:
        raise
    except Exception as error:
        raise ModelError(f"{what}: {said(error)}") from error


def said(error: Exception) -> str:
    """Return the first line of an error, or what the Hub failed with where that is beneath it.

    That of a key that is missing stands after the error's kind.
    """
    met = fault(error)
    if met is not None:
        return f"the Hub failed: {first_line(met)}; try again later"
    return f"{type(error).__name__}: {first_line(error)}" if isinstance(error, KeyError) else first_line(error)
