import socket

import pytest

from commands import fails


def test_wrong_wishes_are_one_line_and_exit_code_2(folder, tmp_path, capsys, monkeypatch):
    for asked in (["--share"], ["--publicly"]):
        said = fails(["explore", folder, *asked], capsys, monkeypatch)
        assert "--share and --publicly together" in said and len(said.strip().splitlines()) == 1
    monkeypatch.setattr("rectilinear.cli.explore.find_spec", lambda name: None)
    assert "pip install 'rectilinear[app]'" in fails(["explore", folder], capsys, monkeypatch)
    monkeypatch.undo()
    pytest.importorskip("gradio", reason="no gradio here: pip install 'rectilinear[app]'")
    assert "expected a folder of scans" in fails(["explore", folder, "--scans", tmp_path / "gone"], capsys, monkeypatch)
    assert "no such model" in fails(["explore", "./gone", "--scans", tmp_path], capsys, monkeypatch)


def test_a_port_in_use_is_one_line_and_exit_code_2(folder, tmp_path, capsys, monkeypatch):
    pytest.importorskip("gradio", reason="no gradio here: pip install 'rectilinear[app]'")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = fails(["explore", folder, "--scans", tmp_path, "--port", port], capsys, monkeypatch)
    assert f"cannot serve on port {port}: it is in use" in said
    assert len(said.strip().splitlines()) == 1


def test_it_serves_until_it_is_told_to_end(folder, tmp_path, capsys, monkeypatch):
    pytest.importorskip("gradio", reason="no gradio here: pip install 'rectilinear[app]'")
    import sys
    import threading
    from urllib.request import urlopen

    from rectilinear.cli.main import main

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    pages = []

    def told(self):
        pages.append(urlopen(f"http://127.0.0.1:{port}/", timeout=60).read())
        raise KeyboardInterrupt

    arguments = ["explore", folder, "--scans", tmp_path, "--port", port]
    monkeypatch.setattr(sys, "argv", ["rectilinear", *map(str, arguments)])
    monkeypatch.setattr("rectilinear.cli.explore.threading", type("T", (), {"Event": type("E", (), {"wait": told})}))
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code and b"rectilinear" in pages[0]
    assert f"http://127.0.0.1:{port}/" in capsys.readouterr().err
    assert threading.active_count()  # the module itself is as it was
    with pytest.raises(OSError):
        urlopen(f"http://127.0.0.1:{port}/", timeout=5)
