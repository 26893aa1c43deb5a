import csv
import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from disk import limits, unchanged
from pages import Seen
from rectilinear.errors import ResultError
from rectilinear.report.finetuning import (
    finetune_csv,
    finetune_figure,
    finetune_table,
    keep_seed,
    load_finetune,
    render_finetune,
)
from rectilinear.results import Change, Changes, DeltaResult, FinetuneResult, HealPoint, LayerDelta, SeedResult, Spread

HOSTILE = "</title><script>alert(1)</script>[bold]x[/bold]\x1b[31m\ud800"


def changes(delta):
    seen = Change(0.5, 0.5 + delta, delta, delta - 0.01, delta + 0.01)
    return Changes(Change(0.6, 0.6 + delta, delta), seen, seen)


def seed(number):
    at = 0.02 * number
    layers = tuple(LayerDelta(i, changes(at), changes(at + 0.01 * i)) for i in range(4))
    facts = {"model": HOSTILE}
    gap = DeltaResult(facts, facts, {"text": "t"}, layers, {"score": changes(at), "increment": changes(at + 0.015)})
    points = tuple(HealPoint(i + 1, 10 * i, 1.0 * i, 0.7 - 0.1 * i) for i in range(4))
    return SeedResult(number, 0.5, 0.8 + 0.02 * number, points, gap)


@pytest.fixture
def result():
    return FinetuneResult(
        task={"name": HOSTILE, "source": "s", "labels": ["a", "b"], "train": 90, "test": 50, "majority": 0.6},
        recipe={"method": "full", "steps": 10, "batch": 8, "accumulate": 2, "rate": 2e-5},
        trained=1000,
        parameters=1000,
        seeds=(seed(0), seed(1), seed(2)),
        provenance={"model": HOSTILE, "text": HOSTILE, "command": HOSTILE},
        warnings=(f"Mind {HOSTILE}.",),
    )


def shown(result, width=100):
    file = io.StringIO()
    Console(file=file, width=width).print(finetune_table(result))
    return file.getvalue()


def test_spreads_are_sample_deviations_and_none_for_one():
    assert Spread.of([1.0, 2.0, 3.0]) == Spread(2.0, 1.0)
    assert Spread.of([1.0, None]) == Spread(1.0, None)
    assert Spread.of([None]) == Spread(None, None)


def test_the_document_reads_back_equal_with_a_summary(result):
    document = json.loads(result.to_json())
    assert FinetuneResult.from_dict(document) == result
    assert document["summary"]["increment"]["heldout"]["mean"] == pytest.approx(0.035)
    assert document["summary"]["accuracy_after"]["std"] == pytest.approx(0.02)


def test_other_documents_are_refused(result):
    for change, said in (({"schema": 9}, "schema 9"), ({"kind": "scan"}, "kind 'scan'"), ({"seeds": [{}]}, "damaged")):
        with pytest.raises(ResultError, match=said):
            FinetuneResult.from_dict({**result.to_dict(), **change})


def test_the_table_has_the_form_of_table_1(result):
    text = shown(result)
    assert "+0.0350 ± 0.0200" in text and "+0.0200 ± 0.0200" in text
    assert "0.500 ± 0.000 → 0.820 ± 0.020; the more frequent class alone gets 0.600" in " ".join(text.split())
    assert "held-out 3 of 3" in text and "10 steps of 16 examples at 2e-05" in text
    assert "\x1b" not in text and "[bold]x[/bold]" in text
    alone = replace(result, seeds=(seed(1),), task={**result.task, "majority": None})
    assert "±" not in shown(alone).split("± standard")[0] and "frequent class" not in shown(alone)
    lines = shown(result, 80).splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert [line.split()[0] for line in lines[-len(result.seeds) - len(result.warnings) :]][:3] == [
        "0",
        "1",
        "2",
    ]  # one line each


def test_the_page_is_whole_and_escapes_text_from_data(result, tmp_path):
    page = (result.save(tmp_path / "out") / "report.html").read_text()
    seen = Seen(page)
    assert seen.tags.count("script") == 1 and "\x1b" not in page
    assert len(seen.ids) == len(set(seen.ids))
    assert {link[1:] for link in seen.links} <= set(seen.ids)
    assert "+0.0350 ± 0.0200" in page and page.count('class="mark">◆') == 1 + 6
    assert "with 3 seeds" in page and "<b>0.820 ± 0.020</b> after" in page
    alone = (replace(result, seeds=(seed(1),)).save(tmp_path / "alone") / "report.html").read_text()
    assert "with 1 seed (" in alone and "One seed; more than noise by the documents in 1 of 1" in alone


def test_the_figure_has_a_curve_a_score_and_deviations_for_bands(result):
    words = [getattr(shape, "words", "") for shape in finetune_figure(result).plain()]
    assert {"paper, in-sample", "held-out", "ordinary"} <= set(words)
    assert finetune_figure(replace(result, seeds=(seed(0),))).shapes  # no deviation, no band


def test_the_csv_has_a_line_a_layer(result):
    rows = list(csv.DictReader(io.StringIO(finetune_csv(result))))
    assert len(rows) == 4 and float(rows[3]["increment_heldout_mean"]) == pytest.approx(0.05)
    assert float(rows[3]["increment_ordinary_std"]) == pytest.approx(0.02)


def test_a_folder_is_drawn_again(result, tmp_path):
    out = result.save(tmp_path / "out")
    files = {path.name for path in out.rglob("*.*")}
    assert files == {"finetune.json", "layers.csv", "report.html", "finetune.svg", "finetune.png"}
    with pytest.raises(ResultError, match="--force"):
        result.save(out)
    (out / "report.html").unlink()
    render_finetune(load_finetune(out), out)
    assert load_finetune(out / "finetune.json") == result and (out / "report.html").is_file()


def test_a_full_disk_leaves_the_seeds_before_and_the_old_drawing(result, tmp_path):
    keep_seed(replace(result, seeds=result.seeds[:1]), 0, tmp_path / "out", None, fresh=True)
    unchanged(tmp_path, lambda: keep_seed(result, 1, tmp_path / "out", None, fresh=False), (0, 100))
    render_finetune(result, tmp_path / "out")
    unchanged(tmp_path, lambda: render_finetune(result, tmp_path / "out"), limits(tmp_path / "out"))


def test_seeds_are_kept_one_by_one_each_whole(result, tmp_path):
    out = tmp_path / "out"
    first = replace(result, seeds=result.seeds[:1])

    def weights(folder):
        (folder / "config.json").write_text("{}")

    keep_seed(first, 0, out, weights, fresh=True)
    assert load_finetune(out) == first and (out / "seed-0" / "config.json").is_file()

    def full(folder):
        (folder / "config.json").write_text("{")
        raise OSError(28, "No space left on device")

    with pytest.raises(ResultError, match="No space left"):
        keep_seed(replace(result, seeds=result.seeds[:2]), 1, out, full, fresh=False)
    assert load_finetune(out) == first and not (out / "seed-1").exists()
    keep_seed(replace(result, seeds=result.seeds[:2]), 1, out, weights, fresh=False)
    keep_seed(result, 2, out, None, fresh=False)
    assert load_finetune(out) == result and not (out / "seed-2").exists()
    assert (out / "SHA256SUMS").read_text().count("config.json") == 2
    with pytest.raises(ResultError, match="--force"):
        keep_seed(first, 0, out, None, fresh=True)
    keep_seed(first, 0, out, None, fresh=True, force=True)
    assert load_finetune(out) == first and not (out / "seed-0").exists()
