import csv
import json
import re
import sys

import pytest
from typer.testing import CliRunner

import commands
import taskdata
import tiny
from rectilinear.cli.main import app
from rectilinear.ops import evaluate
from rectilinear.ops.prune import prune
from rectilinear.results import EvalResult


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "docs.jsonl"
    path.write_text("\n".join(json.dumps({"text": t + " "}) for t in tiny.documents(10)))
    return path


@pytest.fixture(scope="module")
def lambada(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "lambada.jsonl"
    path.write_text("\n".join(json.dumps({"context": t, "continuation": "w5"}) for t in tiny.documents(9)))
    return path


@pytest.fixture(scope="module")
def shallow(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "shallow"
    tiny.llama(num_hidden_layers=2).save_pretrained(path)
    tiny.tokenizer().save_pretrained(path)
    return path


def run(*arguments, **options):
    done = CliRunner().invoke(app, ["eval", *map(str, arguments)], **options)
    assert done.exit_code == 0, (done.output, done.exception)
    return done


def fails(arguments, capsys, monkeypatch):
    said = commands.fails(["eval", *arguments], capsys, monkeypatch)
    assert len(said.strip().splitlines()) == 1
    return said


def test_models_side_by_side(folder, shallow, text):
    said = run(folder, shallow, "--text", text, "--window", "32", env={"COLUMNS": "160"}).stdout
    assert "perplexity" in said and "95 % paired" in said and "bits/byte" in said
    assert "all documents joined as one text, no start token; 12 windows of 32 tokens" in said
    narrow = run(folder, shallow, "--text", text, "--window", "32", env={"COLUMNS": "78"}).stdout
    assert "95 %" not in narrow and max(map(len, narrow.splitlines())) <= 78


def test_json_is_one_document_that_reads_back(folder, shallow, text, lambada, monkeypatch):
    monkeypatch.setattr(evaluate, "PROMPT", 8)
    done = run(
        *(shallow, "--reference", folder, "--text", text, "--window", 32, "--stride", 16, "--speed", "--json"),
        *("--lambada", lambada, "--lambada-limit", 4, "--seed", 3, "--batch-tokens", 64),
    )
    document = json.loads(done.stdout)
    assert (document["schema"], document["kind"]) == (1, "eval")
    assert document["provenance"]["command"].startswith("rectilinear")
    assert document["provenance"]["text"] == "docs.jsonl"
    assert (document["provenance"]["seed"], document["provenance"]["batch_tokens"]) == (3, 64)
    (model,) = document["models"]
    assert document["reference"]["name"] == str(folder) and model["name"] == str(shallow)
    assert model["text"]["protocol"]["stride"] == 16
    assert model["divergence"]["kl"] > 0 and model["lambada"]["passages"] == 4 and model["speed"]["prefill"] > 0
    assert model["size"]["layers"] == 2
    assert EvalResult.from_dict(document).to_dict() == document


def test_the_folder_has_document_table_and_page(folder, shallow, text, tmp_path):
    out = tmp_path / "judged"
    arguments = (folder, shallow, "--text", text, "--window", "32", "--protocol", "documents", "--out", out)
    run(*arguments)
    assert {p.name for p in out.iterdir()} == {"eval.json", "eval.csv", "eval.html", "SHA256SUMS"}
    with (out / "eval.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [str(folder), str(shallow)]
    assert float(rows[1]["text_ratio"]) > 0 and rows[0]["protocol_name"] == "documents"
    assert CliRunner().invoke(app, ["eval", *map(str, arguments)]).exit_code != 0
    run(*arguments, "--force")


def test_a_reference_that_is_also_a_model_is_loaded_once(folder, shallow, text):
    done = run(folder, shallow, "--reference", folder, "--text", text, "--window", "32", "--json")
    assert [model["name"] for model in json.loads(done.stdout)["models"]] == [str(shallow)]


def test_standard_input_serves_several_models(folder, shallow):
    done = run(folder, shallow, "--text", "-", "--window", "32", "--json", input=" ".join(tiny.documents()))
    first, second = json.loads(done.stdout)["models"]
    assert first["text"]["protocol"] == second["text"]["protocol"]


def test_without_a_text_only_what_is_asked_for_is_measured(folder, lambada):
    (model,) = json.loads(run(folder, "--lambada", lambada, "--json").stdout)["models"]
    assert model["text"] is None and model["lambada"]["passages"] == 9
    said = run(folder, "--lambada", lambada).stdout
    assert "LAMBADA" in said and "Text" not in said and "Size" in said


def test_the_demo_text_is_read_in_part(folder):
    (model,) = json.loads(run(folder, "--window", 64, "--json").stdout)["models"]
    assert model["text"]["protocol"]["tokens_read"] == 16_384


def test_dry_run_prints_the_plan_and_loads_nothing(text):
    said = run("a", "b", "--reference", "a", "--text", text, "--tokens", "5_000", "--speed", "--dry-run").stdout
    assert re.search(r"models +b\n", said) and re.search(r"reference +a\n", said)
    assert "docs.jsonl, 5000 tokens, joined, window 2048, or the model's limit, stride the window" in said
    assert re.search(r"LAMBADA +none", said) and "all models at once" in said and re.search(r"writes +nothing", said)
    alone = run("a", "--lambada", "x.jsonl", "--lambada-limit", 7, "--out", "judged", "--dry-run").stdout
    assert "x.jsonl, 7 passages" in alone and "one model at a time" in alone and re.search(r"writes +judged", alone)
    assert re.search(r"text +none", alone)


def test_help_teaches_by_examples():
    said = run("--help").stdout
    assert "rectilinear eval dense pruned healed" in said


def test_dtype_and_device_reach_the_loader(folder, text):
    arguments = (folder, "--text", text, "--window", 32, "--dtype", "bfloat16", "--device", "cpu", "--json")
    (model,) = json.loads(run(*arguments).stdout)["models"]
    assert (model["facts"]["dtype"], model["facts"]["device"]) == ("bfloat16", "cpu")
    assert model["size"]["bytes"] == 2 * model["size"]["parameters"]


def test_trust_remote_code_is_handed_on(folder, text, monkeypatch):
    from rectilinear.models import load

    asked = []
    found = load._config
    monkeypatch.setattr(load, "_config", lambda *args: asked.append(args[2]["trust_remote_code"]) or found(*args))
    run(folder, "--text", text, "--window", 32, "--json", "--trust-remote-code")
    assert asked == [True, True]


def test_wrong_input_is_one_line_and_exit_code_2(folder, text, tmp_path, capsys, monkeypatch):
    import transformers as hf

    empty, encoder = tmp_path / "empty.txt", tmp_path / "bert"
    empty.write_text("")
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    hf.BertForMaskedLM(hf.BertConfig(vocab_size=tiny.VOCAB, **shape)).save_pretrained(encoder)
    tiny.tokenizer().save_pretrained(encoder)
    larger = tmp_path / "larger"
    tiny.llama(vocab_size=tiny.VOCAB + 8).save_pretrained(larger)
    tiny.tokenizer().save_pretrained(larger)
    capsys.readouterr()
    cases = [
        ([folder, "./nowhere", "--text", text], "no such model folder"),
        ([folder, "--reference", "no/such-model", "--text", text], "cannot find the model 'no/such-model'"),
        ([folder, "--text", tmp_path / "gone.txt"], "got neither"),
        ([folder, "--text", empty], "empty"),
        ([folder, "--text", text, "--window", "900"], "got a text of 400.*--window 400"),
        ([folder, "--text", text, "--stride", "0", "--window", "32"], "stride between 1 and"),
        ([folder, "--tokens", "many"], "--tokens"),
        ([folder, "--lambada", empty], "jsonl or parquet"),
        ([encoder, "--text", text, "--window", "32"], "as encoders do"),
        ([folder, "--reference", larger, "--text", text, "--window", "32"], "vocabulary of the reference"),
        ([folder, "--text", text, "--out", tmp_path / "bert"], "--force"),
        ([folder, "--text", text, "--out", tmp_path / "bert", "--force"], "not replaced"),
    ]
    for arguments, expected in cases:
        said = fails(arguments, capsys, monkeypatch)
        assert re.search(expected, said), (arguments, said)


def test_a_window_beyond_the_model_is_cut_with_a_note(tmp_path, text):
    short = tmp_path / "short"
    tiny.llama(max_position_embeddings=16).save_pretrained(short)
    tiny.tokenizer().save_pretrained(short)
    said = run(short, "--text", text, "--window", "64").stdout
    assert "! The window is cut from 64 to 16 tokens" in " ".join(said.split())


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Local data for tasks; what the data sets' library makes of them is not kept."""
    import datasets

    monkeypatch.setenv("RECTILINEAR_DATA", str(taskdata.write(tmp_path / "data")))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def speaking(tmp_path_factory):
    """A saved model whose tokenizer has an end token, and the same with a linear block for its second layer."""
    path = tmp_path_factory.mktemp("models")
    tokenizer = tiny.tokenizer()
    tokenizer.eos_token = "<unk>"
    dense = tiny.llama(initializer_range=0.15)
    dense.save_pretrained(path / "dense")
    tokenizer.save_pretrained(path / "dense")
    cut = prune(dense, tokenizer, texts=tiny.documents(60), layers=[1], repair="linear", tokens=None, window=32)
    cut.save(path / "cut")
    return path / "dense", path / "cut"


def test_tasks_side_by_side_and_what_is_left_out(speaking, data, tmp_path):
    asked = ("--tasks", " arc_easy, cb,piqa", "--tasks-limit", 3, "--batch-tokens", 64)
    done = run(*speaking, *asked, "--out", tmp_path / "out", "--json")
    document = json.loads(done.stdout)  # of the harness not a word
    assert document["provenance"]["tasks"] == "arc_easy, cb" and document["provenance"]["tasks_limit"] == 3
    for model in document["models"]:
        assert model["text"] is None
        assert {(task["task"], task["n"], task["data"]) for task in model["tasks"]} == {
            ("arc_easy", 3, "local"),
            ("cb", 3, "local"),
        }
    dense, cut = (model["tasks"] for model in document["models"])
    assert [task["fingerprint"] for task in dense] == [task["fingerprint"] for task in cut]
    assert re.search("The task piqa was left out: .*Hub", document["warnings"][0])
    with (tmp_path / "out" / "eval.csv").open() as file:
        assert [float(row["cb_f1"]) for row in csv.DictReader(file)] == [
            next(task["value"] for task in tasks if task["metric"] == "f1") for tasks in (dense, cut)
        ]


def test_tasks_go_with_all_else(speaking, data, text, lambada, monkeypatch):
    monkeypatch.setattr(evaluate, "PROMPT", 8)
    dense, cut = speaking
    said = run(
        *(cut, "--reference", dense, "--text", text, "--window", 32, "--lambada", lambada, "--speed"),
        *("--tasks", "copa"),
        env={"COLUMNS": "200"},
    ).stdout
    for title in ("perplexity", "LAMBADA", "Tasks", "zero-shot", "copa", "local data for copa", "Speed and size"):
        assert title in said
    assert "piqa" not in said and "the first" not in said


def test_a_dry_run_foresees_tasks(data):
    said = run("a", "--tasks", "arc_easy,piqa", "--tasks-limit", "2", "--dry-run").stdout
    assert re.search(r"task +arc_easy: local data, 2 documents, about 7 requests\n", said)
    assert re.search(r"task +piqa: from the Hub\n", said) and re.search(r"text +none", said)


def test_bad_tasks_are_one_line_before_any_model_is_loaded(data, capsys, monkeypatch):
    for arguments, expected in (
        (["./nowhere", "--tasks", ","], "expected names of tasks"),
        (["./nowhere", "--tasks", "arc_eazy"], "Did you mean 'arc_easy'"),
        (["./nowhere", "--tasks", "piqa"], "no task can be run. The task piqa was left out"),
    ):
        assert expected in fails(arguments, capsys, monkeypatch)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    assert "pip install 'rectilinear[tasks]'" in fails(["./nowhere", "--tasks", "cb"], capsys, monkeypatch)
