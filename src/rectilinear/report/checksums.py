"""Checksums of a folder's data, compared. Pictures and pages have none: they are drawn again."""

from __future__ import annotations

from pathlib import Path

from rectilinear.digests import SUMS, data_files, fault, read_sums
from rectilinear.errors import ResultError


def verify(folder: Path) -> tuple[int, list[str]]:
    """Return how many files of a folder are as they were written, and a line for each that is not.

    Raises ResultError where the folder holds no sums, or sums that cannot be read.
    """
    if not folder.is_dir():
        raise ResultError(f"expected a folder to verify, got {folder}")
    try:
        known = read_sums(folder)
    except FileNotFoundError:
        raise ResultError(
            f"expected {SUMS} in {folder}, got none: it is not finished, or was written by an earlier version"
        ) from None
    except OSError as error:
        raise ResultError(f"cannot read {folder / SUMS}: {error.strerror or error}") from error
    wrong = [f"{name}: {said}" for name, expected in known.items() if (said := fault(folder, name, expected))]
    wrong += [f"{name}: is not among those written" for name in data_files(folder) if name not in known]
    return len(known) - sum(line.split(": ")[0] in known for line in wrong), wrong
