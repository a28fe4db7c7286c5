"""One person's whole journey, walked by a program: does this gpuhub keep its promise?

`helm test` and `gpuhub trial` sign in, start a server, set a variable in a notebook, move its kernel onto
a GPU and back, look whether the variable is still the same, release the GPU and stop the server. Promises:
each step is one line in plain words with its seconds; the first step that fails says why and what to do;
what was started is ended again, also after a failure; a server that ran before is used and left running.

It speaks to the public side only, as a browser does, and needs no more than an account: a name with a
password (the sign-in form), or a token where people sign in elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from gpulease.scopes import SERVICE_NAME

REQUEST_SECONDS = 60.0
LOOK_SECONDS = 0.3
TOKEN_SECONDS = 3600
"""How long the token lives that is made after a sign-in by password; it is deleted at the end."""
SET = "import random; gpuhub_trial = [random.random() for _ in range(1000)]; print(sum(gpuhub_trial))"
SHOW = "print(sum(gpuhub_trial))"

Say = Callable[[str], None]


class TrialFailed(Exception):
    """A step failed. The message is one sentence; ``hint`` says what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class TrialOptions:
    """What to try. Either ``password`` or ``token`` is set."""

    url: str
    user: str
    password: str = ""
    token: str = ""
    profile: str | None = None
    gpu: bool = True
    patience_seconds: float = 600.0
    """How long one step may take; waiting in line for a GPU counts too."""


