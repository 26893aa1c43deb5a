import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import rectilinear
import tiny
from disk import flip, held
from preempted import sigterm, terminated
from rectilinear.core.grams import Grams
from rectilinear.data.pieces import Share
from rectilinear.errors import ResultError
from rectilinear.ops import passes
from rectilinear.ops.conclude import concluded
from rectilinear.ops.kept import KeptMoments
from rectilinear.ops.layers import Gatherer
from rectilinear.ops.resume import Checkpoints
from rectilinear.ops.scan import ready
from rectilinear.ops.shards import Shards, scan_shard
from rectilinear.ops.state import load_state, save_state

OPTIONS = {"window": 32, "batch_tokens": 256, "submodules": True, "pairs": True, "tokens": "all"}
EXACT = 1e-10


def massive():
    """A model with sink tokens: w7 wherever it stands."""
    return tiny.massive(initializer_range=0.15)


TEXTS = tiny.documents(60)  # 2,400 tokens


@pytest.fixture(scope="module")
def model():
    return massive()


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    kept = tmp_path_factory.mktemp("whole") / "moments"
    return rectilinear.scan(model, tiny.tokenizer(), TEXTS, keep_moments=kept, **OPTIONS)


def shard(model, folder, number, of, maps=None, texts=TEXTS, **options):
    folder.mkdir()
    scan_shard(model, tiny.tokenizer(), texts, folder, number=number, of=of, maps=maps, **{**OPTIONS, **options})
    return folder


def merged(folders, out):
    out.mkdir()
    Shards.of(folders).save(out)
    return out


@pytest.fixture(scope="module")
def shards(model, tmp_path_factory):
    """The shards of a scan in three: fit parts, held-out parts."""
    place = tmp_path_factory.mktemp("shards")
    fit = [shard(model, place / f"fit-{n}", n, 3) for n in (1, 2, 3)]
    maps = merged(fit, place / "fit")
    heldout = [shard(model, place / f"heldout-{n}", n, 3, maps) for n in (1, 2, 3)]
    return fit, heldout


def differences(a, b, path=""):
    """Yield the place and the size of all differences of two documents; what is no number must agree."""
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            yield from differences(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), path
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from differences(x, y, f"{path}[{index}]")
    elif isinstance(a, float):
        yield path, abs(a - b) / max(abs(a), abs(b), 1e-300)
    else:
        assert a == b, (path, a, b)


def same(result, whole):
    """Whether two results agree to 1e-10: documents without what differs by run, and arrays."""
    for name, array in whole.arrays.items():
        assert np.allclose(
            result.arrays[name], array, rtol=EXACT, atol=EXACT * np.nanmax(np.abs(array)), equal_nan=True
        ), name
    a, b = ({k: v for k, v in one.to_dict().items() if k != "provenance"} for one in (result, whole))
    worst = max(differences(a, b), key=lambda found: found[1])
    assert worst[1] < EXACT, worst
    for name in ("tokens_fit", "tokens_heldout", "tokens_per_d", "documents", "windows", "fingerprint"):
        assert result.provenance[name] == whole.provenance[name]
    return True


def test_merged_shards_are_the_scan_in_any_order_and_grouping(shards, whole, tmp_path):
    fit, heldout = shards
    folders = [*fit, *heldout]
    random.Random(0).shuffle(folders)
    assert same(Shards.of(folders).result(), whole)
    one = merged([folders[4], folders[1]], tmp_path / "one")
    two = merged([folders[0], one, folders[5]], tmp_path / "two")
    grouped = Shards.of([folders[2], two, folders[3]])
    assert grouped.whole and grouped.lack() == ""
    assert same(grouped.result(), whole)


