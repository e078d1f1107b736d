"""An image file fetched over http or https, within bounds of size, time and redirects."""

from __future__ import annotations

import queue
import threading
import time
from http.client import HTTPException, HTTPResponse
from urllib import request
from urllib.error import HTTPError, URLError
from urllib.parse import quote

from minclip.errors import ImageError
from minclip.files import one_line

MAX_BYTES = 100 * 2**20
SILENCE = 15.0  # seconds without a byte
TOTAL = 60.0  # seconds for the whole fetch, redirects and the search for the host included
MAX_REDIRECTS = 5
CHUNK = 1 << 16


def fetch(url: str) -> bytes:
    """The content behind a URL. Raises ImageError, one line that names the URL, where it cannot be had.

    The work is done in a thread that is left behind when the time is up: neither the search for a host nor the head
    of an answer that comes byte by byte can be interrupted. Where no thread can be started, it is done here.
    """
    if not url.isprintable():
        raise ImageError(f"{url!r} is not a URL: it holds control characters")
    answers: queue.Queue[bytes | Exception] = queue.Queue(1)

    def work() -> None:
        try:
            answers.put(read(url))
        except Exception as error:
            answers.put(error)

    try:
        threading.Thread(target=work, name="minclip-fetch", daemon=True).start()
    except RuntimeError:  # can't start new thread
        work()
    try:
        answer = answers.get(timeout=TOTAL)
    except queue.Empty:
        raise ImageError(f"{url} did not arrive within {TOTAL:g} seconds; fetch it yourself") from None
    if isinstance(answer, Exception):
        raise answer if isinstance(answer, ImageError) else ImageError(f"{url} {reason(answer)}") from answer
    return answer


def read(url: str) -> bytes:
    """Ask for a URL and read the answer as it comes."""
    end = time.monotonic() + TOTAL
    headers = {"User-Agent": "minclip", "Accept": "image/*,*/*;q=0.5"}  # some servers answer no nameless client
    with opener().open(request.Request(ascii_url(url), headers=headers), timeout=SILENCE) as answer:
        declared = length(answer)
        if answer.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
            raise ImageError(f"{url} is a web page, not an image; pass the address of the image itself")
        if declared is not None and declared > MAX_BYTES:
            raise ImageError(f"{url} has {declared} bytes, more than the {MAX_BYTES} that are fetched")
        content = bytearray()
        while chunk := answer.read1(CHUNK):
            content += chunk
            if len(content) > MAX_BYTES:
                raise ImageError(f"{url} has more than the {MAX_BYTES} bytes that are fetched")
            if time.monotonic() > end:
                raise TimeoutError
    if declared is not None and len(content) < declared:
        raise ImageError(f"{url} broke off after {len(content)} of {declared} bytes; try again")
    return bytes(content)


class FewRedirects(request.HTTPRedirectHandler):
    max_redirections = MAX_REDIRECTS


def opener() -> request.OpenerDirector:
    """What speaks http and https, through the proxies of the environment, and no other scheme: no file, no ftp."""
    director = request.OpenerDirector()
    for handler in (
        request.ProxyHandler(),
        request.UnknownHandler(),
        request.HTTPHandler(),
        request.HTTPSHandler(),
        request.HTTPDefaultErrorHandler(),
        request.HTTPErrorProcessor(),
        FewRedirects(),
    ):
        director.add_handler(handler)
    return director


def ascii_url(url: str) -> str:
    """A URL with its spaces and letters beyond ASCII escaped, as a browser does; what is escaped already stays so."""
    return quote(url, safe="%/:=&?~#+!$,;'@()*[]")


def length(answer: HTTPResponse) -> int | None:
    """How many bytes an answer declares, if it says so in a number."""
    declared = answer.headers.get("Content-Length", "")
    return int(declared) if declared.isdecimal() and len(declared) < 20 else None


def reason(error: Exception) -> str:
    """Why a fetch failed."""
    if isinstance(error, HTTPError):
        if error.code in (301, 302, 303, 307, 308):
            return f"redirects in a loop, more than {MAX_REDIRECTS} times, or to what is not http(s)"
        return f"answers {error.code} {one_line(Exception(error.reason))}"
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, TimeoutError):
        return f"is silent for {SILENCE:g} seconds or slower than {TOTAL:g}"
    said = one_line(cause) if isinstance(cause, Exception) else str(cause)
    if isinstance(error, URLError):
        return f"cannot be reached: {said or type(cause).__name__}"
    kind = "answers what is not HTTP" if isinstance(error, HTTPException) else "cannot be fetched"
    return f"{kind}: {said or type(error).__name__}"
