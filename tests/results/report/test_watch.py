"""The server of a run that goes on: what it answers, to whom, and that it only reads."""

import html
import http.client
import os
import socket
import threading

import pytest

from pliant.errors import UserError
from pliant.results.report import watch_server
from report_runs import make_run

pytest.importorskip("plotly", reason="the extra report is not installed")

_CONNECT = socket.socket.connect


@pytest.fixture(autouse=True)
def _this_machine_is_no_network(_no_network, monkeypatch):
    def connect(self, address):
        assert self.family == socket.AF_UNIX or address[0] == "127.0.0.1"
        return _CONNECT(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture
def watched(tmp_path):
    """A run folder and the server that watches it."""
    folder = make_run(tmp_path / "run", asked=6)
    with watch_server(folder.path, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield folder, server
        server.shutdown()
        thread.join()


def _ask(server, path="/content", method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer, text


def test_the_page_and_its_content(watched):
    _, server = watched
    answer, page = _ask(server, "/")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "connect-src 'self'" in html.unescape(page)
    answer, content = _ask(server)
    assert content in page
    assert f'data-tag="{html.escape(answer.headers["ETag"]).replace("&quot;", "&#34;")}"' in page
    assert "adam has finished 4 of 6 tasks" in content
    assert _ask(server, "/other")[0].status == 404
    assert _ask(server, method="POST")[0].status == 501


def test_it_listens_on_this_machine_alone(watched):
    _, server = watched
    assert server.socket.family == socket.AF_INET
    assert server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{}", 200),
        ("localhost:{}", 200),
        ("localhost:9", 200),
        ("evil.example:{}", 403),
        ("localhost.evil.example:{}", 403),
        ("", 403),
    ],
)
def test_other_names_of_this_machine_are_refused(watched, host, status):
    """So that a page whose name leads here, by DNS rebinding, reads nothing."""
    _, server = watched
    answer, text = _ask(server, "/", Host=host.format(server.server_port))
    assert answer.status == status
    assert ("train_accuracy" in text) is (status == 200)


def test_content_is_sent_again_when_the_run_has_gone_on(watched):
    folder, server = watched
    answer, _ = _ask(server)
    tag = answer.headers["ETag"]
    answer, text = _ask(server, If_None_Match=tag)
    assert (answer.status, text) == (304, "")
    make_run(folder.path, methods=("sgd",), tasks=2, asked=6)
    answer, text = _ask(server, If_None_Match=tag)
    assert answer.status == 200
    assert answer.headers["ETag"] != tag
    assert "sgd has finished 2 of 6 tasks" in text


def test_the_folder_is_only_read(watched):
    folder, server = watched

    def files():
        return {
            os.path.join(path, name): os.stat(os.path.join(path, name)).st_mtime_ns
            for path, _, names in os.walk(folder.path)
            for name in names
        }

    before = files()
    _ask(server, "/")
    assert files() == before


def test_a_folder_that_cannot_be_read_leaves_the_last_content(watched):
    folder, server = watched
    _, before = _ask(server)
    config = folder.path / "config.json"
    kept = config.read_text()
    config.write_text("{")
    answer, text = _ask(server)
    assert (answer.status, text) == (200, before)
    assert "is%20not%20valid%20JSON" in answer.headers["X-Problem"]
    config.write_text(kept)
    answer, _ = _ask(server)
    assert answer.headers["X-Problem"] is None


def test_a_run_without_a_finished_task_is_watched(tmp_path):
    folder = make_run(tmp_path / "run", tasks=0, asked=3)
    with watch_server(folder.path, 0) as server:
        content, _ = server.content()
        assert "No task is finished yet." in content.html


def test_what_cannot_be_watched(tmp_path):
    with pytest.raises(UserError, match=r"which has no config.json; wanted the folder of a run"):
        watch_server(tmp_path, 0)
    folder = make_run(tmp_path / "run", tasks=1)
    with pytest.raises(UserError, match=r"got port 70000; wanted a number in \[0, 65535\]"):
        watch_server(folder.path, 70000)
    with (
        watch_server(folder.path, 0) as server,
        pytest.raises(
            UserError, match=rf"got port {server.server_port} of 127.0.0.1: Address already in use; wanted a port"
        ),
    ):
        watch_server(folder.path, server.server_port)
