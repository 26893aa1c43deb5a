import math
from dataclasses import replace

import pytest

import rectilinear
from pages import Seen
from rectilinear.app import views
from rectilinear.ops.whatif import Reading
from rectilinear.results import Guess, TokenResult, TokensResult

HOSTILE = (
    "<script>alert(1)</script>",
    "\"'&",
    "\u202eevil",
    "😀",
    "\ud800",
    "{{value}}",
    "${alert(2)}",
    "a\nb",
    "w" * 10_000,
)


def result_of(texts=HOSTILE, layers=3):
    tokens = []
    for at, text in enumerate(texts):
        errors = (None, *((at + layer) / 4 for layer in range(1, layers)))
        norms = tuple(2.0 for _ in range(layers))
        lens = (*(Guess(text, 0.5) for _ in range(layers)), Guess(text, 0.9))
        sink = tuple(at == 0 for _ in range(layers))
        tokens.append(TokenResult(at, 7, text, errors, norms, norms, norms, norms, sink, lens, lens, 1, 0.5))
    return TokensResult({"model": "<b>m</b>"}, tuple(tokens), ("Careful <img src=x>",))


@pytest.fixture
def scan(scans):
    """The tiny model's scan, its worst tokens of hostile text."""
    found = rectilinear.load_result(scans / "kept")
    triggers = tuple({"token": text, "relative_error": 1.5, "sink": True, "before": text} for text in HOSTILE)
    return replace(found, layers=tuple(replace(layer, triggers=triggers) for layer in found.layers))


def every_view(result, scan):
    dense = Reading(HOSTILE, (1.0,) * (len(HOSTILE) - 1), HOSTILE[0] + "\n" + HOSTILE[2])
    return (
        views.prompt_view(result),
        views.token_view(result, 1, 2),
        views.layer_view(result, 1, 0.5, scan),
        views.reading_view(HOSTILE[0], dense),
        views.reading_view(HOSTILE[0], dense, dense),
        views.notice(HOSTILE[0]),
    )


def test_text_from_data_is_escaped_everywhere(scan):
    for view in every_view(result_of(), scan):
        seen = Seen(view)
        assert not {"script", "img"} & set(seen.tags) and not seen.links
        assert not {"\u202e", "\ud800"} & set(view)
        assert "<script" not in view


def test_long_tokens_are_cut_in_tables(scan):
    _, token, layer, *_ = every_view(result_of(), scan)
    assert len(token) < 10_000 and len(layer) < 10_000


def test_the_heat_map_has_its_errors_at_hand_for_the_script():
    view = views.prompt_view(result_of())
    assert 'data-error="0.250"' in view and view.count("data-error") == 3 * len(HOSTILE)
    assert 'data-error="–"' in view  # a layer that adds nothing


def test_a_layer_shows_the_tokens_above_the_threshold_and_the_scans_worst(scan):
    result = result_of(("a", "b", "c", "d"))
    view = views.layer_view(result, 1, 0.75, scan)
    assert "2 of 4 tokens" in view  # errors 0.25, 0.5, 0.75, 1
    assert view.index("&#39;d&#39;") < view.index("&#39;c&#39;")  # the worst first
    squares = [0.25**2, 0.5**2, 0.75**2, 1]
    assert f"{100 * sum(squares[2:]) / sum(squares):.1f} % of its squared error" in view
    assert "worst tokens in the text of the scan" in view
    assert "worst tokens" not in views.layer_view(result, 1, 0.75, None)
    assert "lower the threshold" in views.layer_view(result, 1, 9.0, None)
    assert "0 of 4 tokens" in views.layer_view(result, 0, 0.0, None)  # it adds nothing to any


def test_a_reading_tells_perplexity_and_ratio():
    dense = Reading(("a", "b", "c"), (1.0, 2.0), " d\ne")
    worse = replace(dense, nats=(2.0, 4.0))
    view = views.reading_view("Changed", worse, dense)
    assert f"{math.exp(3):.2f}" in view and f"× {math.exp(1.5):.2f}" in view
    assert "4.00 nats, +2.00" in view and "--v: 50%" in view and " d\ne" in view
    assert "2.00 nats" in views.reading_view("Dense", dense) and "×" not in views.reading_view("Dense", dense)
    alone = replace(dense, tokens=("a",), nats=())
    assert "–" in views.reading_view("Dense", alone) and "×" not in views.reading_view("Changed", alone, alone)
    lost = replace(dense, nats=(5000.0, 5000.0))
    assert "∞" in views.reading_view("Changed", lost, dense)


@pytest.mark.parametrize(("value", "said"), [(None, "–"), (7.3311, "7.33"), (123456.0, "1.23e+05"), (math.inf, "∞")])
def test_large_numbers_stay_short(value, said):
    assert views._large(value) == said
