"""The jobs of pipelines/slurm on a SLURM of one node, started here: cancelled midway, given again, the same result."""

import getpass
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

JOBS = Path(__file__).resolve().parents[2] / "pipelines" / "slurm"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "scontrol", "squeue")
SBIN = "/usr/sbin:/sbin"
PATIENCE_S = 240
AT_LEAST_DONE = 2
"""Blocks finished before a job is cancelled."""

CONFIGURATION = """
ClusterName=geoseg
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=2
KillWait=10
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=16000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True)
class Slurm:
    """A SLURM of one node with two cores."""

    environment: dict[str, str]

    def call(self, *command: str | Path, cwd: Path | None = None) -> str:
        """Run one of its commands."""
        done = subprocess.run(
            [str(part) for part in command], env=self.environment, cwd=cwd, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout.strip()

    def submit(self, folder: Path, *command: str | Path) -> str:
        """Submit a batch job from a folder and return its id."""
        return self.call("sbatch", "--parsable", *command, cwd=folder)

    def state(self, job: str) -> str:
        """Return a job's state, such as RUNNING; of an array, those of its tasks."""
        return " ".join(re.findall(r"JobState=(\w+)", self.call("scontrol", "show", "job", job)))

    def wait(self, job: str) -> str:
        """Wait until a job and all its processes have ended; return its state."""
        return until(lambda: "" if "ING" in (state := self.state(job)) else state, f"the end of job {job}")

    def running(self, name: str) -> list[str]:
        """Return the ids of running jobs of a name."""
        return self.call("squeue", "--noheader", "--format=%i", f"--name={name}", "--states=RUNNING").split()


