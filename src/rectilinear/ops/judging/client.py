"""The judge at the other end of the line: any endpoint that speaks the chat completions of OpenAI."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from rectilinear.errors import RectilinearError, first_line

RETRIES = 5  # of a request that failed on the way, with a growing pause: the client library's
LOOPBACK = ("localhost", "127.0.0.1", "::1")
KEYLESS = "none"  # what a server that asks for no key is sent


class JudgeError(RectilinearError):
    """The judge cannot be reached or does not want us."""


@dataclass(frozen=True)
class Answer:
    """What came back: the text, and the tokens it was charged as."""

    text: str | None
    tokens_in: int
    tokens_out: int


class Pace:
    """Lets so many requests a minute through, evenly, from any number of threads; None: all."""

    def __init__(self, per_minute: float | None) -> None:
        self._gap = 60 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Return when it is this request's turn."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._gap
        time.sleep(turn - now)


class Client:
    """Asks judges at `base_url` (None: the library's default) with `key`, which appears in no message."""

    def __init__(
        self, base_url: str | None, key: str | None, *, per_minute: float | None = None, timeout: float = 60.0
    ) -> None:
        openai = _library()
        if not key and not (base_url and urlsplit(base_url).hostname in LOOPBACK):
            raise JudgeError("expected a key for the judge in the environment, got none: set the variable --key-env")
        self._key = key or KEYLESS
        self._pace = Pace(per_minute)
        self._client = openai.OpenAI(api_key=self._key, base_url=base_url, timeout=timeout, max_retries=RETRIES)

    @property
    def host(self) -> str:
        """Where the judge is."""
        return str(self._client.base_url.host)

    def ask(self, model: str, messages: list[dict[str, str]], *, temperature: float | None) -> Answer:
        """Return the answer of a model to a chat; raises JudgeError where none can be had."""
        openai = _library()
        self._pace.wait()
        options: dict[str, Any] = {} if temperature is None else {"temperature": temperature}
        try:
            reply = self._client.chat.completions.create(model=model, messages=messages, **options)
        except openai.AuthenticationError as error:
            raise JudgeError(f"{self.host} does not accept the key (status {error.status_code})") from None
        except openai.APIStatusError as error:
            said = self._without_key(first_line(error))
            raise JudgeError(f"{self.host} answered with status {error.status_code}: {said}") from None
        except openai.APITimeoutError:
            raise JudgeError(f"{self.host} did not answer in time, {RETRIES + 1} times over") from None
        except openai.APIError as error:
            raise JudgeError(f"cannot reach the judge at {self.host}: {self._without_key(first_line(error))}") from None
        choices = getattr(reply, "choices", None) or []
        usage = getattr(reply, "usage", None)
        text = choices[0].message.content if choices else None
        return Answer(text, getattr(usage, "prompt_tokens", 0) or 0, getattr(usage, "completion_tokens", 0) or 0)

    def _without_key(self, said: str) -> str:
        return said.replace(self._key, "***") if len(self._key) > len(KEYLESS) else said


def _library() -> Any:
    try:
        import openai
    except ImportError as error:
        raise JudgeError("judging needs the extra `judge`: pip install 'rectilinear[judge]'") from error
    return openai