def test_a_share_alone_is_another_scan(shards, whole):
    """Were a shard's statistics not needed, the test above would show nothing."""
    counts = [json.loads((folder / "shard.json").read_text())["fit"] for folder in shards[0]]
    assert counts == [[1], [2], [3]]
    gatherer = Gatherer(3, sink_multiple=10.0, sample_per_batch=0, seed=0)
    load_state(shards[0][0] / "fit", gatherer)
    assert 0 < gatherer.layers[0].count < whole.provenance["tokens_fit"]


def test_merged_moments_are_kept_as_a_scan_keeps_them(shards, whole, tmp_path):
    fit, heldout = shards
    result = Shards.of([*heldout, *fit]).result(keep_moments=tmp_path / "moments")
    ours, theirs = (KeptMoments.load(one.save(tmp_path / name)) for one, name in ((result, "ours"), (whole, "theirs")))
    for layer in range(3):
        groups, expected = ours.groups(layer), theirs.groups(layer)
        assert groups.keys() == expected.keys() and len(groups) == 4
        for group, moments in groups.items():
            assert moments.n == expected[group].n
            assert torch.allclose(moments.sxx, expected[group].sxx, rtol=1e-8, atol=1e-8 * float(moments.sxx.max()))


def test_more_shards_than_batches(model, tmp_path):
    options = {"pairs": False, "submodules": False, "batch_tokens": 1024}
    whole = rectilinear.scan(model, tiny.tokenizer(), TEXTS, **{**OPTIONS, **options})
    fit = [shard(model, tmp_path / f"fit-{n}", n, 4, **options) for n in range(1, 5)]
    maps = merged(fit, tmp_path / "fit")
    heldout = [shard(model, tmp_path / f"heldout-{n}", n, 4, maps, **options) for n in range(1, 5)]
    assert same(Shards.of([maps, *heldout]).result(), whole)


class Stop(Exception):
    pass


@pytest.fixture(scope="module")
def halves(model, tmp_path_factory):
    """The second of two shares of each part, in batches small enough to be killed between, and the maps."""
    place = tmp_path_factory.mktemp("halves")
    fit = [shard(model, place / f"fit-{n}", n, 2, batch_tokens=64) for n in (1, 2)]
    maps = merged(fit, place / "fit")
    return fit[1], maps, shard(model, place / "heldout", 2, 2, maps, batch_tokens=64)


@pytest.mark.parametrize(("part", "batches"), [("fit", 2), ("fit", 6), ("heldout", 2), ("heldout", 4)])
def test_a_share_that_is_killed_goes_on_to_the_same_files(model, halves, part, batches, tmp_path):
    """A second share: what counts as a sink and the shifts are the first batch's, which is not its own."""
    fit, maps, heldout = halves
    whole, given = (fit, None) if part == "fit" else (heldout, maps)

    def scanned(name, on_progress):
        every = Checkpoints(tmp_path / "kept", 1, "tokens")
        taken = every.last()
        shard(model, tmp_path / name, 2, 2, given, batch_tokens=64, checkpoints=every, on_progress=on_progress)
        return taken

    seen = []

    def stop(state):
        seen.append(state)
        if len(seen) == batches:
            raise Stop

    with pytest.raises(Stop):
        scanned("killed", stop)
    assert scanned("again", seen.append) is not None
    files = {path.relative_to(whole) for path in whole.rglob("*") if path.is_file()} - {Path("shard.json")}
    assert len(files) > 5
    for file in files:
        assert (tmp_path / "again" / file).read_bytes() == (whole / file).read_bytes(), file


def test_a_sigterm_after_the_last_round_is_not_in_vain(model, tmp_path, monkeypatch):
    """Of a hundred shares the first alone has batches: no round of one each ends before the part does."""
    run, calls = passes.run_batch, []

    def preempted(*arguments):
        calls.append(1)
        if len(calls) == 2:
            sigterm()
        return run(*arguments)

    monkeypatch.setattr(passes, "run_batch", preempted)
    with terminated():
        shard(model, tmp_path / "one", 1, 100, batch_tokens=64, checkpoints=Checkpoints(tmp_path / "kept", 1e9))
    seen = len(calls)
    shard(model, tmp_path / "two", 1, 100, batch_tokens=64, checkpoints=Checkpoints(tmp_path / "kept", 1e9))
    assert len(calls) == seen


