"""Mutations of files: of bytes, of text, of JSON, of XML and of TIFF directories. All chance comes from a `Random`."""

import copy
import json
import math
import re
import struct
from collections.abc import Iterator
from random import Random
from typing import Any
from xml.etree import ElementTree

NUMBERS = (0, -1, 1, 2, 7, 127, 128, 255, 256, 32767, 65535, 65536, 10**6, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64)
WORDS = (
    *(
        "",
        " ",
        "\0",
        "-",
        "0",
        "-1",
        "1e308",
        "1e-320",
        "nan",
        "inf",
        "-inf",
        "null",
        "None",
        "true",
        "[]",
        "{}",
        "x" * 5000,
    ),
    *(
        "../..",
        "/",
        ".",
        "~",
        "/dev/null",
        "no such file.tif",
        "*",
        "a,b",
        "a;b\n",
        "\u202e\ufffd",
        "\ud83c\udfe0",
        "<a>",
        "&amp;",
    ),
    *(
        "2023-02-30",
        "EPSG:32630",
        "EPSG:0",
        "EPSG:4979",
        'LOCAL_CS["a"]',
        "+proj=longlat",
        "+proj=nosuch",
        "https",
        "s3",
    ),
)
DEEP = "@deep"
"""Stands for lists that are deeper than Python's stack."""

VALUES = (
    *(None, True, False, 0, -1, 1, 2, 0.5, -0.5, 1e-9, 1e9, 1e308, -1e308, math.nan, math.inf, -math.inf, 5e-324),
    *(2**31, 2**63, 2**64, 10**400, *WORDS, [], {}, [None], [[]], {"": {}}, ["a", 1], [1e308, math.nan]),
)
"""What a value of JSON or TOML may become."""


