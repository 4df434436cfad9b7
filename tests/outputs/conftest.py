"""What the tests of outputs share: a disk that is full."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

resource = pytest.importorskip("resource", reason="limits of a process are a matter of Unix")


@contextmanager
def limited_file_size(limit: int) -> Iterator[None]:
    """Let no file grow beyond `limit` bytes: writing fails then, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def full_disk() -> Callable[[int], AbstractContextManager[None]]:
    return limited_file_size
