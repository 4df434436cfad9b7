"""One client per run folder: a lock with a heartbeat, which outlives neither its owner nor a network folder's delays.

A second client is refused while the first one's heart beats. After kill -9 the next client on the same machine sees
that the process is gone; on another machine it waits for `LEASE_S` without a beat. Two clients that both believe to be
the one do no harm: blocks are functions of the scene and the model, and are written whole.
"""

import getpass
import hashlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from geoseg.errors import BusyError, GeosegError, MissingFileError
from geoseg.io.store import Store

log = logging.getLogger(__name__)

LOCK = "lock"
BEAT_S = 5.0
LEASE_S = 30.0
"""Longer than network file systems keep what they last saw of a folder or file."""

CLAIM_S = 5.0
"""Much longer than it takes to remove a lock."""


@dataclass(slots=True)
class Lease:
    """The right to work on a run folder.

    Attributes:
        store: The run's work folder.
        owner: Who holds it, as other clients are told.
        lost: True after another client took it over.
    """

    store: Store
    owner: dict[str, Any]
    lost: bool = False
    _beats: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _beating: threading.Thread | None = None

    def check(self) -> None:
        """Raise `BusyError` where another client took the run folder over, as after this one was suspended."""
        if self.lost:
            raise _taken_over(self.store)

    @property
    def token(self) -> str:
        """What tells this owner from every other."""
        return str(self.owner["token"])

    @property
    def is_held(self) -> bool:
        """True while the lock on the run folder is this owner's."""
        return is_holder(self.store, self.token)

    def rest(self) -> None:
        """Beat no more, so that what is removed next is not written again."""
        self._stop.set()
        if self._beating is not None:
            self._beating.join()

    def payload(self) -> bytes:
        """Return what the lock says."""
        return json.dumps(self.owner).encode()

    def beat(self) -> bool:
        """Show that the owner lives; return False where the lock is gone, as when the run is finished.

        The lock itself is never written again: one who is suspended between looking and writing would take it back.
        """
        holder = read_holder(self.store)
        if holder is None:
            return False
        self.lost = holder.get("token") != self.token
        if not self.lost:
            self._beats += 1
            self.store.write(_beat_of(self.owner), str(self._beats).encode())
        return not self.lost

    def release(self) -> None:
        """Let others in."""
        self._stop.set()
        self.store.remove(_beat_of(self.owner))
        if self.is_held:
            self.store.remove(LOCK)


@contextmanager
def hold(store: Store, on_beat: Callable[[], None]) -> Iterator[Lease]:
    """Hold the run folder while the block runs.

    Args:
        store: The run's work folder.
        on_beat: Called with every beat, from another thread: progress is written then.

    Raises:
        BusyError: If another client holds it.
    """
    lease = Lease(store, _describe_owner())
    _acquire(lease)
    lease._beating = threading.Thread(target=_keep_beating, args=(lease, on_beat), daemon=True)
    lease._beating.start()
    try:
        yield lease
    finally:
        lease.rest()
        with suppress(GeosegError):
            lease.release()


def read_holder(store: Store) -> dict[str, Any] | None:
    """Return what the lock of a run says; None where nobody holds it."""
    try:
        found = json.loads(store.read(LOCK))
    except MissingFileError:
        return None
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def is_holder(store: Store, token: str) -> bool:
    """Tell whether the lock of a run is this owner's."""
    return (read_holder(store) or {}).get("token") == token


def require_lease(store: Store, token: str) -> None:
    """Raise `BusyError` unless the lock of a run is this owner's, as before results are put into their place."""
    if not is_holder(store, token):
        raise _taken_over(store)


def is_alive(holder: dict[str, Any]) -> bool | None:
    """Tell whether a lock's owner lives; None where only its next beat can tell (another machine)."""
    import psutil

    if holder.get("host") != socket.gethostname():
        return None
    try:
        process = psutil.Process(int(holder["pid"]))
        is_same = abs(process.create_time() - float(holder["started"])) < 1
        return bool(is_same and process.status() != psutil.STATUS_ZOMBIE)
    except (psutil.Error, KeyError, TypeError, ValueError):
        return False


