"""The manifests of pipelines/kubernetes are such as Kubernetes, the dask operator, dask and geoseg take."""

import copy
import json
import re
import socket
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer
import yaml
from jsonschema import Draft202012Validator

from geoseg.cli import app

Manifest = dict[str, Any]

KUBERNETES = Path(__file__).resolve().parents[2] / "pipelines" / "kubernetes"
OLDEST = "1.31"  # the first in which a Job's podFailurePolicy is stable, as README.md there says
NOT_ROOT = 10001

# The outer shape of a DaskCluster, of dask-kubernetes 2026.3:
# https://github.com/dask/dask-kubernetes/blob/main/dask_kubernetes/operator/customresources/templates.yaml
# Its pod and service specifications are Kubernetes' own, see `as_the_operator_makes_them`.
DASK_CLUSTER = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "kubernetes.dask.org/v1"},
        "kind": {"const": "DaskCluster"},
        "metadata": {"type": "object", "required": ["name"], "properties": {"name": {"pattern": "^[a-z][-a-z0-9]*$"}}},
        "spec": {
            "type": "object",
            "required": ["scheduler", "worker"],
            "additionalProperties": False,
            "properties": {
                "idleTimeout": {"type": "integer"},
                "worker": {
                    "type": "object",
                    "required": ["spec"],
                    "additionalProperties": False,
                    "properties": {"replicas": {"type": "integer"}, "metadata": {}, "spec": {"type": "object"}},
                },
                "scheduler": {
                    "type": "object",
                    "required": ["spec", "service"],
                    "additionalProperties": False,
                    "properties": {"metadata": {}, "spec": {"type": "object"}, "service": {"type": "object"}},
                },
            },
        },
    },
}


@pytest.fixture(params=["base", "gpu"])
def manifests(request: pytest.FixtureRequest) -> dict[str, Manifest]:
    """The manifests that `kubectl apply -k` sends, by kind."""
    return build(KUBERNETES / request.param)


def build(folder: Path) -> dict[str, Manifest]:
    """Do what kustomize does with our kustomizations: resources, those of other folders, patches."""
    plan = yaml.safe_load((folder / "kustomization.yaml").read_text())
    found: dict[str, Manifest] = {}
    for name in plan["resources"]:
        path = folder / name
        found |= build(path) if path.is_dir() else {m["kind"]: m for m in [yaml.safe_load(path.read_text())]}
    for patch in plan.get("patches", []):
        apply_patch(found[patch["target"]["kind"]], yaml.safe_load((folder / patch["path"]).read_text()))
    return found


def apply_patch(manifest: Manifest, operations: list[dict[str, Any]]) -> None:
    """Apply `add` and `replace` of a JSON patch (RFC 6902) in place."""
    for operation in operations:
        *parents, last = operation["path"].strip("/").split("/")
        place: Any = manifest
        for step in parents:
            place = place[int(step) if isinstance(place, list) else step]
        if isinstance(place, list):
            assert (operation["op"], last) == ("add", "-")
            place.append(operation["value"])
            continue
        assert (operation["op"] == "replace") == (last in place), f"{operation['op']} {operation['path']}"
        place[last] = operation["value"]


def as_the_operator_makes_them(cluster: Manifest) -> list[Manifest]:
    """Return what the operator makes of a DaskCluster: controller.py, build_*_spec, beside DASK_CLUSTER's source."""
    name, spec = cluster["metadata"]["name"], cluster["spec"]
    names = {"scheduler": f"{name}-scheduler", "worker": f"{name}-default-worker-0123456789"}
    made = [
        deployment(names[part], {"dask.org/cluster-name": name, "dask.org/component": part}, spec[part]["spec"])
        for part in ("scheduler", "worker")
    ]
    made[1]["spec"]["template"]["spec"]["containers"][0]["env"] += [
        {"name": "DASK_WORKER_NAME", "value": names["worker"]},
        {"name": "DASK_SCHEDULER_ADDRESS", "value": f"tcp://{names['scheduler']}.geoseg.svc.cluster.local:8786"},
    ]
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": names["scheduler"]}}
    return [*made, service | {"spec": spec["scheduler"]["service"]}]


def deployment(name: str, labels: dict[str, str], pod: Manifest) -> Manifest:
    metadata = {"name": name, "labels": labels}
    template = {"metadata": metadata, "spec": copy.deepcopy(pod)}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


