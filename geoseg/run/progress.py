"""How far a run is: a bar with an ETA on a terminal, log lines elsewhere."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

LOG_EVERY_S = 10.0


def track(items: Iterable[T], *, total: int, what: str, quiet: bool = False) -> Iterator[T]:
    """Yield items and show how many are done, on stderr.

    Args:
        items: What is worked through.
        total: How many there are.
        what: Word for one of them.
        quiet: Show nothing.
    """
    if quiet:
        yield from items
    elif sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, total=total, unit=what, desc="geoseg", file=sys.stderr)
    else:
        yield from _logged(items, total, what)


def _logged(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Log every `LOG_EVERY_S` seconds; the ETA leaves out the first item, which waits for the network to load."""
    first = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        first = now if done == 1 else first
        if done == total:
            log.info("%d of %d %ss done", done, total, what)
        elif done > 1 and now - last >= LOG_EVERY_S:
            last = now
            log.info(
                "%d of %d %ss done, about %.0f s left", done, total, what, (now - first) / (done - 1) * (total - done)
            )
