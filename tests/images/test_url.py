"""Images by URL, from servers on this machine that behave well and badly. No test leaves the machine."""

import contextlib
import http.server
import io
import socket
import subprocess
import sys
import threading
import time
from typing import ClassVar

import numpy as np
import pytest
from pictures import NOISE, encoded, refusal, rgb
from PIL import Image

from minclip.images import ImageProcessor, open_image, url

PNG = encoded(Image.fromarray(NOISE)).getvalue()


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by the path that is asked for."""

    agents: ClassVar[list] = []

    def do_GET(self):
        type(self).agents.append(self.headers["User-Agent"])
        name = self.path.strip("/").split("/")[0].split("?")[0]
        with contextlib.suppress(OSError):  # the client has seen enough
            getattr(self, name.replace("-", "_"), self.missing)()

    def answer(self, content, kind="image/png", declared=None, code=200, **headers):
        self.send_response(code)
        self.send_header("Content-Type", kind)
        if declared != "no":
            self.send_header("Content-Length", str(len(content) if declared is None else declared))
        for header, value in headers.items():
            self.send_header(header, value)
        self.end_headers()
        self.wfile.write(content)

    def missing(self):
        self.answer(b"<html>not here</html>", "text/html", code=404)

    def noise_png(self):
        self.answer(PNG)

    def streamed(self):
        self.answer(PNG, declared="no")

    def unnamed(self):
        self.answer(PNG, "application/octet-stream")

    def hop(self):
        left = int(self.path.rsplit("/", 1)[1])
        self.answer(b"", code=302, Location=f"/hop/{left - 1}" if left else "/noise-png")

    def loop(self):
        self.answer(b"", code=302, Location="/loop")

    def to_file(self):
        self.answer(b"", code=302, Location="file:///etc/passwd")

    def to_ftp(self):
        self.answer(b"", code=302, Location="ftp://127.0.0.1/noise.png")

    def page(self):
        self.answer(b"<html>a picture of noise</html>", "text/html; charset=utf-8")

    def text(self):
        self.answer(b"a picture of noise", "text/plain")

    def declares_10_gb(self):
        self.answer(b"", declared=10 * 2**30)

    def sends_10_gb(self):
        self.answer(b"", declared="no")
        for _ in range(10 * 2**10):
            self.wfile.write(bytes(2**20))

    def broken_off(self):
        self.answer(PNG[:-100], declared=len(PNG))

    def silent(self):
        time.sleep(3)

    def silent_halfway(self):
        self.answer(PNG[:100], declared=len(PNG))
        self.wfile.flush()
        time.sleep(3)

    def drips(self):
        self.answer(PNG[:100], declared=len(PNG))
        with contextlib.suppress(OSError):
            for byte in PNG[100:]:
                self.wfile.write(bytes([byte]))
                time.sleep(0.05)

    def drips_its_head(self):
        for byte in b"HTTP/1.0 200 OK\r\n" + b"x-header: y\r\n" * 50:
            self.wfile.write(bytes([byte]))
            time.sleep(0.05)

    def no_http(self):
        self.wfile.write(b"\x89PNG is no status line\r\n\r\n")

    def hangs_up(self):
        self.connection.shutdown(socket.SHUT_RDWR)

    def teapot(self):
        self.send_response(418, "I am a teapot, and a long one")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    """The address of a server in threads."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        made.daemon_threads = True
        made.block_on_close = False
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(url, "SILENCE", 0.4)
    monkeypatch.setattr(url, "TOTAL", 1.2)


@pytest.mark.parametrize(
    "path", ["/noise-png", "/streamed", "/unnamed", "/hop/0", "/hop/4", "/noise-png?a=b c&d=é", "/noise-png/%20é ü.png"]
)
def test_an_image_is_fetched(server, path):
    np.testing.assert_array_equal(rgb(server + path), NOISE)


