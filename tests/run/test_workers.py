"""Workers that were started in other folders, or see other files than the client."""

import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from geoseg.errors import ClusterError
from geoseg.run import job as job_module
from geoseg.run.job import Job, run_block
from geoseg.run.report import Stages
from geoseg.run.session import open_session
from geoseg.run.settings import RunSettings


@pytest.fixture
def job(place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Job]:
    """The job of a run that was started with relative paths, as a worker in another folder has it."""
    (tmp_path / "client").mkdir()
    (tmp_path / "worker").mkdir()
    shutil.copy(place.scene, tmp_path / "client" / "scene.tif")
    monkeypatch.chdir(tmp_path / "client")
    settings = RunSettings(out="out", scheduler="tcp://elsewhere", block_px=100)
    session = open_session(place.plan("scene.tif"), place.actors.make_bundle("0"), settings, Stages(), 1)
    assert session is not None
    monkeypatch.chdir(tmp_path / "worker")
    monkeypatch.setattr(job_module, "_checked", type(job_module._checked)())
    yield pickle.loads(pickle.dumps(session.job))
    monkeypatch.chdir(tmp_path / "client")
    session.close()


def test_a_worker_in_another_folder_reads_and_writes_where_the_client_does(job: Job, tmp_path: Path) -> None:
    (tmp_path / "worker" / "scene.tif").write_bytes(b"an older copy, say")
    run_block(job, job.blocks()[0])
    assert len(job.ledger.done()) == 1
    assert list((tmp_path / "client" / "out" / ".geoseg").glob("*/parts/*.npz"))
    assert not (tmp_path / "worker" / "out").exists()


def test_a_worker_that_sees_another_file_under_the_path_says_which(job: Job, tmp_path: Path) -> None:
    scene = tmp_path / "client" / "scene.tif"
    kept = scene.stat().st_mtime_ns
    os.utime(scene, ns=(1, kept - 10**10))
    with pytest.raises(ClusterError, match=r"other files than the client at .*client/scene\.tif: scene\.tif differs"):
        run_block(job, job.blocks()[0])
    os.utime(scene, ns=(1, kept // 10**9 * 10**9))  # a mount that cuts times to the second
    run_block(job, job.blocks()[0])


def test_a_worker_that_does_not_see_the_scene_says_that(job: Job, tmp_path: Path) -> None:
    scene = tmp_path / "client" / "scene.tif"
    scene.rename(tmp_path / "client" / "away.tif")
    with pytest.raises(ClusterError, match=r"scene\.tif is missing\. Put the scene into a folder that all machines"):
        run_block(job, job.blocks()[0])
    assert not job.ledger.done()
