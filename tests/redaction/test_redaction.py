"""Secrets of URLs, connections and headers, in texts of every kind and in log lines."""

import json
import logging
import subprocess
import sys
from urllib.parse import quote

import pytest

from geoseg.errors import GeosegError
from geoseg.redaction import redact

SECRET = "hunter2"
QUERIES = (
    "X-Amz-Algorithm=AWS4&X-Amz-Credential=hunter2%2Fus&X-Amz-Security-Token=hunter2%3D&X-Amz-Signature=hunter2",
    "X-Goog-Credential=hunter2@a&X-Goog-Signature=hunter2",
    "AWSAccessKeyId=hunter2&Expires=1700000000&Signature=hunter2%2Bhunter2%3D",
    "GoogleAccessId=hunter2@a&Expires=1&Signature=hunter2",
    "sv=2024-11-04&se=2026-01-01T00:00:00Z&sr=b&sp=r&sig=hunter2%2F%26hunter2%3D",
    "token=hunter2",
    "a=1&access_token=hunter2&b=2",
    "API_KEY=hunter2",
    "apikey=hunter2&z=1",
    "subscription-key=hunter2",
    "key=hunter2hunter2hunter2",
    "user=me&password=hunter2",
    "client_secret=hunter2",
)
URLS = (
    *(f"https://example.com/a.tif?{query}" for query in QUERIES),
    *(f"/vsicurl/https://example.com/a.tif?{query}" for query in QUERIES),
    *(f"/vsicurl?max_retry=3&url={quote(f'https://example.com/a.tif?{query}', safe='')}" for query in QUERIES[:3]),
    "https://me:hunter2@example.com/a.tif",
    "https://hunter2@example.com/a.tif",
    "https://me:hunter2@hunter2@[::1]:8000/a.tif",
    "https:/me:hunter2@example.com/a.tif",
    f"/vsicurl?url={quote('https://me:hunter2@example.com/a.tif', safe='')}",
    "PG:host=example.com user=me password=hunter2 dbname=a",
    "PG:user=me password='hunter2 hunter2' dbname=a",
    "postgresql://me:hunter2@example.com/a",
    "Authorization: Bearer hunter2",
)
TEXTS = (
    "{}",
    "{} cannot be opened as a raster ('{}' not recognized). Check it.",
    '<a href="{}">here</a>',
    "see ({}), {}; {}",
)


@pytest.mark.parametrize("url", URLS)
def test_a_secret_is_in_no_text(url: str) -> None:
    for text in (*TEXTS, json.dumps({"path": "{}"}).replace("{", "{{", 1).replace('"}', '"}}')):
        told = redact(text.format(*[url] * 3))
        assert SECRET not in told
        assert "***" in told
        assert redact(told) == told


@pytest.mark.parametrize(
    "text",
    [
        "https://example.com/a@b.tif?X-Amz-Date=20260101&Expires=1&id=7",
        "https://example.com/download?key=folder/scene.tif",
        "s3://bucket/a:b@c/scene.tif",
        "C:\\images\\a.tif at 10:30",
        "the key=value pairs; `threshold=0.5` is not one of a, b",
        "the weights, such as me@example.com wrote",
        '{"tokens": 7, "sig": 3}',
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


def test_the_punctuation_of_a_sentence_stays() -> None:
    assert redact("(https://a.b/c?sig=hunter2). Next.") == "(https://a.b/c?sig=***). Next."


def test_errors_and_log_lines_hold_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    assert SECRET not in str(GeosegError(URLS[0], rows=[URLS[1]]))
    logging.getLogger("geoseg.scene").warning("%s was read", URLS[0])
    assert SECRET not in caplog.text
    assert "was read" in caplog.text


def test_without_any_handler_warnings_are_shown_once_and_without_secrets() -> None:
    code = f"import logging, geoseg; logging.getLogger('geoseg.scene').warning('read %s', {URLS[0]!r})"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr
    assert SECRET not in said
    assert said.count("read https://example.com") == 1
