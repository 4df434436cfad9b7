"""A bucket on loopback, behind a line that can be told to fail; a process of its own, as GDAL holds Python's lock."""

import http.client
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from urllib.parse import parse_qs, urlparse


class Line:
    """A connection to a server that can be told to fail: every n-th request with 503, or cut in the answer.

    After n - 1, n and n + 1 requests in turn: in step with a client that asks n times in each attempt, the same request
    would fail in all of them.
    """

    def __init__(self, host: str, port: int) -> None:
        self.server_at, self.failed = (host, port), 0
        self.gaps: dict[str, Iterator[int]] = {}
        self.left: dict[str, int] = {}
        self.only = ""
        self.lock = threading.Lock()

    def obey(self, orders: dict[str, list[str]]) -> bytes:
        """Fail from now on as told; return how many requests have failed so far."""
        with self.lock:
            told = {fate: int(orders[fate][0]) for fate in ("busy", "cut")}
            self.gaps = {fate: cycle((n - 1, n, n + 1) if n > 1 else (n,)) for fate, n in told.items() if n}
            self.left = {fate: next(gaps) for fate, gaps in self.gaps.items()}
            self.only = orders.get("only", [""])[0]
            failed, self.failed = str(self.failed), 0
            return failed.encode()

    def fate(self, path: str) -> str:
        """Say what becomes of a request."""
        with self.lock:
            for fate in self.left if self.only in path else ():
                self.left[fate] -= 1
                if not self.left[fate]:
                    self.left[fate] = next(self.gaps[fate])
                    self.failed += 1
                    return fate
            return "passed on"


def handler_of(line: Line) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None: ...

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path.startswith("/_line?"):
                self.reply(200, {}, line.obey(parse_qs(urlparse(self.path).query)))
                return
            fate = line.fate(self.path)
            if fate == "busy":
                self.reply(503, {}, b"")
                return
            link = http.client.HTTPConnection(*line.server_at, timeout=30)
            link.request(self.command, self.path, body, dict(self.headers))
            answer = link.getresponse()
            data = answer.read()
            link.close()
            if fate == "cut" and self.command == "GET" and len(data) > 1:
                self.reply(answer.status, dict(answer.headers), data[: len(data) // 2], length=len(data))
                self.close_connection = True
            else:
                self.reply(answer.status, dict(answer.headers), data)

        def reply(self, status: int, headers: dict[str, str], data: bytes, length: int | None = None) -> None:
            self.send_response(status)
            dropped = ("content-length", "connection", "transfer-encoding", "server", "date")
            for name, value in headers.items():
                if name.lower() not in dropped:
                    self.send_header(name, value)
            told = headers.get("Content-Length") if self.command == "HEAD" else str(length or len(data))
            self.send_header("Content-Length", told or "0")
            self.end_headers()
            self.wfile.write(data)

    for method in ("GET", "PUT", "POST", "HEAD", "DELETE"):
        setattr(Handler, f"do_{method}", Handler.pass_on)
    return Handler


def main() -> None:
    """Serve until stdin ends; say where on stdout."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler_of(Line(*server.get_host_and_port()))) as proxy:
        proxy.daemon_threads = True
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        sys.stdout.write(f"127.0.0.1:{proxy.server_port}\n")
        sys.stdout.flush()
        sys.stdin.read()
        proxy.shutdown()
    server.stop()


if __name__ == "__main__":
    main()