def _acquire(lease: Lease) -> None:
    while not lease.store.create(LOCK, lease.payload()):
        holder = read_holder(lease.store)
        if holder is None:
            continue
        if holder.get("token") == lease.token:  # a bucket's answer was lost, and boto3 asked again
            return
        if is_alive(holder) or (is_alive(holder) is None and _beats_on(lease.store, holder)):
            raise BusyError(
                f"{lease.store.url} is being worked on by process {holder.get('pid')} of {holder.get('user')} on "
                f"{holder.get('host')} since {holder.get('since')}. Watch it with geoseg status, or choose another "
                "folder with --out."
            )
        _take_over(lease, holder)


def _take_over(lease: Lease, holder: dict[str, Any]) -> None:
    """Remove the lock of an owner that is gone: of several clients at once only the one that makes the claim does.

    Else the last of them would remove the lock that the first has made meanwhile. A claim that stands for `CLAIM_S` is
    that of a client which was killed as well: then who claims its claim does, as whoever removed it might remove the
    next one's. Claims go after the lock, so one made too late finds another lock.
    """
    store, claims = lease.store, [f"claim-{holder.get('token')}"]
    while not store.create(claims[-1], lease.payload()):
        found = _watch_claim(store, claims[-1])
        if found == lease.payload():  # a bucket's answer was lost, and boto3 asked again
            break
        if not _is_holders(store, holder):
            return
        if found:
            claims.append(f"claim-{hashlib.sha256(found).hexdigest()}")
    try:
        if _is_holders(store, holder):
            log.info("Taking over from process %s on %s, which is gone.", holder.get("pid"), holder.get("host"))
            store.remove(_beat_of(holder))
            store.remove(LOCK)
        for claim in claims[:-1]:
            store.remove(claim)
    finally:
        store.remove(claims[-1])


def _watch_claim(store: Store, claim: str) -> bytes:
    """Return what a claim says that stands for `CLAIM_S`; nothing where it goes before."""
    found, deadline = _read_or_nothing(store, claim), time.monotonic() + CLAIM_S
    while found and time.monotonic() < deadline:
        time.sleep(0.05)
        if _read_or_nothing(store, claim) != found:
            return b""
    return found


def _is_holders(store: Store, holder: dict[str, Any]) -> bool:
    return (read_holder(store) or {}).get("token") == holder.get("token")


def _beat_of(holder: dict[str, Any]) -> str:
    """Name the file that holds an owner's last beat."""
    return f"beat-{holder.get('token')}"


def _read_or_nothing(store: Store, name: str) -> bytes:
    try:
        return store.read(name)
    except MissingFileError:
        return b""


def _beats_on(store: Store, holder: dict[str, Any]) -> bool:
    """Watch another machine's lock for as long as its lease lasts."""
    log.info("Waiting up to %.0f s to see whether %s still works on %s", LEASE_S, holder.get("host"), store.url)
    deadline, last = time.monotonic() + LEASE_S, _read_or_nothing(store, _beat_of(holder))
    while time.monotonic() < deadline:
        time.sleep(min(1.0, LEASE_S / 10))
        now = read_holder(store)
        if now is None:
            return False
        if now != holder or _read_or_nothing(store, _beat_of(holder)) != last:
            return True
    return False


def _taken_over(store: Store) -> BusyError:
    return BusyError(
        f"Another client has taken over {store.url}, as this one was not heard of for {LEASE_S:.0f} s. "
        "Nothing is lost; watch it with geoseg status."
    )


def _keep_beating(lease: Lease, on_beat: Callable[[], None]) -> None:
    while not lease._stop.wait(BEAT_S) and not lease.lost:
        try:
            if lease.beat():
                on_beat()
        except GeosegError as err:  # a full disk or a network that is away: the blocks will say so
            log.debug("no heartbeat: %s", err)


def _describe_owner() -> dict[str, Any]:
    import psutil

    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    return {
        "token": uuid.uuid4().hex,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "user": user,
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
