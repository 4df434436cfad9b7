"""The lease on a run folder: a lock with a heartbeat, so that only one client works on a run at a time.

A second client is refused while the first one sends heartbeats. After kill -9 the next client on the same machine sees
that the process no longer exists; a client on another machine waits for `LEASE_S` without a heartbeat. Two clients that
both take themselves for the owner do no harm: blocks depend on scene and model alone, and are written atomically.
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
from geoseg.io.store import Store, parse_json
from geoseg.sources.files import RUN_FOLDER

log = logging.getLogger(__name__)

LOCK = "lock"
BEAT_S = 5.0
LEASE_S = 30.0
"""Longer than network file systems cache folders and files."""

CLAIM_S = 5.0
"""Much longer than it takes to remove a lock."""


@dataclass(slots=True)
class Lease:
    """The exclusive right to work on a run folder.

    Attributes:
        store: The work folder of the run.
        owner: Facts about the owner, for other clients.
        lost: True after another client has taken the lease over.
    """

    store: Store
    owner: dict[str, Any]
    lost: bool = False
    _beats: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _beating: threading.Thread | None = None

    def check(self) -> None:
        """Raise `BusyError` if another client has taken over, for example after this one was suspended."""
        if self.lost:
            raise _taken_over(self.store)

    @property
    def token(self) -> str:
        """Unique identifier of the owner."""
        return str(self.owner["token"])

    @property
    def is_held(self) -> bool:
        """True while the lock on the run folder belongs to this owner."""
        return is_holder(self.store, self.token)

    def stop_beating(self) -> None:
        """Stop the heartbeat, which would write again what is removed next."""
        self._stop.set()
        if self._beating is not None:
            self._beating.join()

    def payload(self) -> bytes:
        """Return the contents of the lock file."""
        return json.dumps(self.owner).encode()

    def beat(self) -> bool:
        """Write a heartbeat; return False if the lock no longer exists, as after the run has finished.

        The lock file itself is written only once: a client suspended between reading and writing would steal it back.
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
        """Release the lease."""
        self._stop.set()
        self.store.remove(_beat_of(self.owner))
        if self.is_held:
            self.store.remove(LOCK)


@contextmanager
def hold_lease(store: Store, on_beat: Callable[[], None]) -> Iterator[Lease]:
    """Hold the lease on a run folder while a `with` block runs.

    Args:
        store: The work folder of the run.
        on_beat: Called with every heartbeat, from another thread, to write the progress.

    Raises:
        BusyError: If another client holds the lease.
    """
    lease = Lease(store, _describe_owner())
    _acquire(lease)

    def keep_beating() -> None:
        while not lease._stop.wait(BEAT_S) and not lease.lost:
            try:
                if lease.beat():
                    on_beat()
            except GeosegError as err:  # a full disk or a lost network: the blocks will report it
                log.debug("no heartbeat: %s", err)

    lease._beating = threading.Thread(target=keep_beating, daemon=True)
    lease._beating.start()
    try:
        yield lease
    finally:
        lease.stop_beating()
        with suppress(GeosegError):
            lease.release()


def read_holder(store: Store) -> dict[str, Any] | None:
    """Return the contents of the lock file of a run; None if there is no lock."""
    try:
        found = parse_json(store.read(LOCK))
    except MissingFileError:
        return None
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def is_holder(store: Store, token: str | None) -> bool:
    """Return True if the lock of a run belongs to this owner."""
    return (read_holder(store) or {}).get("token") == token


def require_lease(store: Store, token: str) -> None:
    """Raise `BusyError` unless the lock of a run belongs to this owner."""
    if not is_holder(store, token):
        raise _taken_over(store)


def is_alive(holder: dict[str, Any]) -> bool | None:
    """Return True if the owner of a lock is alive; None if only a heartbeat can tell, as on another machine."""
    import psutil

    if holder.get("host") != socket.gethostname():
        return None
    try:
        process = psutil.Process(int(holder["pid"]))
        is_same = abs(process.create_time() - float(holder["started"])) < 1
        return bool(is_same and process.status() != psutil.STATUS_ZOMBIE)
    except (psutil.Error, KeyError, TypeError, ValueError):
        return False


