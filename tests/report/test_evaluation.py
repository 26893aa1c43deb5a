import csv
import io
import json
import math
from dataclasses import replace

import pytest
from rich.console import Console

from rectilinear.errors import ResultError
from rectilinear.report.evaluation import eval_csv, save_eval
from rectilinear.report.html import eval_page
from rectilinear.report.judged import quantity, sections
from rectilinear.report.terminal import eval_table
from rectilinear.results import (
    Divergence,
    EvalResult,
    Lambada,
    ModelResult,
    Protocol,
    Size,
    Speed,
    TaskScore,
    TextScore,
)

HOSTILE = ("<script>alert(1)</script>", "\"'&", "\u202eevil", "\ud800", "[bold]x[/bold]", "\x1b[31m", "a\nb")
PROTOCOL = Protocol("joined", 512, 512, 8, None, False, 4088, 4096, 17214, "all documents <b>joined</b>; 8 windows")
TEXT = TextScore(PROTOCOL, 13930.8, 30.2, 26.1, 33.9, 1.1675, 0.368)


def row(name="org/tiny [bold]<b>", **parts):
    facts = {"model": name, "revision": None, "dtype": "float32", "device": "cpu"}
    return ModelResult(name, facts, Size(30, 134_515_008, 538_060_032), **parts)


def tasks(value, error, name="arc_easy"):
    return (
        TaskScore(name, "acc", value, error, 100, "1.0", "0123456789abcdef", "local", True),
        TaskScore("lambada_openai", "perplexity", 12.5, None, 50, "1.0", "fedcba9876543210", "hub", False),
    )


@pytest.fixture
def asked():
    """Two models that were asked tasks, the second one task more."""
    more = (*tasks(0.3, 0.05), *tasks(0.25, 0.04, "<b>&[red]"))
    facts = {"tasks_limit": 100, "versions": {"lm_eval": "9.9"}}
    return EvalResult(facts, (row("dense", tasks=tasks(0.5, 0.0503)), row(tasks=more)))


@pytest.fixture
def full():
    speed = Speed(325.3, 12.3, 256, 32, 5, 46_080.0, 1_535_344_640, "process")
    words = Lambada(40, 0.325, 0.175, 0.451, 58.65)
    models = tuple(
        row(
            name,
            text=replace(TEXT, perplexity=36.0, ratio=1.1921, ratio_low=1.15, ratio_high=1.2),
            divergence=Divergence(0.21, 0.2, 0.22, 0.8, 0.78, 0.82),
            lambada=words,
            speed=replace(speed, generate=24.6),
        )
        for name in HOSTILE
    )
    facts = {
        "text": "</title><script>alert(2)</script>",
        "command": "rectilinear eval '\ud800'",
        "versions": {"a": "1"},
    }
    return EvalResult(facts, models, row(text=TEXT, lambada=words, speed=speed), ("Mind <img src=x> [red]this[/].",))


def shown(result, width=160):
    file = io.StringIO()
    Console(file=file, width=width).print(eval_table(result))
    return file.getvalue()


def test_the_document_reads_back_equal(full):
    assert EvalResult.from_dict(json.loads(full.to_json())) == full
    bare = EvalResult({}, (row(),))
    assert EvalResult.from_dict(bare.to_dict()) == bare


def test_other_documents_are_refused(full):
    for change, said in (({"schema": 9}, "schema 9"), ({"kind": "scan"}, "kind 'scan'"), ({"models": [{}]}, "damaged")):
        with pytest.raises(ResultError, match=said):
            EvalResult.from_dict({**full.to_dict(), **change})


def test_ratios_are_to_the_reference_and_speed_to_it_too(full):
    text, lambada, speed = sections(full)
    assert [s.title.split()[0] for s in (text, lambada, speed)] == ["Text", "LAMBADA", "Speed"]
    baseline, first = (dict(zip(text.columns, cells, strict=True)) for cells in text.rows[:2])
    assert baseline["KL"] == "–" and first["KL"] == "0.2100" and first["agreement"] == "80.0 %"
    assert (first["× org/tiny [bold]…"], first["95 % paired"]) == ("1.1921", "1.1500 … 1.2000")
    assert dict(zip(speed.columns, speed.rows[1], strict=True))["× org/tiny [bold]…"] == "2.000"
    assert "held 1.535 GB" in speed.note