def change_bytes(rng: Random, data: bytes, others: tuple[bytes, ...] = ()) -> bytes:
    """Flip, overwrite, cut out, repeat, insert and cut off bytes, or go on with those of another file."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(out) + 1) if rng.random() < 0.5 else rng.randrange(min(len(out), 512) + 1)
        length = rng.choice((1, 2, 4, 8, 64, 1024))
        match rng.randrange(8):
            case 0:
                out[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                size, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "big"))
                out[at : at + size] = (rng.choice(NUMBERS) % 256**size).to_bytes(size, order)
            case 2:
                del out[at : at + length]
            case 3:
                out[at:at] = out[at : at + length] * rng.choice((1, 2, 50))
            case 4:
                out[at:at] = rng.randbytes(length)
            case 5:
                out[at : at + length] = bytes([rng.choice((0, 255))]) * length
            case 6:
                other = rng.choice(others or (data,))
                out[at:] = other[at:]
            case 7:
                del out[at:]
    return bytes(out)


def change_text(rng: Random, text: str) -> str:
    """Put another number, word or piece of the text where one is, or leave a line out, repeat or move it."""
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        lines = text.splitlines(keepends=True)
        spans = [match.span() for match in re.finditer(r"-?\d[\d.e+-]*|\"[^\"\n]*\"|[A-Za-z_]\w*|[^\w\s]", text)]
        if not lines or not spans:
            return text + rng.choice(WORDS)
        start, end = rng.choice(spans)
        other = rng.choice(spans)
        row = rng.randrange(len(lines))
        match rng.randrange(6):
            case 0:
                text = text[:start] + str(rng.choice(NUMBERS)) + text[end:]
            case 1:
                text = text[:start] + rng.choice(WORDS) + text[end:]
            case 2:
                text = text[:start] + text[slice(*other)] + text[end:]
            case 3:
                text = "".join(lines[:row] + lines[row + 1 :])
            case 4:
                text = "".join(lines[: row + 1] + lines[row:] * rng.choice((1, 1, 20)))
            case 5:
                rng.shuffle(lines)
                text = "".join(lines)
    return text


def change_value(rng: Random, value: Any) -> Any:
    """Change a document of tables and lists in one or a few places; the document itself stays as it is."""
    document = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        places = list(_places(document))
        if not places:
            return rng.choice(VALUES)
        parent, key = rng.choice(places)
        match rng.randrange(8):
            case 0:
                del parent[key]
            case 1:
                parent[key] = copy.deepcopy(rng.choice(list(_places(value)))[0])
            case 2 if isinstance(parent, dict):
                parent[rng.choice(WORDS)] = parent.pop(key)
            case 3 if isinstance(parent, list):
                parent.extend([copy.deepcopy(parent[key])] * rng.choice((1, 300)))
            case 4:
                parent[key] = DEEP
            case 5 if isinstance(parent[key], int | float) and not isinstance(parent[key], bool):
                number = parent[key] if abs(parent[key]) < 1e300 else 1.0
                parent[key] = rng.choice((-number, number * 1e6, number + 0.5, str(number)))
            case _:
                parent[key] = copy.deepcopy(rng.choice(VALUES))
    return document


def change_json(rng: Random, data: bytes) -> bytes:
    """Change a value of a JSON file."""
    return dump_json(change_value(rng, json.loads(data)))


def dump_json(document: Any) -> bytes:
    """Return JSON, in which `DEEP` is a list in a list in a list."""
    return deepen(json.dumps(document)).encode()


def deepen(text: str) -> str:
    """Return JSON or TOML in which `DEEP` is a list in a list in a list."""
    return text.replace(f'"{DEEP}"', "[" * 3000 + "]" * 3000)


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    pending, seen = [document], 0
    while pending and seen < 5000:
        parent = pending.pop()
        keys = list(parent) if isinstance(parent, dict) else range(len(parent)) if isinstance(parent, list) else ()
        for key in keys:
            seen += 1
            yield parent, key
            pending.append(parent[key])


def change_xml(rng: Random, data: bytes, words: tuple[str, ...] = ()) -> bytes:
    """Change texts, attributes and elements of an XML file."""
    root = ElementTree.fromstring(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        elements = list(root.iter())
        element, other = rng.choice(elements), rng.choice(elements)
        word = rng.choice((*words, *map(str, NUMBERS), *(word for word in WORDS if "\0" not in word)))
        match rng.randrange(7):
            case 0:
                element.text = word
            case 1 if element.attrib:
                element.set(rng.choice(list(element.attrib)), word)
            case 2 if element.attrib:
                del element.attrib[rng.choice(list(element.attrib))]
            case 3 if len(element):
                del element[rng.randrange(len(element))]
            case 4:
                element.extend([copy.deepcopy(other)] * rng.choice((1, 1, 30)))
            case 5:
                element.tag = other.tag
            case _:
                element.text = other.text
    return ElementTree.tostring(root)


def change_tiff(rng: Random, data: bytes, others: tuple[bytes, ...] = ()) -> bytes:
    """Change entries of a TIFF's directories, and the links between these."""
    order = "<" if data[:2] == b"II" else ">"
    is_big = struct.unpack_from(f"{order}H", data, 2) == (43,)
    head, entry, link = ("Q", "HHQQ", "Q") if is_big else ("H", "HHII", "I")
    out, places, links = bytearray(data), [], [8 if is_big else 4]
    offset = struct.unpack_from(f"{order}{link}", data, links[0])[0]
    while offset and len(links) < 20:
        count = struct.unpack_from(f"{order}{head}", data, offset)[0]
        first = offset + struct.calcsize(f"{order}{head}")
        size = struct.calcsize(f"{order}{entry}")
        places += [first + number * size for number in range(count)]
        links.append(first + count * size)
        offset = struct.unpack_from(f"{order}{link}", data, links[-1])[0]
    for _ in range(rng.choice((1, 1, 2, 3))):
        number = rng.choice((*NUMBERS, len(data), len(data) - 1, *places, rng.randrange(len(data))))
        place = rng.choice(places)
        tag, kind, count, value = struct.unpack_from(order + entry, data, place)
        word, field = (2**64 if is_big else 2**32), rng.randrange(8)
        if field == 0:
            tag = rng.choice(
                (254, 256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 322, 323, 324, 325, 33550, 34735)
            )
        elif field == 1:
            kind = rng.choice((0, 1, 2, 3, 4, 5, 11, 12, 13, 16, 17, 18, 65535))
        elif field == 2:
            count = rng.choice((number, count + 1, count - 1, count * 2)) % word
        elif field == 3:
            struct.pack_into(f"{order}{link}", out, rng.choice(links), number % word)
            continue
        elif field == 4 and value < len(data) - 8:  # what the entry points to
            struct.pack_into(f"{order}{link}", out, value, number % word)
            continue
        else:
            value = rng.choice((number, value + 1, value - 1, value * 2, value << 16)) % word
        struct.pack_into(order + entry, out, place, tag, kind, count, value)
    return change_bytes(rng, bytes(out), others) if rng.random() < 0.1 else bytes(out)