def until(look: Callable[[], str], what: str) -> str:
    """Look again and again until there is something to see."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if seen := look():
            return seen
        time.sleep(0.05)
    raise AssertionError(f"{what}: nothing after {PATIENCE_S} s")


@pytest.fixture(scope="module")
def slurm(environment: dict[str, str]) -> Iterator[Slurm]:
    """A SLURM; the gate requires one, a laptop may do without."""
    path = f"{environment['PATH']}:{SBIN}"
    missing = [program for program in PROGRAMS if shutil.which(program, path=path) is None]
    if missing and os.environ.get("GEOSEG_REQUIRE_SLURM") == "1":
        pytest.fail(f"no {', '.join(missing)}: apt-get install slurmctld slurmd slurm-client munge")
    if missing:
        pytest.skip(f"no {', '.join(missing)}: apt-get install slurmctld slurmd slurm-client munge")
    # Not in tmp_path: munge wants every folder above its socket open to all, and the path short.
    with tempfile.TemporaryDirectory(prefix="geoseg-slurm-", dir="/tmp") as name, ExitStack() as stack:
        yield _start(Path(name), environment | {"PATH": path}, stack)


def _start(folder: Path, environment: dict[str, str], stack: ExitStack) -> Slurm:
    folder.chmod(0o755)
    host, ports = socket.gethostname().partition(".")[0], (_free_port(), _free_port())
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "key").touch(mode=0o600)
    (folder / "key").write_bytes(os.urandom(128))
    configuration = folder / "slurm.conf"
    configuration.write_text(CONFIGURATION.format(host=host, ports=ports, user=getpass.getuser(), folder=folder))
    munge = {"key-file": "key", "socket": "munge.socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    stack.enter_context(
        _daemon(["munged", "--foreground", *(f"--{o}={folder / f}" for o, f in munge.items())], environment, folder)
    )
    until(lambda: "there" if (folder / "munge.socket").exists() else "", "munge's socket")
    found = Slurm(environment | {"SLURM_CONF": str(configuration)})
    stack.enter_context(_daemon(["slurmctld", "-D"], found.environment, folder))
    stack.enter_context(_daemon(["slurmd", "-D"], found.environment, folder))
    stack.callback(_cancel_everything, found)
    until(lambda: "idle" if "idle" in _node_state(found) else "", "an idle node")
    return found


def _cancel_everything(slurm: Slurm) -> None:
    """Leave no job behind, whatever a test left: without slurmd its processes would go on."""
    slurm.call("scancel", f"--user={getpass.getuser()}")
    until(lambda: "" if slurm.call("squeue", "--noheader") else "empty", "an empty queue")


def _node_state(slurm: Slurm) -> str:
    asked = subprocess.run(["sinfo", "-h", "-o", "%T"], env=slurm.environment, capture_output=True, text=True)
    return asked.stdout


@contextmanager
def _daemon(command: list[str], environment: dict[str, str], folder: Path) -> Iterator[None]:
    with (folder / f"{command[0]}.out").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def parts(out: Path) -> dict[str, int]:
    """Return the finished blocks of a run that goes on, and when each was written."""
    return {part.name: part.stat().st_mtime_ns for part in out.rglob("parts/r*.npz")}


def wait_for_parts(out: Path, at_least: int) -> dict[str, int]:
    seen: dict[str, int] = {}

    def look() -> str:
        seen.update(parts(out))
        return "yes" if len(seen) >= at_least else ""

    until(look, f"{at_least} finished blocks")
    return seen


@pytest.mark.slow
def test_a_batch_job_that_is_cancelled_and_given_again_ends_in_the_plain_result(
    slurm: Slurm, tmp_path: Path, scene: Path, assert_same_as_plain: Callable[[Path], None], block_px: int
) -> None:
    out = tmp_path / "out"
    # Two workers of one thread each; the script itself as it is.
    size = ["--ntasks=2", "--cpus-per-task=1", "--mem-per-cpu=4G"]
    command = [*size, JOBS / "geoseg.sbatch", scene, "--out", out, "--block-px", str(block_px)]
    job = slurm.submit(tmp_path, *command)
    wait_for_parts(out, AT_LEAST_DONE)
    slurm.call("scancel", job)
    assert slurm.wait(job) == "CANCELLED"
    done = parts(out)
    assert len(done) >= AT_LEAST_DONE
    assert not (out / "run.json").exists()
    assert f"stopped, {len(done)} of 9 blocks done" in slurm.call("geoseg", "status", out)

    job = slurm.submit(tmp_path, *command)
    assert wait_for_parts(out, len(done) + 1).items() >= done.items()
    assert slurm.wait(job) == "COMPLETED", (tmp_path / f"geoseg-{job}.log").read_text()
    counts = json.loads((out / "run.json").read_text())["counts"]
    assert counts["blocks_done_before"] == len(done) < counts["blocks"]
    assert_same_as_plain(out)
    assert not list(tmp_path.glob(".geoseg-*.json"))


@pytest.mark.slow
def test_workers_as_jobs_of_their_own_end_in_the_plain_result_though_one_is_cancelled(
    slurm: Slurm, tmp_path: Path, scene: Path, assert_same_as_plain: Callable[[Path], None], block_px: int
) -> None:
    out = tmp_path / "out"
    size = ["--jobs", "2", "--cores", "1", "--memory", "4GB", "--interface", "lo"]
    command = [sys.executable, JOBS / "jobqueue.py", *size, scene, "--out", out, "--block-px", str(block_px)]
    with subprocess.Popen(
        command, env=slurm.environment, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as client:
        try:
            wait_for_parts(out, 1)
            until(lambda: "two" if len(slurm.running("geoseg-worker")) == 2 else "", "two jobs")
            cancelled, _ = slurm.running("geoseg-worker")
            slurm.call("scancel", cancelled)
            _, said = client.communicate(timeout=PATIENCE_S)
        finally:
            client.terminate()
    assert client.returncode == 0, said
    assert slurm.wait(cancelled) == "CANCELLED"
    assert_same_as_plain(out)
    until(lambda: "" if slurm.running("geoseg-worker") else "gone", "the end of the workers' jobs")


@pytest.mark.slow
def test_an_array_job_gives_every_scene_of_a_list_its_own_result(
    slurm: Slurm, tmp_path: Path, repository: Path
) -> None:
    (tmp_path / "scenes.txt").write_text(f"{repository / 'sample_data' / 'scene.tif'}\n\n{tmp_path / 'missing.tif'}\n")
    size = ["--array=1-2", "--cpus-per-task=1", "--mem-per-cpu=4G"]
    job = slurm.submit(tmp_path, *size, JOBS / "array.sbatch", "scenes.txt", tmp_path / "out")
    slurm.wait(job)
    assert sorted(slurm.state(job).split()) == ["COMPLETED", "FAILED"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["scene"]
    assert (tmp_path / "out" / "scene" / "buildings.gpkg").exists()
    assert "missing.tif" in (tmp_path / f"geoseg-{job}_2.log").read_text()


def test_a_job_without_scenes_says_how_it_is_used(slurm: Slurm, tmp_path: Path) -> None:
    job = slurm.submit(tmp_path, "--ntasks=1", "--cpus-per-task=1", "--mem-per-cpu=1G", JOBS / "geoseg.sbatch")
    assert slurm.wait(job) == "FAILED"
    assert "usage: sbatch geoseg.sbatch SCENE" in (tmp_path / f"geoseg-{job}.log").read_text()