class Trial:
    """The journey of one person at one address."""

    def __init__(self, options: TrialOptions, say: Say) -> None:
        self.options, self._say = options, say
        self.url = options.url.rstrip("/") + "/"
        self._token, self._token_id = options.token, ""
        self._http = httpx.AsyncClient(timeout=REQUEST_SECONDS, follow_redirects=True, trust_env=False)

    async def walk(self) -> float:
        """Walk the journey; returns the seconds it took. Raises `TrialFailed`."""
        started = time.monotonic()
        try:
            async with self._signed_in(), self._server(), self._notebook() as notebook:
                value = await self._step("Run a cell", notebook.run(SET))
                if self.options.gpu:
                    await self._step("Move the kernel onto a GPU", notebook.move("worker"))
                    await self._step("Find the variable there", notebook.expect(SHOW, value))
                    await self._step("Move it back", notebook.move("server"))
                    await self._step("Find the variable again", notebook.expect(SHOW, value))
                    await self._step("Release the GPU", self._release())
        except (httpx.HTTPError, OSError) as error:
            raise TrialFailed(
                f"{self.url} does not answer as it should: {_why(error)}.",
                "Look at the logs of proxy, hub and broker.",
            ) from error
        finally:
            await self._http.aclose()
        return time.monotonic() - started

    async def _step(self, what: str, work: Awaitable[Any]) -> Any:
        begun = time.monotonic()
        try:
            async with asyncio.timeout(self.options.patience_seconds):
                result = await work
        except TimeoutError:
            raise TrialFailed(
                f"{what}: no end after {self.options.patience_seconds:.0f} s.",
                "Raise --patience where people wait in line, or look at the logs of hub and broker.",
            ) from None
        except TrialFailed as failed:
            raise TrialFailed(f"{what}: {failed}", failed.hint) from None
        self._say(f"{what:<32}{time.monotonic() - begun:7.1f} s")
        return result

    # --- who

    @contextlib.asynccontextmanager
    async def _signed_in(self) -> AsyncIterator[None]:
        if self._token:
            await self._step(f"Show the token of {self.options.user}", self._known())
        else:
            await self._step(f"Sign in as {self.options.user}", self._sign_in())
        try:
            yield
        finally:
            if self._token_id:
                await self._quietly("DELETE", f"hub/api/users/{self.options.user}/tokens/{self._token_id}")

    async def _known(self) -> None:
        person = await self.ask("GET", "hub/api/user")
        if person.get("name") != self.options.user:
            raise TrialFailed(f"the token belongs to {person.get('name')}", "Name that account with --user.")

    async def _sign_in(self) -> None:
        page = await self._http.get(f"{self.url}hub/login")
        found = re.search(r'name="_xsrf" value="([^"]+)"', page.text)
        if page.status_code != 200 or not found:
            raise TrialFailed(
                f"{page.url} shows no sign-in form (status {page.status_code})",
                "Where people sign in at another address, give a token: --token-file.",
            )
        form = {"username": self.options.user, "password": self.options.password, "_xsrf": found[1]}
        answer = await self._http.post(f"{self.url}hub/login", data=form)
        if "/hub/login" in str(answer.url) or answer.status_code >= 400:
            raise TrialFailed(f"name or password was refused (status {answer.status_code})")
        # A server that runs already has a cookie of the same name for its own path.
        jar = self._http.cookies.jar
        xsrf = [cookie.value for cookie in jar if cookie.name == "_xsrf" and cookie.path.endswith("/hub/")]
        answer = await self._http.post(
            f"{self.url}hub/api/users/{self.options.user}/tokens",
            json={"note": "gpuhub trial", "expires_in": TOKEN_SECONDS},
            headers={"X-XSRFToken": str(xsrf[-1]) if xsrf else ""},
        )
        if answer.status_code != 201:
            raise TrialFailed(f"the hub gave no token: {_refusal(answer)}")
        self._token, self._token_id = answer.json()["token"], answer.json()["id"]
        self._http.cookies.clear()

    # --- the server

    @contextlib.asynccontextmanager
    async def _server(self) -> AsyncIterator[None]:
        path = f"hub/api/users/{self.options.user}/server"
        if await self._seen() is not None:
            self._say(f"{'A server runs already':<32}      –   it is left running at the end")
            yield
            return
        options = {} if self.options.profile is None else {"profile": self.options.profile}
        try:
            await self._step("Start a server", self._start(path, options))
            yield
            await self._step("Stop the server", self._stop(path))
        except BaseException:
            await self._quietly("DELETE", path)
            raise

    async def _start(self, path: str, options: dict[str, str]) -> None:
        await self.ask("POST", path, json={"user_options": options})

        async def ready() -> bool:
            server = await self._seen()
            if server is None:
                raise TrialFailed("it ended while it started", "Look at the hub's log and the server's own.")
            return bool(server["ready"])

        await _until(ready)

    async def _seen(self) -> dict[str, Any] | None:
        """What the hub says of the server; None: there is none."""
        person = await self.ask("GET", f"hub/api/users/{self.options.user}")
        server: dict[str, Any] | None = person["servers"].get("")
        return server

    async def _stop(self, path: str) -> None:
        await self.ask("DELETE", path)

        async def gone() -> bool:
            return await self._seen() is None

        await _until(gone)

    @contextlib.asynccontextmanager
    async def _notebook(self) -> AsyncIterator[Notebook]:
        base, path = f"user/{self.options.user}/", f"gpuhub-trial-{uuid.uuid4().hex[:8]}.ipynb"
        content = {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        await self.ask("PUT", f"{base}api/contents/{path}", json={"type": "notebook", "content": content})
        session = None
        try:
            body = {"path": path, "name": path, "type": "notebook", "kernel": {"name": "python3"}}
            session = await self.ask("POST", f"{base}api/sessions", json=body)
            notebook = Notebook(self, base, session["kernel"]["id"])
            await self._step("Open a notebook", notebook.connect(self._token))
            try:
                yield notebook
            finally:
                notebook.close()
        finally:
            if session is not None:
                await self._quietly("DELETE", f"{base}api/sessions/{session['id']}")
            await self._quietly("DELETE", f"{base}api/contents/{path}")

    async def _release(self) -> None:
        leases = f"services/{SERVICE_NAME}/api/v1/leases"
        for lease in (await self.ask("GET", leases))["leases"]:
            await self.ask("DELETE", f"{leases}/{lease['id']}")

        async def ended() -> bool:
            return not (await self.ask("GET", leases))["leases"]

        await _until(ended)

    # --- asking

    async def ask(self, method: str, path: str, **more: Any) -> Any:
        """Ask the public side; returns the JSON answer. Raises `TrialFailed` for a refusal."""
        headers = {"Authorization": f"token {self._token}"}
        answer = await self._http.request(method, self.url + path, headers=headers, **more)
        if answer.status_code >= 400:
            raise TrialFailed(f"{method} /{path} was refused: {_refusal(answer)}")
        try:
            return answer.json() if answer.content else None
        except ValueError:
            raise TrialFailed(f"{method} /{path} answers with something else than JSON") from None

    async def _quietly(self, method: str, path: str) -> None:
        """Tidy up; what cannot be tidied is no failure of the journey."""
        with contextlib.suppress(TrialFailed, httpx.HTTPError):
            await self.ask(method, path)


class Notebook:
    """One kernel behind its websocket."""

    def __init__(self, trial: Trial, base: str, kernel: str) -> None:
        self._trial, self._kernel = trial, kernel
        self._status = f"{base}gpuhub/api/v1/kernels/{kernel}"
        address = re.sub(r"^http", "ws", trial.url) + f"{base}api/kernels/{kernel}/channels"
        self._address = f"{address}?session_id={uuid.uuid4().hex}"
        self._socket: WebSocketClientConnection | None = None

    async def connect(self, token: str) -> None:
        headers = {"Authorization": f"token {token}"}
        request = HTTPRequest(self._address, headers=headers, connect_timeout=REQUEST_SECONDS)
        try:
            self._socket = await websocket_connect(request)
        except Exception as error:
            raise TrialFailed(
                f"no websocket to the kernel: {_why(error)}",
                "Whatever stands before the proxy must let websockets through.",
            ) from error

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    async def run(self, code: str) -> str:
        """Run a cell and return what it printed."""
        assert self._socket is not None, "connect() comes first"
        header = {
            "msg_id": uuid.uuid4().hex,
            "username": self._trial.options.user,
            "session": uuid.uuid4().hex,
            "msg_type": "execute_request",
            "version": "5.3",
            "date": "",
        }
        content = {"code": code, "silent": False, "allow_stdin": False}
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
        await self._socket.write_message(json.dumps({**message, "channel": "shell", "buffers": []}))
        printed, replied, idle = "", False, False
        while not (replied and idle):
            frame = await self._socket.read_message()
            if frame is None:
                raise TrialFailed("the kernel's websocket was closed in the middle of a cell")
            answer = json.loads(frame)
            if answer["parent_header"].get("msg_id") != header["msg_id"]:
                continue
            kind, content = answer["header"]["msg_type"], answer["content"]
            if kind == "stream" and content["name"] == "stdout":
                printed += content["text"]
            elif kind == "status":
                idle = idle or content["execution_state"] == "idle"
            elif kind == "execute_reply":
                replied = True
                if content["status"] != "ok":
                    raise TrialFailed(f"the cell ended with {content.get('ename', content['status'])}")
        return printed.strip()

    async def expect(self, code: str, value: str) -> None:
        found = await self.run(code)
        if found != value:
            raise TrialFailed(f"the variable was {value} and is now {found}")

    async def move(self, placement: str) -> None:
        """Ask for the placement and wait until the kernel is there."""
        await self._trial.ask("PUT", f"{self._status}/placement", json={"placement": placement})

        async def settled() -> dict[str, Any] | None:
            status: dict[str, Any] = await self._trial.ask("GET", self._status)
            move = status["move"]
            return status if move is None or move["ended_at"] else None

        status = await _until(settled)
        if status["placement"] != placement:
            move = status["move"]
            raise TrialFailed("it did not happen" if move is None else str(move["message"]))


def run(options: TrialOptions, say: Say) -> None:
    """Walk the journey and say how long it took. Raises `TrialFailed`."""
    seconds = asyncio.run(Trial(options, say).walk())
    say(f"{'The journey works.':<32}{seconds:7.1f} s")


def read_secret(path: Path) -> str:
    """Return a password or token from a file, without the line's end. Raises `OSError`."""
    return path.read_text(encoding="utf-8").rstrip("\r\n")


async def _until(look: Callable[[], Awaitable[Any]]) -> Any:
    """Look until the answer is true; the step around it bounds the time."""
    while True:
        found = await look()
        if found:
            return found
        await asyncio.sleep(LOOK_SECONDS)


def _why(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _refusal(answer: httpx.Response) -> str:
    """What an answer says of itself: ours and JupyterHub's errors have a message."""
    try:
        said = answer.json()
        return f"{said['message']} ({answer.status_code})"
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status_code}"


def main() -> None:
    """``python -P -m gpuhub.trial``: the same as ``gpuhub trial``."""
    import sys

    from gpuhub.cli import app

    app(["trial", *sys.argv[1:]])


if __name__ == "__main__":
    main()
