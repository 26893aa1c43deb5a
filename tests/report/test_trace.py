import csv
import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from disk import limits, unchanged
from pages import Seen
from rectilinear.errors import ResultError
from rectilinear.report.checksums import verify
from rectilinear.report.folder import table_csv
from rectilinear.report.shapes import BLUE, ORANGE, Text
from rectilinear.report.trace import keep_scan, load_trace, render_trace, save_trace, trace_rows, trace_table
from rectilinear.report.training import along, by_layer, ramp, story, trace_figures
from rectilinear.results import LayerScores, TracePoint, TraceResult, mean

HOSTILE = "</script><script>alert(1)</script> \ud800 [bold]x[/bold] \x1b"
PLOTS = {f"plots/{name}.{kind}" for name in ("trace", "trace-layers") for kind in ("png", "svg")}


@pytest.fixture
def make_trace(make_scan):
    """Return the factory: a trace at such steps, as a trace of the made-up scan would be."""

    def make(steps=(0, 1, 64, 512), *, layers=12, heldout=True):
        scan = make_scan(layers, heldout=heldout)
        return TraceResult({**scan.provenance, "steps": list(steps)}, tuple(point(scan, step) for step in steps))

    return make


def point(scan, step):
    layers = tuple(
        LayerScores(one.layer, one.score, one.increment, one.norm_ratio, one.cosine, one.sinks.count)
        for one in scan.layers
    )
    means = {
        kind: type(layers[0].score)(
            *(mean(getattr(getattr(one, kind), name) for one in layers) for name in vars(layers[0].score))
        )
        for kind in ("score", "increment")
    }
    return TracePoint(
        step,
        f"checkpoint-{step} {HOSTILE}",
        None,
        "f",
        "2026-01-01",
        **means,
        norm_ratio=0.3,
        cosine=0.9,
        layers=layers,
    )


def printed(result, width):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(trace_table(result))
    return console.file.getvalue()


def words(drawing):
    return [shape.words for shape in drawing.plain() if isinstance(shape, Text)]


def axis(drawing):
    """Return the numbers along the bottom."""
    texts = [shape for shape in drawing.plain() if isinstance(shape, Text)]
    return [text.words for text in texts if text.y == texts[-2].y]


def test_what_is_saved_is_loaded_equal(make_trace, tmp_path):
    result = make_trace()
    out = save_trace(result, tmp_path / "trace")
    assert {str(path.relative_to(out)) for path in out.rglob("*.*")} == PLOTS | {
        "trace.json",
        "layers.csv",
        "trace.html",
    }
    assert load_trace(out) == load_trace(out / "trace.json") == result
    with pytest.raises(ResultError, match="exists; add --force"):
        save_trace(result, out)
    with pytest.raises(ResultError, match="written by `rectilinear trace`"):
        load_trace(tmp_path)


def test_scans_are_kept_one_by_one(make_trace, make_scan, tmp_path, monkeypatch):
    monkeypatch.setattr("rectilinear.report.plots.scan_figures", lambda result: {})
    out, scan = tmp_path / "trace", make_scan(12)
    for count, step in enumerate((0, 1), 1):
        scan.provenance["step"] = step
        keep_scan(make_trace((0, 1)[:count]), scan, out, fresh=count == 1)
        assert [one.step for one in load_trace(out).points] == [0, 1][:count]
        assert (out / "scans" / f"step-{step}" / "report.html").is_file()
    assert {path.name for path in out.iterdir()} == {"trace.json", "scans", "SHA256SUMS"}
    assert verify(out)[1] == []
    assert [path.name for path in tmp_path.iterdir()] == ["trace"]
    with pytest.raises(ResultError, match="--force"):
        keep_scan(make_trace((0,)), scan, out, fresh=True)
    keep_scan(make_trace((1,)), scan, out, fresh=True, force=True)
    assert [path.name for path in (out / "scans").iterdir()] == ["step-1"]


def test_a_failure_while_a_scan_is_kept_leaves_what_was_there(make_trace, make_scan, tmp_path, monkeypatch):
    out, scan = tmp_path / "trace", make_scan(2)
    scan.provenance["step"] = 0
    keep_scan(make_trace((0,), layers=2), scan, out, fresh=True)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rectilinear.report.folder.write_figures", fail)
    scan.provenance["step"] = 1
    with pytest.raises(ResultError, match="No space left"):
        keep_scan(make_trace((0, 1), layers=2), scan, out, fresh=False)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_full_disk_leaves_the_scans_before(make_trace, make_scan, tmp_path, monkeypatch):
    monkeypatch.setattr("rectilinear.report.plots.scan_figures", lambda result: {})
    out, scan = tmp_path / "trace", make_scan(12)
    scan.provenance["step"] = 0
    keep_scan(make_trace((0,)), scan, out, fresh=True)
    scan.provenance["step"] = 1
    unchanged(tmp_path, lambda: keep_scan(make_trace((0, 1)), scan, out, fresh=False), limits(out))


def test_the_table_has_one_line_a_checkpoint_and_layer(make_trace):
    rows = list(csv.DictReader(io.StringIO(table_csv(trace_rows(make_trace((1, 10), layers=3))))))
    assert [(row["step"], row["layer"]) for row in rows] == [(s, layer) for s in ("1", "10") for layer in "012"]
    wanted = "checkpoint score_paper score_heldout_low increment_heldout increment_ordinary norm_ratio cosine sinks"
    assert set(wanted.split()) <= set(rows[0])


def test_step_0_has_a_place_left_of_all_others(make_trace):
    assert axis(along(make_trace((0, 1, 10, 100)).points)) == ["0", "1", "2", "5", "10", "20", "50", "100"]
    assert axis(along(make_trace((1, 10, 100)).points)) == ["1", "2", "5", "10", "20", "50", "100"]
    assert "0" in axis(along(make_trace((0,)).points))


