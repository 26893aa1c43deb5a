"""The explorer under load: 50 users at once, 1,000 requests, one JSON line a tenth of them (or a request a user).

    python benchmarks/load.py [--users 50] [--requests 1000] [--model demo:tiny]

Each user looks at prompts of its own, one after the other, over the page's own two addresses. errors: answers that are
none; MiB: resident memory of the server; slowest: seconds of one answer. Exit code 1 after an error, and where memory
grows by more than 5 % after the first answers.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

import rectilinear
from rectilinear.data.text import read_text
from rectilinear.models.siblings import default_text

WORDS = "One day a little girl named Lily went to the park with her dog and saw a big red ball".split()


USER = threading.local()
GROWTH = 1.05  # of the server's memory, after the first answers


def session_of_user() -> str:
    """Return the name of the session of the thread's user."""
    if not hasattr(USER, "session"):
        USER.session = uuid.uuid4().hex
    return str(USER.session)


def asked(client: httpx.Client, index: int, inputs: list[Any]) -> float:
    """Ask the page's handler `index`; return the seconds, raise where there is no answer."""
    start, session = time.perf_counter(), session_of_user()
    event = {"data": inputs, "fn_index": index, "session_hash": session, "event_data": None, "trigger_id": None}
    client.post("/gradio_api/queue/join", json=event).raise_for_status()
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as stream:
        for line in stream.iter_lines():
            message = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
            if message.get("msg") == "process_completed":
                shown = json.dumps(message["output"].get("data"))
                if not message["success"] or "heat" not in shown:
                    raise RuntimeError(shown[:200])
                return time.perf_counter() - start
    raise RuntimeError("the stream ended without an answer")


def handler(client: httpx.Client) -> tuple[int, str]:
    """Return the number of the handler behind the button, and the name of the first maps."""
    config = client.get("/config").raise_for_status().json()
    parts = {part["props"].get("elem_id"): part for part in config["components"]}
    button = parts["look"]["id"]
    found = next(one for one in config["dependencies"] if [button, "click"] in [list(t) for t in one["targets"]])
    return found["id"], parts["maps"]["props"]["value"]


def resident(pid: int) -> int:
    """Return the MiB that a process holds."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) // 1024


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def main() -> None:
    """Start the explorer on a scan with maps, and ask."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--model", default="demo:tiny")
    parser.add_argument("--port", type=int, help="by default one that is free")
    options = parser.parse_args()
    options.port = options.port or free_port()
    with tempfile.TemporaryDirectory() as folder:
        scans = Path(folder)
        model, tokenizer = rectilinear.load(options.model)
        documents = read_text(default_text(options.model)).documents()
        rectilinear.scan(model, tokenizer, documents, keep_moments=scans / "kept").save(scans / "scan")
        command = [sys.executable, "-m", "rectilinear", "explore", options.model, "--scans", folder]
        with subprocess.Popen(
            [*command, "--port", str(options.port)], stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
        ) as server:
            try:
                assert server.stderr is not None
                print(json.dumps({"server": server.stderr.readline().strip()}), flush=True)
                run(options, server.pid)
            finally:
                server.terminate()


def run(options: argparse.Namespace, pid: int) -> None:
    """Ask everything, and tell how it goes."""
    limits = httpx.Limits(max_connections=4 * options.users)
    with httpx.Client(base_url=f"http://127.0.0.1:{options.port}", timeout=600, limits=limits) as client:
        index, maps = handler(client)

        def one(number: int) -> float | str:
            prompt = " ".join(WORDS[: 5 + number % 12]) + f" {number}"
            try:
                return asked(client, index, [options.model, maps, prompt, 3, 0.5])
            except (httpx.HTTPError, RuntimeError, KeyError) as error:
                return f"{type(error).__name__}: {error}"

        part, errors, sizes = max(options.requests // 10, options.users), 0, []
        with ThreadPoolExecutor(options.users) as users:
            for done in range(0, options.requests, part):
                start = time.perf_counter()
                found = list(users.map(one, range(done, done + part)))
                wrong = [each for each in found if isinstance(each, str)]
                errors += len(wrong)
                sizes.append(resident(pid))
                print(
                    json.dumps(
                        {
                            "requests": done + part,
                            "errors": len(wrong),
                            "a_second": round(part / (time.perf_counter() - start), 1),
                            "slowest": round(max((each for each in found if isinstance(each, float)), default=0.0), 2),
                            "MiB": sizes[-1],
                            **({"first error": wrong[0]} if wrong else {}),
                        }
                    ),
                    flush=True,
                )
    warm = sizes[len(sizes) // 5]
    if errors or sizes[-1] > GROWTH * warm:
        sys.exit(f"{errors} errors, and {sizes[-1] - warm} MiB more than after the first answers")


if __name__ == "__main__":
    main()
