"""Rows of a table that know where they stand, so that what they lack can be told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rectilinear.data.text import numbered_rows
from rectilinear.errors import TextError


@dataclass(frozen=True)
class Row:
    """One row, and where it stands ("line 3 of data.jsonl")."""

    values: dict[str, Any]
    place: str

    def value(self, name: str) -> Any:
        """Return a field; raises TextError, with the place and the fields that are there, where it is missing."""
        found = self.values.get(name)
        if found is None:
            raise TextError(
                f"expected the field {name!r} in {self.place}, got {', '.join(map(str, self.values)) or 'none'}"
            )
        return found

    def text(self, name: str) -> str:
        """Return a field that is text; raises TextError as above, and where it is something else or blank."""
        found = self.value(name)
        if not isinstance(found, str) or not found.strip():
            said = "blank text" if isinstance(found, str) else type(found).__name__
            raise TextError(f"expected text in the field {name!r} of {self.place}, got {said}")
        return found.strip()

    def items(self, name: str) -> list[Any]:
        """Return a field that is a list; raises TextError as above."""
        found = self.value(name)
        if not isinstance(found, list):
            raise TextError(f"expected a list in the field {name!r} of {self.place}, got {type(found).__name__}")
        return found

    def inside(self, values: Any, name: str) -> Row:
        """Return the row that is nested in the field `name`; raises TextError where it is none."""
        if not isinstance(values, dict):
            raise TextError(f"expected an object in the field {name!r} of {self.place}, got {type(values).__name__}")
        return Row(values, f"{name} of {self.place}")


def rows_of(source: str, **options: Any) -> Iterator[Row]:
    """Yield the rows of a jsonl or parquet file or a Hub data set (`numbered_rows`); raises TextError as it does."""
    path = Path(source).expanduser()
    unit, name = ("line", path.name) if path.is_file() else ("row", source)
    for number, values in numbered_rows(source, **options):
        yield Row(values, f"{unit} {number} of {name}")