def everything(manifests: dict[str, Manifest]) -> list[Manifest]:
    own = [m for kind, m in manifests.items() if kind != "DaskCluster"]
    return own + as_the_operator_makes_them(manifests["DaskCluster"])


def pods(manifests: dict[str, Manifest]) -> list[Manifest]:
    spec = manifests["DaskCluster"]["spec"]
    return [spec["worker"]["spec"], spec["scheduler"]["spec"], manifests["Job"]["spec"]["template"]["spec"]]


def container(pod: Manifest) -> Manifest:
    (only,) = pod["containers"]
    return dict(only)


@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
def test_every_object_satisfies_kubernetes_own_schema(manifests: dict[str, Manifest], version: str) -> None:
    for manifest in everything(manifests):
        kubernetes_validate.validate(manifest, version, strict=True)


def test_the_dask_cluster_has_the_operators_shape(manifests: dict[str, Manifest]) -> None:
    Draft202012Validator(DASK_CLUSTER).validate(manifests["DaskCluster"])


def test_a_misspelt_field_is_found(manifests: dict[str, Manifest]) -> None:
    pod = manifests["DaskCluster"]["spec"]["worker"]["spec"]
    pod["containers"][0]["resource"] = pod["containers"][0].pop("resources")
    _, worker, _ = as_the_operator_makes_them(manifests["DaskCluster"])
    with pytest.raises(kubernetes_validate.ValidationError, match="resource"):
        kubernetes_validate.validate(worker, OLDEST, strict=True)


def test_the_client_finds_the_scheduler(manifests: dict[str, Manifest]) -> None:
    _, _, service = as_the_operator_makes_them(manifests["DaskCluster"])
    scheduler, _, _ = as_the_operator_makes_them(manifests["DaskCluster"])
    (port,) = [p for p in service["spec"]["ports"] if p["name"] == "tcp-comm"]
    listening = container(manifests["DaskCluster"]["spec"]["scheduler"]["spec"])["ports"]
    address = f"--scheduler=tcp://{service['metadata']['name']}:{port['port']}"
    assert address in container(manifests["Job"]["spec"]["template"]["spec"])["args"]
    assert service["spec"]["selector"].items() <= scheduler["metadata"]["labels"].items()
    assert {p["targetPort"] for p in service["spec"]["ports"]} == {p["name"] for p in listening}


def test_what_pods_refer_to_is_there(manifests: dict[str, Manifest]) -> None:
    for pod in pods(manifests):
        only = container(pod)
        wanted = {v["valueFrom"]["secretKeyRef"]["key"] for v in only.get("env", [])}
        assert wanted <= set(manifests["Secret"]["stringData"])
        assert [e["configMapRef"]["name"] for e in only["envFrom"]] == [manifests["ConfigMap"]["metadata"]["name"]]
        assert {m["name"] for m in only["volumeMounts"]} == {v["name"] for v in pod["volumes"]}


def test_scheduler_workers_and_client_are_one_image_that_is_not_root(manifests: dict[str, Manifest]) -> None:
    assert len({container(pod)["image"] for pod in pods(manifests)}) == 1
    assert {pod["securityContext"]["runAsUser"] for pod in pods(manifests)} == {NOT_ROOT}


def test_workers_are_told_the_resources_they_have(manifests: dict[str, Manifest]) -> None:
    worker = container(manifests["DaskCluster"]["spec"]["worker"]["spec"])
    told = dict(arg.split("=", 1) for arg in worker["args"] if "=" in arg)
    limits = worker["resources"]["limits"]
    assert told["--nthreads"] == limits["cpu"]
    # Nanny and worker share the container: dask must act before the kernel does.
    assert 0.8 < mebibytes(told["--memory-limit"]) / mebibytes(limits["memory"]) < 0.95


def mebibytes(text: str) -> float:
    number, unit = re.fullmatch(r"(\d+)([MG])iB?", text).groups()  # type: ignore[union-attr]  # None fails the test
    return int(number) * (1024 if unit == "G" else 1)


