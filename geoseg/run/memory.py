"""How much memory a process has taken."""

import sys


def peak_memory_mb() -> float | None:
    """Return the peak resident memory of this process, which holds every worker thread; None where unknown."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6, 1)