def test_every_checkpoint_has_a_colour_and_few_a_name(make_trace):
    assert (ramp(0, 9), ramp(8, 9), ramp(0, 1)) == (ORANGE, BLUE, ORANGE)
    assert len({ramp(i, 30) for i in range(30)}) == 30
    drawing = by_layer(make_trace(tuple(range(1, 41)), layers=3).points)
    named = [word for word in words(drawing) if word.startswith("step ")]
    assert len(named) == 12 and named[0] == "step 1" and named[-1] == "step 40"
    assert {shape.name for shape in drawing.plain() if getattr(shape, "name", "")} == {
        f"step-{i}" for i in range(1, 41)
    }


def test_the_terminal_table_fits_and_escapes(make_trace):
    for width in (80, 120):
        text = printed(make_trace((0, 143_000), layers=80), width)
        assert all(len(line) <= width for line in text.splitlines())
        assert "143,000" in text and "org/tiny [bold]<b>" in text and "\x1b" not in text
    assert "–" in printed(make_trace(heldout=False), 100)


def test_the_story_names_the_ends_and_what_lies_beyond_them(make_trace):
    def at(step, value):
        one = make_trace((step,), layers=1).points[0]
        return replace(one, increment=replace(one.increment, heldout=value))

    rise = TraceResult({}, tuple(at(*pair) for pair in ((1, 0.5), (1000, 0.6))))
    assert story(rise) == "Mean increment score on unseen text: 0.5000 at step 1, 0.6000 at step 1,000."
    hill = TraceResult({}, tuple(at(*pair) for pair in ((0, 0.5), (10, 0.9), (20, 0.1), (30, 0.3))))
    assert story(hill).endswith("0.3000 at step 30, highest at step 10 (0.9000), lowest at step 20 (0.1000).")
    assert story(TraceResult({}, (at(0, 0.5),))).endswith(": 0.5000 at step 0.")
    assert "in-sample" in story(make_trace(heldout=False))


def test_the_page_is_whole_and_safe(make_trace, tmp_path):
    out = save_trace(make_trace(), tmp_path / "trace")
    page = (out / "trace.html").read_text(encoding="utf-8")
    seen = Seen(page)
    assert seen.tags.count("script") == 3  # data, the chooser, sorting
    assert all(link.startswith("#") for link in seen.links)
    assert {link[1:] for link in seen.links} <= set(seen.ids) and len(seen.ids) == len(set(seen.ids))
    assert not re.search(r"@import|url\((?!#)", page) and "\x1b" not in page
    frames = json.loads(re.search(r'id="frames">(.*?)</script>', page, re.S)[1])
    assert [frame["step"] for frame in frames] == [0, 1, 64, 512] and len(frames[0]["rows"]) == 12
    (out / "scans" / "step-64").mkdir(parents=True)
    (out / "scans" / "step-64" / "report.html").touch()
    render_trace(load_trace(out), out)
    assert "scans/step-64/report.html" in Seen((out / "trace.html").read_text(encoding="utf-8")).links


def test_a_long_trace_of_a_deep_model_stays_small(make_trace, tmp_path):
    result = make_trace(tuple(range(0, 154)), layers=80)
    assert len(trace_figures(result)) == 2
    render_trace(result, tmp_path)
    assert (tmp_path / "trace.html").stat().st_size < 4_000_000


def test_nothing_held_out_and_gaps_are_drawn(make_trace, tmp_path):
    render_trace(make_trace(heldout=False), tmp_path)
    assert "In-sample: nothing was held out" in (tmp_path / "trace.html").read_text(encoding="utf-8")


def test_drawing_again_loads_neither_torch_nor_matplotlib(make_trace, tmp_path):
    out = save_trace(make_trace(), tmp_path / "trace")
    code = (
        "import sys; from pathlib import Path; from rectilinear.report import trace\n"
        "trace.render_trace(trace.load_trace(sys.argv[1]), Path(sys.argv[1]))\n"
        "wrong = {'torch', 'transformers', 'datasets', 'typer', 'matplotlib'} & set(sys.modules)\n"
        "assert not wrong, wrong"
    )
    subprocess.run([sys.executable, "-c", code, str(out)], check=True)


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium on the path")
def test_the_slider_shows_another_checkpoint(make_trace, tmp_path):
    result = make_trace((1, 512), layers=3)
    early = replace(result.points[0], layers=make_trace((1,), layers=30).points[0].layers[20:23])
    early = replace(early, layers=tuple(replace(one, layer=i) for i, one in enumerate(early.layers)))
    result = replace(result, points=(early, result.points[1]))
    out = save_trace(result, tmp_path / "trace")
    page = out / "trace.html"
    moved = "<script>slider.value = 0; slider.dispatchEvent(new Event('input'));</script></body>"
    text = page.read_text(encoding="utf-8").replace("</body>", moved)
    page.write_text(text, encoding="utf-8")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'user'}"]
    done = subprocess.run(
        [*command, "--dump-dom", page.as_uri()], capture_output=True, text=True, check=True, timeout=300
    )
    assert '<span id="layers-of">step 1</span>' in done.stdout
    assert re.search(r'<output[^>]*id="chosen"[^>]*>step 1 ·', done.stdout)
    on = re.findall(r'data-name="([^"]+)" class="on"', done.stdout)
    assert set(on) == {"step-1"}
    cells = re.search(r'<tbody id="cells">(.*?)</tbody>', done.stdout, re.S)[1]
    assert f"{early.layers[1].score.heldout:.4f}" in cells
    assert re.search(r'<a id="report" hidden', done.stdout)
    assert f"{result.points[1].layers[1].score.heldout:.4f}" not in cells