def test_columns_without_content_are_left_out(full):
    (text, size) = sections(EvalResult({}, (row(text=TEXT),)))
    assert text.columns == ("model", "perplexity", "95 %", "bits/byte", "top-1")
    assert size.rows[0][1:] == ("30", "134.5 M", "538.1 MB")
    cuda = replace(full.models[0], speed=replace(full.models[0].speed, peak_scope="model"))
    assert "peak" in sections(EvalResult({}, (cuda,)))[-1].columns


def test_infinite_and_large_numbers_are_told_apart(full):
    broken = row(text=replace(TEXT, perplexity=math.inf, perplexity_high=math.inf, ratio=math.inf))
    (text, _) = sections(EvalResult({}, (row("a", text=TEXT), broken)))
    assert text.rows[1][1:4] == ("∞", "26.10 … ∞", "∞")
    assert [quantity(v) for v in (None, 3, 1234.0, 2.5e9)] == ["–", "3", "1.234 k", "2.5 G"]


def test_the_terminal_shows_hostile_text_as_text_and_fits(full):
    said = shown(full)
    assert "[bold]x[/bold]" in said and "[red]this[/]" in said and "<script>" in said
    assert "\x1b" not in said and "\u202e" not in said
    narrow = shown(full, 80)
    assert "95 % paired" not in narrow and all(len(line) <= 80 for line in narrow.splitlines())


def test_the_page_escapes_what_comes_from_data(full):
    page = eval_page(full)
    assert "<script>alert" not in page and "<img src=x>" not in page and "<b>joined" not in page
    assert "&lt;script&gt;alert(1)" in page and "\u202e" not in page
    page.encode("utf-8")
    assert "Perplexity" in page and "Increment score" not in page


def test_the_folder_is_written_whole_and_not_over_another(full, tmp_path):
    out = full.save(tmp_path / "judged")
    assert {path.name for path in out.iterdir()} == {"eval.json", "eval.csv", "eval.html", "SHA256SUMS"}
    assert json.loads((out / "eval.json").read_text()) == full.to_dict()
    with pytest.raises(ResultError, match="--force"):
        save_eval(full, out)
    save_eval(full, out, force=True)


def test_csv_has_one_line_a_model_the_reference_first(full):
    rows = list(csv.DictReader(io.StringIO(eval_csv(full))))
    assert len(rows) == 1 + len(HOSTILE)
    assert rows[0]["name"] == "org/tiny [bold]<b>" and rows[0]["divergence_kl"] == ""
    assert float(rows[1]["divergence_kl"]) == 0.21 and float(rows[1]["text_ratio"]) == 1.1921


def test_tasks_stand_side_by_side_with_their_errors(asked):
    section = sections(asked)[0]
    assert section.columns[:4] == ("task", "metric", "dense", "org/tiny [bold]<b>")
    assert [line[:5] for line in section.rows] == [
        ("arc_easy", "acc ↑", "0.5000 ± 0.0503", "0.3000 ± 0.0500", "100"),
        ("lambada_openai", "perplexity ↓", "12.5000", "12.5000", "50"),
        ("<b>&[red]", "acc ↑", "–", "0.2500 ± 0.0400", "100"),
    ]
    assert "lm-evaluation-harness 9.9" in section.note and "the first 100 documents" in section.note
    assert "local data for arc_easy" in section.note
    assert "the first" not in sections(replace(asked, provenance={}))[0].note
    wide, narrow = shown(asked), shown(asked, 80)
    assert "0123456789abcdef" in wide and "0123456789abcdef" not in narrow
    assert "0.3000 ± 0.0500" in narrow and all(len(line) <= 80 for line in narrow.splitlines())


def test_tasks_are_in_csv_page_and_document(asked):
    rows = list(csv.DictReader(io.StringIO(eval_csv(asked))))
    assert [row["arc_easy_acc"] for row in rows] == ["0.5", "0.3"] and rows[0]["arc_easy_acc_stderr"] == "0.0503"
    assert rows[0]["<b>&[red]_acc"] == "" and rows[0]["lambada_openai_perplexity_stderr"] == ""
    page = eval_page(asked)
    assert "0.3000 ± 0.0500" in page and "&lt;b&gt;&amp;[red]" in page and "<b>&amp;" not in page
    assert EvalResult.from_dict(json.loads(asked.to_json())) == asked
