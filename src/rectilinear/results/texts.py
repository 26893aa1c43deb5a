"""The result of a scan on several texts: one scan for each, and how well the maps of each do on the others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rectilinear.results.document import SCHEMA, clean, mean
from rectilinear.results.scan import ScanResult
from rectilinear.results.shown import Drawn

Table = list[list[float | None]]


@dataclass(frozen=True, repr=False)
class TextsResult(Drawn):
    """Scans by the name of their text, and the transfer tables.

    transfer: for "score" and "increment", "heldout" and "ordinary": for every layer a table [source][target], the score
    on the target text of the map that was fitted on the source text; on the diagonal on documents held out.
    """

    results: Mapping[str, ScanResult]
    transfer: Mapping[str, Mapping[str, list[Table]]]

    @property
    def names(self) -> list[str]:
        """Names of the texts, in the order given."""
        return list(self.results)

    def means(self, kind: str, tokens: str) -> Table:
        """Return the mean over layers of a transfer table [source][target]."""
        tables = self.transfer[kind][tokens]
        count = range(len(self.results))
        return [[mean(table[i][j] for table in tables) for j in count] for i in count]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document: names, the transfer tables by layer and their means; the scans have their own."""
        means = {k: {t: self.means(k, t) for t in tables} for k, tables in self.transfer.items()}
        return {
            "schema": SCHEMA,
            "kind": "texts",
            "names": self.names,
            "transfer": clean(self.transfer),
            "means": clean(means),
            "summaries": {name: clean(result.summary()) for name, result in self.results.items()},
        }

    def to_json(self) -> str:
        """Return the document as indented JSON; NaN never appears."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False)

    def save(self, out: str | Path, *, force: bool = False) -> Path:
        """Write texts.json, transfer.csv, a page and a folder for every scan, whole or not at all; return the path."""
        from rectilinear.report.texts import save_texts  # the report knows the results, not the other way round

        return save_texts(self, Path(out), force=force)
