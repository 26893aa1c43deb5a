"""What all results share: the schema version, values fit for strict JSON, and files that several folders hold."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
from pathlib import Path
from typing import Any

SCHEMA = 1


def mean(values: Any) -> float | None:
    """Return the mean of the numbers among `values`, None where there are none."""
    numbers = [v for v in values if v is not None]
    return sum(numbers) / len(numbers) if numbers else None


def clean(value: Any) -> Any:
    """Return `value` with dataclasses as dicts, tuples as lists, non-finite floats as None, ready for strict JSON."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): clean(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(v) for v in value]
    if dataclasses.is_dataclass(value):
        return {f.name: clean(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return value


def link_files(source: Path, target: Path) -> None:
    """Give the files of a folder a place in a new one too: they are large, and never changed, only replaced.

    Raises OSError where the disk refuses.
    """
    target.mkdir()
    for file in source.iterdir():
        try:
            os.link(file, target / file.name)
        except OSError:  # another disk, or one that has no such links
            shutil.copyfile(file, target / file.name)
