import csv
import errno
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rectilinear.errors import ResultError
from rectilinear.report import folder, swap
from rectilinear.report.folder import check_writable, load, render, save


@pytest.fixture
def undrawn(monkeypatch):
    """Leave the figures out, which take seconds, where a test is about files."""
    monkeypatch.setattr("rectilinear.report.plots.scan_figures", lambda result: {})


def test_what_is_saved_is_loaded_equal(make_scan, undrawn, tmp_path):
    result = make_scan()
    out = save(result, tmp_path / "scan")
    for path in (out, out / "result.json"):
        again = load(path)
        assert again == result
        assert all(np.array_equal(again.arrays[name], array, equal_nan=True) for name, array in result.arrays.items())


def test_the_folder_holds_table_plots_and_page(make_scan, tmp_path):
    out = save(make_scan(), tmp_path / "scan")
    found = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    plots = {f"plots/{name}.{kind}" for name in ("profile", "norms", "tails", "spectra") for kind in ("png", "svg")}
    assert found == plots | {"result.json", "arrays.safetensors", "layers.csv", "report.html", "SHA256SUMS"}
    assert [path.name for path in tmp_path.iterdir()] == ["scan"]


def test_csv_has_one_flat_line_a_layer(make_scan, undrawn, tmp_path):
    with (save(make_scan(), tmp_path / "scan") / "layers.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    wanted = "layer score_paper score_heldout_low increment_ordinary norm_ratio cosine_std stream_norm_max sink_count "
    wanted += "sink_variance_share tail_share_1 tail_index anisotropy effective_rank intrinsic_dimension"
    assert set(wanted.split()) <= set(rows[0])
    assert float(rows[2]["score_paper"]) == 0.99965
    assert rows[0]["intrinsic_dimension"] == ""


def test_an_existing_folder_is_replaced_only_with_force(make_scan, undrawn, tmp_path):
    out = save(make_scan(), tmp_path / "scan")
    (out / "stale").touch()
    with pytest.raises(ResultError, match="exists; add --force"):
        save(make_scan(3), out)
    assert len(load(save(make_scan(3), out, force=True)).layers) == 3
    assert not (out / "stale").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["scan"]


def test_what_is_no_result_is_never_deleted(make_scan, undrawn, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").touch()
    with pytest.raises(ResultError, match=r"holds no result\.json"):
        save(make_scan(1), tmp_path / "thesis", force=True)
    assert (tmp_path / "thesis" / "chapter.tex").exists()
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ResultError):
            check_writable(out, force=True)


def test_an_empty_folder_may_be_filled(make_scan, undrawn, tmp_path):
    (tmp_path / "empty").mkdir()
    assert load(save(make_scan(1), tmp_path / "empty"))


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    ("failure", "raised"),
    [(OSError(errno.ENOSPC, "No space left on device"), ResultError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_a_failure_leaves_nothing_behind_and_the_old_folder_whole(
    make_scan, undrawn, tmp_path, monkeypatch, force, failure, raised
):
    if force:
        save(make_scan(2), tmp_path / "scan")

    def fail(*_, **__):
        raise failure

    monkeypatch.setattr(folder, "write_figures", fail)
    with pytest.raises(raised):
        save(make_scan(3), tmp_path / "scan", force=force)
    assert [path.name for path in tmp_path.iterdir()] == (["scan"] if force else [])
    if force:
        assert len(load(tmp_path / "scan").layers) == 2


def test_the_old_folder_comes_back_where_the_last_rename_fails(make_scan, undrawn, tmp_path, monkeypatch):
    out = save(make_scan(2), tmp_path / "scan")
    monkeypatch.setattr(swap, "_exchanged", lambda one, other: False)  # a disk that knows no such thing
    rename = Path.replace

    def fail(self, target):
        if self.name == "new":
            raise OSError(errno.EACCES, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(ResultError, match="Permission denied; nothing was kept"):
        save(make_scan(3), out, force=True)
    assert len(load(out).layers) == 2


def test_what_cannot_be_loaded_is_named(make_scan, undrawn, tmp_path):
    out = save(make_scan(1), tmp_path / "scan")
    with pytest.raises(ResultError, match="expected a folder written by"):
        load(out / "typo")
    (out / "arrays.safetensors").write_bytes(b"damaged")
    with pytest.raises(ResultError, match=r"arrays\.safetensors"):
        load(out)
    (out / "arrays.safetensors").unlink()
    document = json.loads((out / "result.json").read_text(encoding="utf-8"))
    (out / "result.json").write_text(json.dumps({**document, "schema": 99}), encoding="utf-8")
    with pytest.raises(ResultError, match="schema 99"):
        load(out)
    for text in ("{", "[]"):
        (out / "result.json").write_text(text, encoding="utf-8")
        with pytest.raises(ResultError):
            load(out)


def test_render_draws_again_what_was_deleted_and_png_on_request(make_scan, tmp_path):
    out = save(make_scan(2), tmp_path / "scan")
    drawn = {path: path.read_bytes() for path in (out / "plots").iterdir()}
    for path in (out / "report.html", out / "layers.csv", *drawn):
        path.unlink()
    render(load(out), out)
    assert (out / "report.html").stat().st_size > 10_000
    assert (out / "layers.csv").exists()
    assert {path.suffix for path in (out / "plots").iterdir()} == {".svg"}
    render(load(out), out, png=True)
    assert {path: path.read_bytes() for path in (out / "plots").iterdir()} == drawn


def test_the_report_loads_neither_torch_nor_transformers_nor_matplotlib(make_scan, tmp_path):
    out = save(make_scan(2), tmp_path / "scan")
    code = (
        "import sys; from pathlib import Path; from rectilinear.report import compare, folder, html, plots, terminal\n"
        "folder.render(folder.load(sys.argv[1]), Path(sys.argv[1]))\n"
        "wrong = {'torch', 'transformers', 'datasets', 'typer', 'matplotlib'} & set(sys.modules)\n"
        "assert not wrong, wrong"
    )
    subprocess.run([sys.executable, "-c", code, str(out)], check=True)