def test_the_state_of_another_share_is_refused(model, tmp_path):
    kept = tmp_path / "kept"
    shard(model, tmp_path / "one", 1, 3, checkpoints=Checkpoints(kept, 1, "tokens"))
    with pytest.raises(ResultError, match="which had share 1, not 2: remove that folder"):
        shard(model, tmp_path / "two", 2, 3, checkpoints=Checkpoints(kept, 1, "tokens"))
    with pytest.raises(ResultError, match="which had processes None, not 1, part fit, not None, share 1, not None"):
        rectilinear.scan(model, tiny.tokenizer(), TEXTS, checkpoints=Checkpoints(kept, 1, "tokens"), **OPTIONS)


def test_without_anything_held_out_the_fit_part_is_all(model, tmp_path):
    options = {"pairs": False, "holdout": 0.0}
    whole = rectilinear.scan(model, tiny.tokenizer(), TEXTS, **{**OPTIONS, **options})
    folders = [shard(model, tmp_path / f"fit-{n}", n, 2, **options) for n in (1, 2)]
    assert same(Shards.of(folders).result(), whole)
    with pytest.raises(rectilinear.TextError, match="holdout above 0"):
        shard(model, tmp_path / "none", 1, 2, maps=merged(folders, tmp_path / "fit"), **options)


def test_what_is_missing_doubled_or_foreign_is_named(model, shards, tmp_path):
    fit, heldout = shards
    some = Shards.of([fit[0], fit[2], heldout[1]])
    assert some.lack() == "2 of 3 of the fit part and 1, 3 of 3 of the held-out part"
    with pytest.raises(rectilinear.ResultError, match="none of 2 of 3 of the fit part and 1, 3 of 3"):
        some.result()
    part = merged([fit[0], fit[2]], tmp_path / "part")
    with pytest.raises(rectilinear.ResultError, match=r"share 1 of the fit part is in both .*part and .*fit-1"):
        Shards.of([part, fit[0]])
    with pytest.raises(rectilinear.ResultError, match=r"each shard once, got .*fit-1 twice"):
        Shards.of([fit[0], fit[1], fit[0]])
    with pytest.raises(rectilinear.ResultError, match="folders of shards to merge, got none"):
        Shards.of([])
    with pytest.raises(rectilinear.ResultError, match="none of its shares 2: merge them first"):
        shard(model, tmp_path / "early", 1, 3, maps=part)
    with pytest.raises(rectilinear.ResultError, match="another model in this scan"):
        shard(tiny.llama(), tmp_path / "foreign", 1, 3, maps=part)
    for name, said, texts, options in (
        ("text", "another text", tiny.documents(60, seed=1), {}),
        ("seed", r"another seed in .*seed \(3\) than in .*fit-1 \(0\)", TEXTS, {"seed": 3}),
        ("window", r"another window in .* \(16\)", TEXTS, {"window": 16}),
    ):
        other = shard(model, tmp_path / name, 2, 3, texts=texts, **options)
        with pytest.raises(rectilinear.ResultError, match=said):
            Shards.of([fit[0], other])
    with pytest.raises(rectilinear.TextError, match="a share from 1 to 3, got 4"):
        shard(model, tmp_path / "four", 4, 3)
    (tmp_path / "four" / "shard.json").write_text("{}")
    with pytest.raises(rectilinear.ResultError, match="cannot read"):
        Shards.of([tmp_path / "four"])
    with pytest.raises(rectilinear.ResultError, match=r"no shard\.json there"):
        Shards.of([tmp_path])


