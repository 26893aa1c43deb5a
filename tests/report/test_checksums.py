import shutil
import subprocess

import pytest

from rectilinear.digests import SUMS
from rectilinear.errors import ResultError
from rectilinear.report.checksums import verify
from rectilinear.report.folder import write_folder


@pytest.fixture
def out(tmp_path):
    def fill(folder):
        (folder / "deep").mkdir()
        (folder / "result.json").write_text("{}")
        (folder / "deep" / "a b\n\udcff.safetensors".replace("\n", " ")).write_bytes(bytes(1000))
        (folder / "report.html").write_text("<p>")

    return write_folder(tmp_path / "out", fill, force=False, marker="result.json")


def test_a_folder_as_it_was_written(out):
    assert verify(out) == (2, [])
    (out / "report.html").write_text("drawn again")
    assert verify(out) == (2, [])


def test_the_usual_tool_reads_the_sums(out):
    if shutil.which("sha256sum") is None:
        pytest.skip("no sha256sum here")
    assert not subprocess.run(["sha256sum", "--check", "--quiet", SUMS], cwd=out, check=False).returncode


def test_one_flipped_bit_a_cut_file_and_a_missing_one_are_named(out):
    arrays = next((out / "deep").iterdir())
    arrays.write_bytes(bytes(999) + b"\x01")
    assert verify(out)[1] == [f"deep/{arrays.name}: is not as it was written"]
    arrays.write_bytes(bytes(999))
    assert verify(out)[0] == 1
    arrays.unlink()
    assert verify(out) == (1, [f"deep/{arrays.name}: is missing"])


def test_a_file_that_came_later_is_named(out):
    (out / "other.json").write_text("{}")
    assert verify(out) == (2, ["other.json: is not among those written"])


def test_sums_that_name_a_file_outside_read_nothing_there(out):
    (out.parent / "secret.json").write_text("{}")
    (out / SUMS).write_text(f"{'0' * 64}  ../secret.json\n")
    assert "../secret.json: lies outside the folder" in verify(out)[1]


@pytest.mark.parametrize("text", ["", "x", f"{'0' * 64} a.json", f"{'0' * 64}  a.json\n\n"])
def test_damaged_sums_are_refused(out, text):
    (out / SUMS).write_text(text)
    with pytest.raises(ResultError, match="damaged"):
        verify(out)


def test_a_folder_without_sums(tmp_path):
    with pytest.raises(ResultError, match="earlier version"):
        verify(tmp_path)
    with pytest.raises(ResultError, match="expected a folder"):
        verify(tmp_path / "none")
