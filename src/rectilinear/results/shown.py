"""What results are in a notebook. The report draws it; it knows the results, not the other way round."""

from __future__ import annotations

import reprlib
from dataclasses import fields
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


class Shown:
    """A result that a notebook shows by itself, and that becomes a table."""

    def __repr__(self) -> str:
        # In full it would fill many screens, and as many pages of a notebook's file.
        parts = (
            f"{field.name}={reprlib.repr(getattr(self, field.name))}" for field in fields(cast(Any, self)) if field.repr
        )
        return f"{type(self).__name__}({', '.join(parts)})"

    def _repr_html_(self) -> str:
        from rectilinear.report.notebook import html

        return html(self)

    def to_frame(self) -> DataFrame:
        """Return the result as a pandas table: one row a layer, model, cut, token and layer, or step of training.

        Raises ResultError where pandas is not installed.
        """
        from rectilinear.report.notebook import frame

        return frame(self)


class Drawn(Shown):
    """A result that has figures as well."""

    def plot(self, name: str | None = None) -> Figure:
        """Return one of the result's figures, by default the first, as a matplotlib figure; a notebook shows it.

        Names are those of the files in `plots`. Raises ResultError for another one.
        """
        from rectilinear.report.notebook import figure

        return figure(self, name)
