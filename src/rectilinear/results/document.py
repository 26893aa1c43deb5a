"""What all result documents share: the schema version, and values fit for strict JSON."""

from __future__ import annotations

import math
from typing import Any

SCHEMA = 1


def mean(values: Any) -> float | None:
    """Return the mean of the numbers among `values`, None where there are none."""
    numbers = [v for v in values if v is not None]
    return sum(numbers) / len(numbers) if numbers else None


def clean(value: Any) -> Any:
    """Return `value` with tuples as lists and non-finite floats as None, ready for strict JSON."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(k): clean(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(v) for v in value]
    return value
