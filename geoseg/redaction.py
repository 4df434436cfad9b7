"""Passwords, signatures and tokens in URLs, left out of every text that geoseg shows, logs or writes.

Errors (`geoseg.errors`), the loggers below `geoseg`, and files of text (`geoseg.io.aside`, the ledger of a run) pass
through here; whoever asks a server keeps the whole URL.
"""

import logging
import re

HIDDEN = "***"

NAMES = (
    r"x-(?:amz|goog|ms)-(?:signature|credential|security-token)|awsaccesskeyid|googleaccessid|signature|sig|"
    r"[\w.-]*(?:token|secret|passw(?:or)?d|pwd|api[_-]?key|access[_-]?key|subscription-key)[\w.-]*|"
    r"(?:key|auth|code)(?=(?:=|%3D)[\w-]{16})"
)
"""Parameters of signed URLs (S3, Google, Azure) and of APIs. `key=` may also name a file, which has a suffix."""

END = r"(?=[).,:;]*(?:[&\s\"'<>#\\]|$))"
"""Where a value in a text ends: before the punctuation of a sentence."""

SECRETS = (
    # user:password@ of a URL, which may have lost a slash to `Path`, or be a value in another one
    (re.compile(r"(:/{1,2})[^/\s?#\"'<>]+@"), rf"\1{HIDDEN}@"),
    (re.compile(r"(%3A%2F%2F)(?:(?!%2F)[^\s\"'<>&])+?%40", re.IGNORECASE), rf"\1{HIDDEN}%40"),
    (re.compile(rf"([?&;](?:{NAMES})=)[^&\s\"'<>#\\]*?{END}", re.IGNORECASE), rf"\1{HIDDEN}"),
    (
        re.compile(rf"((?:%3F|%26)(?:{NAMES})%3D)(?:(?!%26)[^&\s\"'<>#\\])*?(?=%26|{END[3:]}", re.IGNORECASE),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"(?<![\w/.-])([\w.-]+:)[^\s/@'\"]+@(?=[\w\[])"), rf"\1{HIDDEN}@"),  # of what was a URL
    # GDAL's connections to databases, and headers
    (re.compile(r"\b(passw(?:or)?d|pwd)=(?:'[^']*'|[^\s&'\"*]+)", re.IGNORECASE), rf"\1={HIDDEN}"),
    (re.compile(r"(authorization: *\w+ +)[^\s\"']+", re.IGNORECASE), rf"\1{HIDDEN}"),
)


def redact(text: str) -> str:
    """Return a text with `***` in place of the secrets of URLs, connections and headers."""
    for pattern, put in SECRETS:
        text = pattern.sub(put, text)
    return text


class RedactingHandler(logging.Handler):
    """Takes secrets out of the lines of a logger before the handlers of its parents see them."""

    def emit(self, record: logging.LogRecord) -> None:
        """Change the record; show it as Python does where no one else handles it."""
        record.msg, record.args = redact(record.getMessage()), ()
        others = [one for one in (*log.handlers, *logging.getLogger().handlers) if one is not self]
        if not others and logging.lastResort is not None and record.levelno >= logging.lastResort.level:
            logging.lastResort.handle(record)


log = logging.getLogger("geoseg")
log.addHandler(RedactingHandler())
