"""How far two scans of the same text are apart, figure by figure: one JSON line.

    python benchmarks/sameness.py whole merged

Relative to the first scan. Figures equal to the last bit are counted, and so are names, places and counts that differ.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

import rectilinear


def leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield all values of a document with their keys, positions in lists left out."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{place}.{key}")
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from leaves(item, place)
    else:
        yield re.sub(r"^\.", "", place), value


def main() -> None:
    """Compare the layers and the arrays of two folders."""
    first, second = (rectilinear.load_result(folder) for folder in sys.argv[1:3])
    apart: dict[str, float] = {}
    other = 0
    pairs = zip(leaves(first.to_dict()["layers"]), leaves(second.to_dict()["layers"]), strict=True)
    for (place, a), (_, b) in pairs:
        if isinstance(a, float) and isinstance(b, float):
            apart[place] = max(apart.get(place, 0.0), abs(a - b) / max(abs(a), 1e-300))
        else:
            other += a != b
    for name, a in first.arrays.items():
        b = second.arrays[name]
        apart[name] = float(np.nanmax(np.abs(a.astype(float) - b))) / max(float(np.nanmax(np.abs(a))), 1e-300)
    differ = dict(sorted(((n, float(f"{v:.1e}")) for n, v in apart.items() if v), key=lambda item: -item[1]))
    print(
        json.dumps(
            {"figures": len(apart), "equal": len(apart) - len(differ), "others that differ": other, "apart": differ}
        )
    )


if __name__ == "__main__":
    main()