def test_commands_are_such_as_dask_and_geoseg_take(manifests: dict[str, Manifest]) -> None:
    from distributed.cli import dask_scheduler, dask_worker

    geoseg = typer.main.get_command(app)
    parsers = {
        ("dask", "worker"): dask_worker.main,
        ("dask", "scheduler"): dask_scheduler.main,
        ("geoseg", "run"): geoseg.commands["run"],  # type: ignore[attr-defined]  # it is a group
    }
    for pod in pods(manifests):
        program, command, *options = container(pod)["args"]
        parsers.pop((program, command)).make_context(command, options)  # raises UsageError for an unknown option
    assert not parsers


@pytest.mark.slow
def test_the_pods_commands_work_together_from_bucket_to_bucket(
    environment: dict[str, str], tmp_path: Path, repository: Path
) -> None:
    """Scheduler, worker and client as processes of this machine, with the pods' own arguments and environment."""
    boto3 = pytest.importorskip("boto3")
    moto = pytest.importorskip("moto.server")
    manifests = build(KUBERNETES / "base")
    worker, scheduler, client = (container(pod)["args"] for pod in pods(manifests))
    port = free_port()
    # What a cluster gives: names of hosts and workers, a scratch volume, the bucket's place and keys.
    given = {"geoseg-scheduler:8786": f"127.0.0.1:{port}", "--port=8786": f"--port={port}", ":8787": ":0"}
    given |= {"/scratch": str(tmp_path), "$(DASK_WORKER_NAME)": "worker-1"}
    pod = environment | {name: fill_in(value, given) for name, value in manifests["ConfigMap"]["data"].items()}
    pod |= {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_HTTPS": "NO"}
    # The network as this machine has prepared it before: seconds less.
    pod["HOME"] = str(Path.home())
    del pod["GEOSEG_CACHE_DIR"]
    pod["DASK_SCHEDULER_ADDRESS"] = f"tcp://127.0.0.1:{port}"
    server = moto.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        pod |= {"AWS_S3_ENDPOINT": "{}:{}".format(*server.get_host_and_port()), "AWS_VIRTUAL_HOSTING": "FALSE"}
        keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": pod["AWS_REGION"]}
        s3 = boto3.client("s3", endpoint_url=f"http://{pod['AWS_S3_ENDPOINT']}", **keys)
        place = {"LocationConstraint": pod["AWS_REGION"]}
        s3.create_bucket(Bucket="bucket", CreateBucketConfiguration=place)
        s3.upload_file(str(repository / "sample_data" / "scene.tif"), "bucket", "scenes/scene.tif")
        with (
            running([fill_in(arg, given) for arg in scheduler], pod, tmp_path),
            running([fill_in(arg, given) for arg in worker], pod, tmp_path),
        ):
            subprocess.run([fill_in(arg, given) for arg in client], env=pod, cwd=tmp_path, check=True, timeout=240)
        found = [item["Key"] for item in s3.list_objects_v2(Bucket="bucket", Prefix="results/")["Contents"]]
        report = json.loads(s3.get_object(Bucket="bucket", Key="results/2026-11/run.json")["Body"].read())
    finally:
        server.stop()
    wanted = ("buildings.gpkg", "buildings.parquet", "mask.tif", "probability.tif", "run.json")
    assert {f"results/2026-11/{name}" for name in wanted} <= set(found)
    assert not [name for name in found if "/.geoseg/" in name]
    assert report["settings"]["scheduler"] == f"tcp://127.0.0.1:{port}"
    assert report["peak_memory_mb"] < report["worker_peak_memory_mb"]  # the worker had the network, not the client


def fill_in(text: str, given: dict[str, str]) -> str:
    for name, value in given.items():
        text = text.replace(name, value)
    return text


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def running(command: list[str], environment: dict[str, str], folder: Path) -> Iterator[None]:
    with (folder / f"{command[1]}.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def test_the_image_has_all_that_the_package_is_built_of() -> None:
    repository = KUBERNETES.parents[1]
    project = tomllib.loads((repository / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    needed |= {*wheel["packages"], *wheel["force-include"]}
    steps = [line.split() for line in (KUBERNETES / "Dockerfile").read_text().splitlines()]
    copied = {name for step in steps if step[:1] == ["COPY"] and "--from=build" not in step for name in step[1:-1]}
    assert copied == needed
    assert all((repository / name).exists() for name in copied)
    assert [step[1] for step in steps if step[:1] == ["USER"]] == [str(NOT_ROOT)]