def test_one_flipped_bit_or_a_missing_file_is_found_in_every_file_of_a_shard(shards, tmp_path):
    copy = Path(shutil.copytree(shards[0][0], tmp_path / "copy"))
    names = [name for name in held(copy) if name != "SHA256SUMS"]
    assert {"shard.json", "fit/state.json", "fit/layer-001.safetensors", "tokenizer/tokenizer.json"} <= set(names)
    for name in names:
        before = flip(copy / name)
        with pytest.raises(rectilinear.ResultError, match=f"{name} is damaged|{name}: |state of a scan in .*copy/fit"):
            Shards.of([copy, shards[0][1]]).save(tmp_path / "out")
        (copy / name).unlink()
        with pytest.raises(
            rectilinear.ResultError, match=f"{name} is missing|{Path(name).name}|of a scan in .*copy/fit"
        ):
            Shards.of([copy, shards[0][1]]).save(tmp_path / "out")
        (copy / name).write_bytes(before)
    (tmp_path / "out").mkdir()
    Shards.of([copy, shards[0][1]]).save(tmp_path / "out")


def test_flipped_maps_judge_nothing(model, shards, tmp_path):
    maps = merged(shards[0], tmp_path / "maps")
    flip(maps / "fit" / "layer-000.safetensors")
    with pytest.raises(rectilinear.ResultError, match=r"layer-000\.safetensors is damaged, not as it was written"):
        shard(model, tmp_path / "heldout", 1, 3, maps=maps)


def test_shards_of_an_earlier_version_without_digests_are_read(shards, whole, tmp_path):
    old = []
    for folder in (*shards[0], *shards[1]):
        old.append(Path(shutil.copytree(folder, tmp_path / folder.name)))
        for file in old[-1].rglob("*.json"):
            document = json.loads(file.read_text())
            if file.name in ("shard.json", "state.json"):
                file.write_text(json.dumps({k: v for k, v in document.items() if k not in ("files", "sha256")}))
    assert same(Shards.of(old).result(), whole)


def test_a_damaged_state_is_one_clear_line(shards, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(shards[0][0], copy)
    (copy / "fit" / "layer-001.safetensors").write_bytes(b"no tensors")
    with pytest.raises(rectilinear.ResultError, match=r"layer-001\.safetensors is damaged"):
        Shards.of([copy, shards[0][1]]).save(tmp_path)
    (copy / "fit" / "state.json").unlink()
    with pytest.raises(rectilinear.ResultError, match=r"cannot read .*state\.json"):
        Shards.of([copy, shards[0][1]]).save(tmp_path)


def test_a_state_saved_midway_goes_on_to_the_same_result(model, whole, tmp_path):
    def begin():
        work = ready(model, tiny.tokenizer(), TEXTS, **OPTIONS)
        return work, work.passed(Share(), None)

    first, way = begin()
    with way.watching():
        way.fit()
        way.start_heldout()
    save_state(tmp_path / "state", first.gatherer, first.parts, facts={"batch": 3})
    second, way = begin()
    assert load_state(tmp_path / "state", second.gatherer, second.parts)["batch"] == 3
    with way.watching():
        way.judge()
    assert same(concluded(second.gatherer, second.parts, tiny.tokenizer(), second.facts, second.notes), whole)


def test_grams_merge_about_any_shifts():
    rows = torch.randn(3, 50, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 5
    every, a, b = (Grams(3, 8, width=2) for _ in range(3))
    every.update(list(rows))
    a.update(list(rows[:, :20]))
    b.update(list(rows[:, 20:] * 1))
    assert not torch.equal(a.shift, b.shift)
    a.merge_(b)
    for start, stop in ((0, 1), (0, 2), (1, 2)):
        one, two = a.moments(start, stop), every.moments(start, stop)
        assert (
            one.n == two.n
            and torch.allclose(one.sxx, two.sxx, atol=1e-4)
            and torch.allclose(one.sxz, two.sxz, atol=1e-4)
        )
