"""A disk that fills up while a result is saved over an old one, or drawn again in its place."""

import pytest

from disk import limits, unchanged
from rectilinear.report.again import kind_of
from rectilinear.report.compare import save_compare

KINDS = (
    "ScanResult",
    "SweepResult",
    "TokensResult",
    "EvalResult",
    "TraceResult",
    "DeltaResult",
    "ProbeResult",
)
SAVED_ONLY = ("SweepResult", "EvalResult")  # `rectilinear report` does not draw them


@pytest.fixture(autouse=True)
def unpainted(monkeypatch):
    """Leave PNGs out, which take seconds: they go through the same function as the other files."""
    monkeypatch.setattr("rectilinear.report.folder._write_pngs", lambda figures, folder: None)


@pytest.mark.parametrize("name", KINDS)
def test_an_old_result_stays_whole(name, results, tmp_path):
    (result,) = (one for one in results if type(one).__name__ == name)
    out = result.save(tmp_path / "out")
    (out / "mark").touch()
    unchanged(tmp_path, lambda: result.save(out, force=True), limits(out))
    if name not in SAVED_ONLY:
        kind = kind_of(out)
        drawn = kind.load(out)
        (out / kind.page).write_text("of an earlier version")
        unchanged(tmp_path, lambda: kind.render(drawn, out), limits(out))
        kind.render(drawn, out)
        assert (out / kind.page).read_text() != "of an earlier version" and (out / "mark").exists()


def test_scans_side_by_side(make_scan, tmp_path):
    def compared(force):
        save_compare([make_scan(3), make_scan(4)], ["a", "b"], tmp_path / "out", force=force)

    compared(False)
    unchanged(tmp_path, lambda: compared(True), limits(tmp_path / "out"))