def is_working(store: Store, holder: dict[str, Any]) -> bool:
    """Return True if the owner of a lock is alive; for one on another machine, wait up to `LEASE_S` for a heartbeat."""
    alive = is_alive(holder)
    return _beats_on(store, holder) if alive is None else alive


def require_free(store: Store) -> None:
    """Raise `BusyError` if a client is working on what a lock is for."""
    holder = read_holder(store)
    if holder is not None and is_working(store, holder):
        raise _busy(store, holder)


def _acquire(lease: Lease) -> None:
    while not lease.store.create(LOCK, lease.payload()):
        holder = read_holder(lease.store)
        if holder is None:
            continue
        if holder.get("token") == lease.token:  # the bucket's response was lost, and boto3 retried
            return
        if is_working(lease.store, holder):
            raise _busy(lease.store, holder)
        _take_over(lease, holder)


def _take_over(lease: Lease, holder: dict[str, Any]) -> None:
    """Remove the lock of a dead owner; of several clients only the one that creates the claim file may do that.

    Otherwise the last of them could remove the lock that the first has created meanwhile. A claim that stays for
    `CLAIM_S` belongs to a client that was killed too; then the client that creates a claim on that claim may do it,
    as removing the old claim could remove a newer one. Claims are removed after the lock, so a late claim finds
    another lock.
    """
    store, claims = lease.store, [f"claim-{holder.get('token')}"]
    while not store.create(claims[-1], lease.payload()):
        found = _watch_claim(store, claims[-1])
        if found == lease.payload():  # the bucket's response was lost, and boto3 retried
            break
        if not is_holder(store, holder.get("token")):
            return
        if found:
            claims.append(f"claim-{hashlib.sha256(found).hexdigest()}")
    try:
        if is_holder(store, holder.get("token")):
            log.info("Taking over from process %s on %s, which has ended", holder.get("pid"), holder.get("host"))
            store.remove(_beat_of(holder))
            store.remove(LOCK)
        for claim in claims[:-1]:
            store.remove(claim)
    finally:
        store.remove(claims[-1])


def _watch_claim(store: Store, claim: str) -> bytes:
    """Return the contents of a claim that stays for `CLAIM_S`; nothing if it is removed or changed earlier."""
    found, deadline = _read_or_nothing(store, claim), time.monotonic() + CLAIM_S
    while found and time.monotonic() < deadline:
        time.sleep(0.05)
        if _read_or_nothing(store, claim) != found:
            return b""
    return found


def _beat_of(holder: dict[str, Any]) -> str:
    """Return the name of the heartbeat file of an owner."""
    return f"beat-{holder.get('token')}"


def _read_or_nothing(store: Store, name: str) -> bytes:
    try:
        return store.read(name)
    except MissingFileError:
        return b""


def _beats_on(store: Store, holder: dict[str, Any]) -> bool:
    """Return True if a client on another machine sends a heartbeat within `LEASE_S`."""
    log.info("Waiting up to %.0f s to see whether %s is still working on %s", LEASE_S, holder.get("host"), store.url)
    deadline, last = time.monotonic() + LEASE_S, _read_or_nothing(store, _beat_of(holder))
    while time.monotonic() < deadline:
        time.sleep(min(1.0, LEASE_S / 10))
        now = read_holder(store)
        if now is None:
            return False
        if now != holder or _read_or_nothing(store, _beat_of(holder)) != last:
            return True
    return False


def _busy(store: Store, holder: dict[str, Any]) -> BusyError:
    return BusyError(
        f"Another client is working on {_place_of(store)}: process {holder.get('pid')} of {holder.get('user')} "
        f"on {holder.get('host')}, since {holder.get('since')}. Follow it with geoseg status, or choose "
        "another folder with `out`."
    )


def _place_of(store: Store) -> str:
    """Return the run folder that a lock is for, as a user names it."""
    return store.url.partition(f"/{RUN_FOLDER}")[0]


def _taken_over(store: Store) -> BusyError:
    return BusyError(
        f"Another client has taken over {_place_of(store)}, as this one sent no heartbeat for {LEASE_S:.0f} s. "
        "Nothing is lost; follow the run with geoseg status."
    )


def _describe_owner() -> dict[str, Any]:
    import psutil

    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container user without a name
        user = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    return {
        "token": uuid.uuid4().hex,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "user": user,
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
