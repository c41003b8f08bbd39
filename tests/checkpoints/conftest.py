"""A model hub on this machine, for what is fetched."""

from __future__ import annotations

import hashlib
import logging
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote, unquote

import pytest

from sclcm._settings import settings

REVISION = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """What a hub holds, what it was asked, and how it misbehaves.

    `elsewhere` makes files come from another address, as the hub's large ones do. `break_after` ends each answer after
    so many bytes of a file, `status` is given to every request, `strange` makes it answer like a web server that is no
    hub, and `answers_as` states another commit. `asked`, `tokens` and `bytes_sent` keep the books.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    repository: str = "owner/name"
    revision: str = REVISION
    endpoint: str = ""
    store: str = ""
    elsewhere: bool = False
    break_after: int | None = None
    status: tuple[int, str] | None = None
    strange: bool = False
    answers_as: str | None = None
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    bytes_sent: int = 0
    tokens: dict[str, str | None] = field(default_factory=dict)

    def serve(self, method: str, path: str, wanted: str | None) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body; `wanted` is the Range header."""
        self.asked.append((method, path, wanted))
        if self.status is not None:
            return self.status[0], {"X-Error-Code": self.status[1]} if self.status[1] else {}, b""
        if self.strange:
            return 200, {}, b"<html>Please log in</html>"
        if path.startswith("/cdn/"):
            return self._content(unquote(path.removeprefix("/cdn/")), wanted, {})
        return self._resolve(method, path, wanted)

    def _resolve(self, method: str, path: str, wanted: str | None) -> tuple[int, dict[str, str], bytes]:
        owner, name, verb, revision, *rest = path.strip("/").split("/")
        file = unquote("/".join(rest))
        if (f"{owner}/{name}", verb) != (self.repository, "resolve"):
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        if revision != self.revision:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        if file not in self.files:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": self.revision}, b""
        content = self.files[file]
        headers = {"X-Repo-Commit": self.answers_as or self.revision}
        if not self.elsewhere:
            etag = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
            return self._content(file, wanted, {**headers, "ETag": f'"{etag}"'})
        headers |= {"X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Linked-Size": str(len(content))}
        return 302, {**headers, "Location": f"{self.store}/cdn/{quote(file)}"}, b""

    def _content(self, file: str, wanted: str | None, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        content = self.files[file]
        if wanted is None:
            return 200, headers, content
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        return 206, {**headers, "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}, content[start:]

    def transfers(self) -> list[tuple[str, str | None]]:
        """Return the file name and Range header of each request for content."""
        return [(path.rsplit("/", 1)[-1], wanted) for method, path, wanted in self.asked if method == "GET"]


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer("HEAD")

        def do_GET(self) -> None:
            self._answer("GET")

        def _answer(self, method: str) -> None:
            hub.tokens[self.path] = self.headers.get("Authorization")
            status, headers, body = hub.serve(method, self.path, self.headers.get("Range"))
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if method == "GET" and status < 300:
                part = body[: hub.break_after]
                self.wfile.write(part)
                hub.bytes_sent += len(part)
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            logging.getLogger("hub").debug(format, *args)

    return Handler


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """An empty hub that the settings point to, and an empty folder for what is fetched from it."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between attempts
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 100_000)  # what is written at a time
    monkeypatch.delenv("HF_TOKEN", raising=False)
    here = Hub()
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), _handler(here)) for _ in range(2)]
    here.endpoint = f"http://127.0.0.1:{servers[0].server_port}"
    here.store = f"http://localhost:{servers[1].server_port}"  # to `huggingface_hub`, another machine
    for server in servers:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop():
        for server in servers:
            server.shutdown()
            server.server_close()

    here.stop = stop
    before = {name: getattr(settings, name) for name in ("cache_dir", "endpoint", "offline", "progress")}
    settings.cache_dir, settings.endpoint, settings.offline = tmp_path / "cache", here.endpoint, False
    yield here
    stop()
    for name, value in before.items():
        setattr(settings, name, value)
