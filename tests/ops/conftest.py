import pytest

import tiny
from rectilinear.ops.prune import prune


@pytest.fixture(scope="module")
def dense():
    # With the usual small weights of a fresh model its layers would hardly matter.
    return tiny.llama(num_hidden_layers=5, initializer_range=0.15)


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.tokenizer()


@pytest.fixture(scope="module")
def texts():
    return [text + " " for text in tiny.documents(60)]


@pytest.fixture(scope="module")
def cuts(dense, tokenizer, texts):
    """Cut models by their repair: layers 1 and 3 of five gone."""
    return {
        repair: prune(dense, tokenizer, texts=texts, layers=[1, 3], repair=repair, tokens=None, window=32)
        for repair in ("none", "refit", "linear", "scalar")
    }
