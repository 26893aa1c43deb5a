"""Model folders that are nearly right: a model, a tokenizer, or one line, and never another exception.

`make fuzz` tries as many as FUZZ_EXAMPLES says, drawn anew each time.
"""

import json
import shutil
import struct

import pytest
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from readers import NESTED
from rectilinear.core.linear import AffineMap
from rectilinear.errors import RectilinearError
from rectilinear.models.folders import INDEX
from rectilinear.models.load import check_found, load, load_tokenizer, skeleton
from rectilinear.models.save import save_model
from rectilinear.models.surgery import cut_
from test_fuzz import EXAMPLES, FUZZ, edited, in_json

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # peft tells of the names that it passes over
FUZZ = settings(FUZZ, max_examples=EXAMPLES or 25)  # a model takes longer to read than a document


def adapted(folder):
    """Put an adapter beside the model of a folder."""
    peft = pytest.importorskip("peft")
    model = hf.AutoModelForCausalLM.from_pretrained(folder)
    peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"])).save_pretrained(folder)


def indexed(folder):
    """Let an index name the file of the weights."""
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": {"lm_head.weight": "a.safetensors"}}))


def blocked(folder):
    """Put a linear block into the model of a folder."""
    model = tiny.llama()
    cut_(model, None, [], {1: AffineMap(model.lm_head.weight[:32].detach(), model.lm_head.weight[0].detach())})
    save_model(model, None, folder)


NAMES = {  # what is to be done to a folder first, and what reads it then
    "config.json": (None, (load, skeleton, check_found)),
    "generation_config.json": (None, (load,)),
    "adapter_config.json": (adapted, (load,)),
    "tokenizer_config.json": (None, (load_tokenizer,)),
    "tokenizer.json": (None, (load_tokenizer,)),
    INDEX: (indexed, (load, check_found)),
    "blocks": (blocked, (load, skeleton)),
}


@pytest.fixture(scope="module")
def folders(folder, tmp_path_factory):
    """A folder for each name that is bent, and what the file holds while it is whole."""
    made = {}
    for name, (change, _) in NAMES.items():
        place = tmp_path_factory.mktemp("folders") / "model"
        shutil.copytree(folder, place)
        if change is not None:
            change(place)
        file = place / ("config.json" if name == "blocks" else name)
        made[name] = file, file.read_bytes()
    return made


def documents(whole):
    """Files that are nearly a JSON document."""
    data = json.dumps(whole).encode()
    return in_json(data) | edited(data) | st.sampled_from(NESTED)


def reads(read, place):
    """Let a reader read a folder: it gives something, or one line."""
    try:
        read(str(place), **({} if read in (load_tokenizer, check_found) else {"device": "cpu"}))
    except RectilinearError as error:
        assert str(error).isprintable() and str(error).strip()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_whole_is_read(name, folders):
    for read in NAMES[name][1]:
        read(str(folders[name][0].parent), **({"device": "cpu"} if read in (load, skeleton) else {}))


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@FUZZ
def test_documents(name, data, folders):
    file, whole = folders[name]
    file.write_bytes(data.draw(documents(json.loads(whole))))
    read = data.draw(st.sampled_from(NAMES[name][1]))
    try:
        reads(read, file.parent)
    finally:
        file.write_bytes(whole)


@given(data=st.data())
@FUZZ
def test_heads_of_weights(data, folders):
    file = folders["config.json"][0].with_name("model.safetensors")
    whole = file.read_bytes()
    size = struct.unpack("<Q", whole[:8])[0]
    head = data.draw(documents(json.loads(whole[8 : 8 + size])) | edited(whole[8 : 8 + size]))
    file.write_bytes(
        struct.pack("<Q", data.draw(st.just(len(head)) | st.integers(0, 2**64 - 1))) + head + whole[8 + size :]
    )
    try:
        reads(data.draw(st.sampled_from([load, check_found])), file.parent)
    finally:
        file.write_bytes(whole)