def test_an_image_is_fetched_where_no_thread_can_be_started(server, monkeypatch):
    start = threading.Thread.start

    def refuse(thread):  # minclip's; the server's go on
        if thread.name == "minclip-fetch":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    np.testing.assert_array_equal(rgb(server + "/noise-png"), NOISE)
    refusal(lambda: open_image(server + "/nowhere"), server, "404")


def test_a_url_is_an_image_source_of_the_processor(server):
    urls = [f"{server}/noise-png", f"HTTP{server[4:]}/streamed"]
    np.testing.assert_array_equal(ImageProcessor()(urls), ImageProcessor()([NOISE, NOISE]))


def test_the_client_has_a_name(server):
    open_image(f"{server}/noise-png")
    assert Handler.agents[-1] == "minclip"


@pytest.mark.parametrize(
    ("path", "culprit"),
    [
        ("/nothing.png", "answers 404 Not Found"),
        ("/teapot", "answers 418 I am a teapot"),
        ("/loop", "redirects in a loop"),
        ("/hop/9", "more than 5 times"),
        ("/to-file", "what is not http(s)"),
        ("/to-ftp", "cannot be reached: unknown url type: ftp"),
        ("/page", "is a web page, not an image"),
        ("/text", "is not an image"),
        ("/declares-10-gb", "has 10737418240 bytes, more than the 104857600"),
        ("/broken-off", f"broke off after {len(PNG) - 100} of {len(PNG)} bytes"),
        ("/no-http", "answers what is not HTTP"),
        ("/hangs-up", "Remote end closed connection"),
    ],
)
def test_each_way_to_fail_has_its_line(server, path, culprit):
    message = refusal(lambda: open_image(server + path), server + path, culprit)
    assert message.count(server + path) == 1


def test_a_stream_without_end_is_left_at_the_limit(server, monkeypatch):
    monkeypatch.setattr(url, "MAX_BYTES", 3 * 2**20)
    refusal(lambda: open_image(f"{server}/sends-10-gb"), "more than the 3145728 bytes")


@pytest.mark.parametrize("path", ["/silent", "/silent-halfway", "/drips", "/drips-its-head"])
def test_a_server_that_keeps_one_waiting_is_left_in_time(server, path, impatient):
    begin = time.monotonic()
    refusal(lambda: open_image(server + path), server + path, "seconds")
    assert time.monotonic() - begin < 2.5


def test_a_server_that_accepts_and_never_answers_is_left_in_time(impatient):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/a.png"
        refusal(lambda: open_image(address), address, "silent")


def test_a_server_that_is_not_there_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    refusal(lambda: open_image(f"http://127.0.0.1:{port}/a.png"), f"{port}/a.png", "cannot be reached", "refused")


@pytest.mark.parametrize(
    "address",
    ["http://", "https://", "http:///a.png", "http://[::1", "http://127.0.0.1:port/", "http://127.0.0.1:99999/",
     "http://a\nb/", "http://127.0.0.1:1/\r\nHost: x", "http://\x00", "http://" + "a" * 300, "http://\ud800/"],
)  # fmt: skip
def test_an_address_that_cannot_be_is_one_line(address):
    refusal(lambda: open_image(address))


def test_a_path_that_looks_like_an_address_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("http_a.png", "https-b.png", "http:c.png"):
        (tmp_path / name).write_bytes(PNG)
        np.testing.assert_array_equal(rgb(name), NOISE)


def test_the_network_is_imported_for_a_url_alone():
    code = (
        "import sys, io; from minclip.images import open_image; from PIL import Image; f = io.BytesIO();"
        "Image.new('RGB', (2, 2)).save(f, 'PNG'); open_image(f);"
        "print([name for name in sys.modules if name in ('minclip.images.url', 'http.client', 'ssl')])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_eight_fetches_at_once_are_each_whole(server):
    results = []

    def fetch():
        results.append(rgb(io.BytesIO(url.fetch(f"{server}/noise-png"))))

    threads = [threading.Thread(target=fetch) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert all(np.array_equal(result, NOISE) for result in results)
