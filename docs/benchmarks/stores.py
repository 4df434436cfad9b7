"""Could obstore or fsspec keep a run's files in place of `geoseg.io.store`? Prints what a run folder needs of a store.

    python -m venv spike && spike/bin/pip install obstore s3fs boto3 "moto[server]"
    spike/bin/python docs/benchmarks/stores.py

It needs an environment of its own: s3fs requires another botocore than boto3 does. The bucket is moto's, on loopback.
Linux with strace tells whether a local write reaches the disk before its name does.
"""

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

RIVALS = 64
"""Clients that create the same object at once; exactly one may win (a run folder's lease)."""

ROUNDS = 20

PART = os.urandom(200_000)
PUTS = 100


def most_winners(create: Callable[[str, bytes], object], taken: type[Exception]) -> int:
    """Return how many of the rivals created the object, at most of some rounds."""

    def wins(name: str) -> bool:
        try:
            create(name, b"1")
        except taken:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        return max(sum(pool.map(wins, [f"lock-{uuid.uuid4()}"] * RIVALS)) for _ in range(ROUNDS))


def milliseconds(put: Callable[[str], object]) -> float:
    """Return the mean time of writing a part."""
    start = time.perf_counter()
    for number in range(PUTS):
        put(f"part-{number}")
    return 1000 * (time.perf_counter() - start) / PUTS


def in_a_process(code: str, *before: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own."""
    command = [*before, sys.executable, "-c", textwrap.dedent(code)]
    plain = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    return subprocess.run(command, env=plain | environment, text=True, capture_output=True, check=False)


def main() -> None:
    """Print one line per question."""
    import boto3
    import fsspec
    import obstore
    from moto.server import ThreadedMotoServer
    from obstore.exceptions import AlreadyExistsError
    from obstore.store import LocalStore, S3Store

    os.environ |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    boto = boto3.client("s3", endpoint_url=endpoint)
    boto.create_bucket(Bucket="bucket")
    bucket = S3Store("bucket", endpoint=endpoint, region="us-east-1", client_options={"allow_http": True})
    s3fs, files = fsspec.filesystem("s3", endpoint_url=endpoint), fsspec.filesystem("file")
    folder = tempfile.mkdtemp()
    local = LocalStore(folder)

    print(f"create if absent, most winners of {RIVALS} in {ROUNDS} rounds (1 is right):")
    rivals: dict[str, tuple[Callable[[str, bytes], object], type[Exception]]] = {
        "obstore, bucket": (lambda name, data: obstore.put(bucket, name, data, mode="create"), AlreadyExistsError),
        "obstore, folder": (lambda name, data: obstore.put(local, name, data, mode="create"), AlreadyExistsError),
        "fsspec, bucket": (lambda name, data: s3fs.pipe_file(f"bucket/{name}", data, mode="create"), FileExistsError),
        "fsspec, folder": (
            lambda name, data: files.pipe_file(f"{folder}/{name}", data, mode="create"),
            FileExistsError,
        ),
    }
    for name, (create, taken) in rivals.items():
        print(f"  {name}: {most_winners(create, taken)}")

    writing = f"import obstore\nfrom obstore.store import LocalStore\nobstore.put(LocalStore({folder!r}), 'part', b'1')"
    if shutil.which("strace"):
        trace = Path(folder) / "trace"
        in_a_process(writing, "strace", "-f", "-e", "trace=fsync,fdatasync,rename", "-o", str(trace))
        calls = [line.split(maxsplit=1)[1].split("(")[0] for line in trace.read_text().splitlines() if "(" in line]
        print(f"obstore, folder, calls: {', '.join(call for call in calls if 'sync' in call or 'rename' in call)}")

    home = Path(tempfile.mkdtemp())
    (home / ".aws").mkdir()
    (home / ".aws" / "credentials").write_text("[team]\naws_access_key_id = a\naws_secret_access_key = b\n")
    options = f"'bucket', endpoint={endpoint!r}, region='us-east-1', client_options={{'allow_http': True}}"
    for how, more in (
        ("by itself", "retry_config={'max_retries': 0}"),
        ("through boto3", "credential_provider=__import__('obstore.auth.boto3').auth.boto3.Boto3CredentialProvider()"),
    ):
        code = f"import obstore\nfrom obstore.store import S3Store\nobstore.put(S3Store({options}, {more}), 'x', b'1')"
        done = in_a_process(code, HOME=str(home), AWS_PROFILE="team")
        print(f"obstore, AWS_PROFILE {how}: {'used' if done.returncode == 0 else 'not used'}")

    print("a part of 200 kB, ms:")
    print(f"  boto3 {milliseconds(lambda name: boto.put_object(Bucket='bucket', Key=name, Body=PART)):.1f}")
    print(f"  obstore {milliseconds(lambda name: obstore.put(bucket, name, PART)):.1f}")
    print(f"  s3fs {milliseconds(lambda name: s3fs.pipe_file(f'bucket/{name}', PART)):.1f}")
    server.stop()


if __name__ == "__main__":
    main()
