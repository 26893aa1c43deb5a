"""Rows of a parquet file: columns of text and numbers, a few at a time, however often one long text is repeated."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rectilinear.errors import TextError, first_line

if TYPE_CHECKING:
    from pyarrow import DataType
    from pyarrow.parquet import ParquetFile

LEAST, MOST = 64, 1024  # rows that are read at once
LARGEST = 1 << 26  # bytes that they take, where there are more than so few
PACKED = 50  # times: text is packed three- to tenfold, and more only where it repeats itself


def parquet_rows(path: Path, *, text_only: bool = False) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file, of its columns of text and numbers, or of lists and structs of them.

    text_only: of its columns of text alone. Raises TextError where it cannot be read or has no such columns.
    """
    import pyarrow.parquet
    from pyarrow import ArrowException

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            schema, fits = file.schema_arrow, _is_text if text_only else _is_plain
            wanted = [field.name for field in schema if fits(field.type)]
            if not wanted:
                kinds = "text" if text_only else "text or numbers"
                got = ", ".join(f"{field.name} ({field.type})" for field in schema) or "none"
                raise TextError(f"expected a column of {kinds} in {path.name}, got {got}")
            for batch in file.iter_batches(_rows(file, path.stat().st_size), columns=wanted):
                yield from batch.to_pylist()
    except (ArrowException, OSError, ValueError, LookupError, ArithmeticError) as error:  # text that is none, and dates
        raise TextError(f"cannot read {path} as parquet: {first_line(error)}") from error


def _is_text(kind: DataType) -> bool:
    from pyarrow import types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_string(kind) or types.is_large_string(kind))


def _is_plain(kind: DataType) -> bool:
    """Tell whether a column is of use here: Python cannot hold all dates and times, nor find all of their zones."""
    from pyarrow import types

    if types.is_nested(kind):
        return not types.is_map(kind) and all(_is_plain(kind.field(i).type) for i in range(kind.num_fields))
    number = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
    return bool(number or types.is_null(kind) or _is_text(kind))


def _rows(file: ParquetFile, size: int) -> int:
    """Return how many rows to read at once of a file of some size: a text it holds once may stand in all of them.

    Sizes are those of groups of rows: asking for a column's ends the process where its statistics are damaged.
    """
    groups = [file.metadata.row_group(group).total_byte_size for group in range(file.metadata.num_row_groups)]
    packed = sum(groups) > PACKED * size
    return max(1 if packed else LEAST, min(MOST, LARGEST // max(1, *groups, 1)))
