import pytest

from rectilinear.core.spans import Span, in_words, parse_layers, spans_of
from rectilinear.errors import RectilinearError


def test_neighbours_make_a_span():
    spans = spans_of([20, 12, 14, 13, 12])
    assert spans == (Span(12, 15), Span(20, 21))


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([], "no layers"),
        ([3], "layer 3, one layer"),
        (range(12, 18), "layers 12 to 17, six layers"),
        ([3, 12, 13, 20], "layer 3, layers 12 to 13 and layer 20, four layers"),
        (range(13), "layers 0 to 12, 13 layers"),
    ],
)
def test_spans_in_words(layers, words):
    assert in_words(layers) == words


def test_both_ends_of_a_range_count():
    assert parse_layers("12-14, 20", 30) == (12, 13, 14, 20)
    assert parse_layers("", 30) == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x", "like 12-17,20"),
        ("5-3", "low to high"),
        ("30", "from 0 to 29"),
        ("1,0-2", "1 more than once"),
        ("-1", "-1"),
    ],
)
def test_other_text_is_refused(text, said):
    with pytest.raises(RectilinearError, match=said):
        parse_layers(text, 30)
