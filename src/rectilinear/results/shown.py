"""What results are in a notebook. The report draws it; it knows the results, not the other way round."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


class Shown:
    """A result that a notebook shows by itself, and that becomes a table."""

    def _repr_html_(self) -> str:
        from rectilinear.report.notebook import html

        return html(self)

    def to_frame(self) -> DataFrame:
        """Return the result as a pandas table, one row a layer, model, cut, token or step: what its CSV would hold.

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
