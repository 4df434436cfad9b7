"""What the command line changes in its process is put back."""

import logging
import signal
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _own_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give every test the process as it was: log levels and handlers, the signal's handler, the environment."""
    root = logging.getLogger()
    loggers = [root, *(each for each in root.manager.loggerDict.values() if isinstance(each, logging.Logger))]
    levels, handlers = {each: each.level for each in loggers}, list(root.handlers)
    on_term = signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    yield
    signal.signal(signal.SIGTERM, on_term)
    root.handlers[:] = handlers
    for each in root.manager.loggerDict.values():
        if isinstance(each, logging.Logger):
            each.setLevel(levels.get(each, logging.NOTSET))
