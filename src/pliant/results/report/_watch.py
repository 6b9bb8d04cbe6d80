"""A server of the page while a run goes on, for browsers on this machine alone."""

import hashlib
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from pliant.errors import UserError, in_one_line
from pliant.results._run_folder import RunFolder
from pliant.results.report._page import content_html, framed

_ADDRESS = "127.0.0.1"
_NAMES = (_ADDRESS, "localhost")


class _Content(NamedTuple):
    html: str
    title: str
    tag: str


class WatchServer(ThreadingHTTPServer):
    """Serves the page of a run folder, and makes it again when the folder has changed.

    The folder is only read. Requests whose Host header is another name than this machine's are refused, so that no page
    from elsewhere can read the run under a name of its own.

    Args:
      path: the run folder.
      port: of 127.0.0.1; 0 for any free one.
    """

    daemon_threads = True
    allow_reuse_address = os.name == "posix"  # elsewhere it would let two programs have one port

    def __init__(self, path: Path, port: int):
        self._path = path
        self._lock = threading.Lock()
        self._seen = _state_of(path)
        self._problem = ""
        self._content = _read(path)
        super().__init__((_ADDRESS, port), _Handler)

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{_ADDRESS}:{self.server_port}/"

    def content(self) -> tuple[_Content, str]:
        """The content as the folder is now, and why it could not be read, in which case it is the last one."""
        with self._lock:  # requests take turns
            state = _state_of(self._path)
            if state != self._seen or self._problem:
                try:
                    self._content, self._seen, self._problem = _read(self._path), state, ""
                except Exception as error:  # whatever a folder holds that is being written, or removed
                    self._problem = in_one_line(error)
            return self._content, self._problem


def watch_server(path: Path, port: int) -> WatchServer:
    """Starts to listen. `serve_forever` then answers.

    Args:
      path: the run folder.
      port: of 127.0.0.1; 0 for any free one.

    Raises:
      UserError: if the folder is no run, or the port is taken or forbidden.
    """
    if not 0 <= port <= 65535:
        raise UserError(got=f"port {port}", wanted="a number in [0, 65535]", do="Leave --port out.")
    try:
        return WatchServer(path, port)
    except OSError as error:
        raise UserError(
            got=f"port {port} of {_ADDRESS}: {error.strerror}",
            wanted="a port that no other program uses",
            do="Give another with --port; 0 takes any free one.",
        ) from error


def _state_of(path: Path) -> frozenset[tuple[str, int, int]]:
    """Names, times and sizes of the files that the page is made of. Checkpoints and unfinished files are not read."""
    found = []
    for folder, folders, files in os.walk(path):
        folders[:] = [name for name in folders if name != "checkpoints"]
        for name in files:
            if name.startswith(".") or name == "run.log":
                continue
            try:
                stat = os.stat(os.path.join(folder, name))
            except OSError:  # merged into another file
                continue
            found.append((os.path.join(folder, name), stat.st_mtime_ns, stat.st_size))
    return frozenset(found)


def _read(path: Path) -> _Content:
    folder = RunFolder(path)
    html = content_html([folder])
    return _Content(html, folder.title, f'"{hashlib.sha256(html.encode()).hexdigest()[:16]}"')


class _Handler(BaseHTTPRequestHandler):
    """Answers GET of the page, and of its content."""

    server: WatchServer
    server_version = "pliant"
    sys_version = ""
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        name, _, _ = (self.headers.get("Host") or "").partition(":")  # the port may be forwarded from another one
        if name not in _NAMES:
            self._send(403, f"Open {self.server.url}\n", "text/plain")
        elif self.path == "/":
            content, _ = self.server.content()
            self._send(200, framed(content.html, content.title, content.tag), "text/html")
        elif self.path == "/content":
            content, problem = self.server.content()
            headers = {"ETag": content.tag} | ({"X-Problem": quote(problem)} if problem else {})
            if self.headers.get("If-None-Match") == content.tag:
                self._send(304, "", "text/html", headers)
            else:
                self._send(200, content.html, "text/html", headers)
        else:
            self._send(404, "Nothing is here.\n", "text/plain")

    def _send(self, code: int, text: str, kind: str, headers: dict[str, str] | None = None) -> None:
        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Requests are not printed."""
