"""Run a command in a network of its own, and write down whom it talks to and who could talk to it.

    unshare --net python watch.py REPORT online|offline SERVED COMMAND...

Online all addresses of the world are this machine's, so that whatever a program sends is seen; offline there is none
but loopback. SERVED, a folder, is on http://10.9.8.7:8000/, by ranges; `-` serves nothing. The report is JSON:

    returncode, stdout, stderr    of the command
    sent                          ends of packets that were not for this machine, and of questions to name servers
    listening                     sockets that others could connect to
    connected                     ends of connections outside of loopback
"""

import http.server
import json
import re
import socket
import socketserver
import struct
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

HERE, PORT = "10.9.8.7", 8000
ALL_PROTOCOLS, IPV4, IPV6, TCP, UDP = 0x0003, 0x0800, 0x86DD, 6, 17
LOOK_EVERY_S = 0.05
LISTEN, UNCONNECTED_UDP = "0A", "07"
DNS_PORTS = (53, 5353, 5355)


def make_network(*, is_online: bool) -> None:
    """Set up loopback alone; online, route the whole world there: nobody answers, and every packet is seen."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    if is_online:
        subprocess.run(["ip", "address", "add", f"{HERE}/32", "dev", "lo"], check=True)
        for family, world in (("-4", "0.0.0.0/0"), ("-6", "::/0")):
            subprocess.run(["ip", family, "route", "add", "local", world, "dev", "lo"], check=True)


def listen_to_packets(sent: set[str]) -> None:
    """Write down where packets go, for ever."""
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ALL_PROTOCOLS))
    while True:
        data, (_, protocol, *_) = packets.recvfrom(65535)
        if protocol == IPV4:
            to, kind, ports = socket.inet_ntoa(data[16:20]), data[9], (data[0] & 15) * 4
        elif protocol == IPV6:
            to, kind, ports = socket.inet_ntop(socket.AF_INET6, data[24:40]), data[6], 40
        else:
            continue
        port = struct.unpack("!H", data[ports + 2 : ports + 4])[0] if kind in (TCP, UDP) else 0
        if (kind in (TCP, UDP) and not is_loopback(f"{to}:{port}") and to != HERE) or port in DNS_PORTS:
            sent.add(f"{to}:{port}")


def look_at_sockets(listening: set[str], connected: set[str]) -> None:
    """Write down the sockets of this network that are not loopback's, for ever."""
    while True:
        for kind in ("tcp", "tcp6", "udp", "udp6"):
            for line in Path("/proc/net", kind).read_text().splitlines()[1:]:
                local, remote, state = line.split()[1:4]
                own, other = end_of(local), end_of(remote)
                if state == LISTEN or (kind.startswith("udp") and state == UNCONNECTED_UDP):
                    if not is_loopback(own):
                        listening.add(f"{kind} {own}")
                elif not is_loopback(other):
                    connected.add(f"{kind} {other}")
        time.sleep(LOOK_EVERY_S)


def end_of(text: str) -> str:
    """Turn the kernel's words of the machine's byte order into an address and a port."""
    address, port = text.split(":")
    words = b"".join(int(address[i : i + 8], 16).to_bytes(4, sys.byteorder) for i in range(0, len(address), 8))
    return f"{socket.inet_ntop(socket.AF_INET if len(words) == 4 else socket.AF_INET6, words)}:{int(port, 16)}"


def is_loopback(end: str) -> bool:
    """Tell whether nobody else reaches an end."""
    return end.startswith(("127.", "::1:", "::ffff:127."))


class Ranges(http.server.SimpleHTTPRequestHandler):
    """Serves files whole and by ranges."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None or not path.is_file():
            super().do_GET()
            return
        data = path.read_bytes()
        start, stop = int(asked[1]), int(asked[2] or len(data) - 1) + 1
        part = data[start:stop]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {start}-{start + len(part) - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(part)


def main(report: str, network: str, served: str, *command: str) -> None:
    make_network(is_online=network == "online")
    seen: dict[str, set[str]] = {"sent": set(), "listening": set(), "connected": set()}
    for watch, into in (
        (listen_to_packets, [seen["sent"]]),
        (look_at_sockets, [seen["listening"], seen["connected"]]),
    ):
        threading.Thread(target=watch, args=into, daemon=True).start()
    if served != "-":
        server = socketserver.ThreadingTCPServer((HERE, PORT), partial(Ranges, directory=served))
        threading.Thread(target=server.serve_forever, daemon=True).start()
    done = subprocess.run(command, capture_output=True, text=True)
    time.sleep(5 * LOOK_EVERY_S)
    facts = {"returncode": done.returncode, "stdout": done.stdout, "stderr": done.stderr}
    Path(report).write_text(json.dumps(facts | {name: sorted(ends) for name, ends in seen.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
