import pytest
import transformers as hf

import rectilinear
import tiny

HOSTILE = (
    "<script>a(1)</script>",
    "<img/src=x/onerror=a(2)>",
    "{{value}}",
    "${a(3)}",
    "\u202eevil",
    "\"'&",
)


@pytest.fixture(scope="session")
def hostile(tmp_path_factory):
    """A tiny model in a folder, some of whose words are hostile."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["<unk>", *HOSTILE, *(f"w{i}" for i in range(len(HOSTILE) + 1, tiny.VOCAB))]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    path = tmp_path_factory.mktemp("hostile") / "model"
    tiny.llama(initializer_range=0.2).save_pretrained(path)
    hf.PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", pad_token="<unk>").save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def scans(tmp_path_factory, folder, hostile):
    """A folder of scans of the tiny model: with moments, without, of the hostile model, and a tokens folder."""
    place = tmp_path_factory.mktemp("scans")
    model, tokenizer = rectilinear.load(str(folder))
    loaded = {"kept": (model, tokenizer), "plain": (model, tokenizer), "other": rectilinear.load(str(hostile))}
    texts = [text + " " + " ".join(HOSTILE) for text in tiny.documents()]
    for name, (scanned, words) in loaded.items():
        moments = None if name == "plain" else tmp_path_factory.mktemp("moments")
        rectilinear.scan(scanned, words, texts, window=32, keep_moments=moments).save(place / name)
    maps = rectilinear.fit_maps(model, tokenizer, tiny.documents(), tokens=None, window=32)
    rectilinear.tokens(model, tokenizer, "w1 w2", maps=maps).save(place / "tokens", maps.save)
    (place / "notes.txt").write_text("not a folder")
    (place / "empty").mkdir()
    return place
