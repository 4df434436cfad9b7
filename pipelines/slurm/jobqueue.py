"""Run each worker as a SLURM job of its own; the scheduler and the client run here, on a login node.

    python jobqueue.py SCENE... --out OUT [any option of `geoseg run`, and those of this script: --help]

A worker's job that is cancelled, preempted or out of time is submitted again as long as there is work. If this script
is stopped (Ctrl-C, or a lost connection: run it in tmux), the same command continues. Requires
`pip install "geoseg[cluster]"`.
"""

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

from dask_jobqueue import SLURMCluster

# --- Change these, here or as options ---------------------------------------------------------------------------------
JOBS = 8  # one worker each; jobs that wait in the queue do not delay the others
CORES = 2  # threads per worker: two to four
MEMORY = "4GB"  # per worker; one with two threads needs about 1.5 GB
WALLTIME = "04:00:00"  # short jobs find gaps in the queue
PARTITION = None
ACCOUNT = None
INTERFACE = None  # network that the login node and the nodes share, such as "ib0"
SCRATCH = os.environ.get("TMPDIR", "/tmp")  # a folder on each node
LOGS = "geoseg-logs"  # logs of the workers
SETUP = [  # shell commands before each worker, such as "module load python/3.11"
    # dask neither spills nor pauses, because the memory of a block is released when it is done.
    *(f"export DASK_DISTRIBUTED__WORKER__MEMORY__{what}=False" for what in ("TARGET", "SPILL", "PAUSE")),
    "export DASK_LOGGING__DISTRIBUTED=warning",
]


def main() -> int:
    """Start the cluster, run geoseg on it, return geoseg's exit code: 0 done, 2 input refused, 3 some blocks failed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends geoseg and the workers' jobs, too
    options, geoseg_options = read_options()
    if not geoseg_options:
        sys.exit("Nothing to run. Give scenes and an --out folder: python jobqueue.py SCENE... --out OUT")
    with open_cluster(options) as cluster:
        # Not scale(jobs=...): only adapt() resubmits a job that was cancelled or ran out of time.
        cluster.adapt(minimum_jobs=options.jobs, maximum_jobs=options.jobs)
        print(f"Scheduler {cluster.scheduler_address}, dashboard {cluster.dashboard_link}", file=sys.stderr)
        geoseg = [sys.executable, "-m", "geoseg", "run", *geoseg_options, "--scheduler", cluster.scheduler_address]
        return subprocess.run(geoseg, check=False).returncode


def open_cluster(options: argparse.Namespace) -> SLURMCluster:
    """A scheduler in this process; no job is submitted yet."""
    seconds = walltime_s(options.walltime)
    return SLURMCluster(
        cores=options.cores,
        processes=1,
        memory=options.memory,
        walltime=options.walltime,
        queue=options.partition,
        account=options.account,
        interface=options.interface,
        local_directory=SCRATCH,
        log_directory=str(Path(LOGS).resolve()),
        job_name="geoseg-worker",
        job_script_prologue=SETUP,
        # Workers stop shortly before SLURM would kill them, not all at once, and return their blocks.
        worker_extra_args=["--lifetime", f"{0.9 * seconds:.0f}s", "--lifetime-stagger", f"{0.05 * seconds:.0f}s"],
        scheduler_options={"dashboard_address": ":0"},
    )


def walltime_s(text: str) -> int:
    """Return the seconds of SLURM's [days-]hours:minutes:seconds."""
    days, _, clock = text.rpartition("-")
    hours, minutes, seconds = (int(part) for part in clock.split(":"))
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def read_options() -> tuple[argparse.Namespace, list[str]]:
    """Return this script's options, and everything else, which is geoseg's."""
    parser = argparse.ArgumentParser(usage=__doc__, allow_abbrev=False)
    parser.add_argument("--jobs", type=int, default=JOBS)
    parser.add_argument("--cores", type=int, default=CORES)
    parser.add_argument("--memory", default=MEMORY)
    parser.add_argument("--walltime", default=WALLTIME)
    parser.add_argument("--partition", default=PARTITION)
    parser.add_argument("--account", default=ACCOUNT)
    parser.add_argument("--interface", default=INTERFACE)
    return parser.parse_known_args()


if __name__ == "__main__":
    sys.exit(main())
