"""Broken and hostile inputs of every kind: exit code 2, one line, in time and within memory, nothing left behind."""

import hashlib
import json
import os
import pickle
import re
import resource
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.control import GroundControlPoint

Run = Callable[..., tuple[int, list[str], str]]

MOST_SECONDS, MOST_BYTES = 10, 2 << 30
RAW = re.compile(r"Traceback|Warning\b|File \"|CPLE_|rasterio\._|site-packages|please report")
"""What a library or Python itself says, and geoseg does not."""

PLACE = Affine(0.5, 0, 500_000, 0, -0.5, 600_000)
GEO = 'rasterXSize="96" rasterYSize="64"><SRS>EPSG:32630</SRS><GeoTransform>500000,0.5,0,600000,0,-0.5</GeoTransform>'
SOURCE = '<SimpleSource><SourceFilename relativeToVRT="1">{}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
BAND = '<VRTRasterBand dataType="Byte" band="1"{}>{}</VRTRasterBand>'
TMS = """<GDAL_WMS><Service name="TMS"><ServerUrl>file:///nowhere/${z}/${x}/${y}.png</ServerUrl></Service><DataWindow>
<UpperLeftX>-20037508</UpperLeftX><UpperLeftY>20037508</UpperLeftY><LowerRightX>20037508</LowerRightX>
<LowerRightY>-20037508</LowerRightY><TileLevel>19</TileLevel><TileCountX>1</TileCountX><TileCountY>1</TileCountY>
</DataWindow><Projection>EPSG:3857</Projection><BandsCount>3</BandsCount></GDAL_WMS>"""
LOCAL = 'LOCAL_CS["a construction site",UNIT["metre",1]]'


@dataclass(frozen=True, slots=True)
class Inputs:
    """A sound scene and model, and a folder for what is broken."""

    folder: Path
    scene: Path
    model: Path

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def vrt(self, bands: str, name: str = "a.vrt", geo: str = GEO) -> Path:
        return self.write(name, f"<VRTDataset {geo}{bands}</VRTDataset>")

    def tif(self, name: str = "a.tif", *, count: int = 3, dtype: str = "uint8", value: int = 7, **profile: Any) -> Path:
        path = self.folder / name
        grid = {"crs": "EPSG:32630", "transform": PLACE, "height": 64, "width": 96}
        options = {"driver": "GTiff", "count": count, "dtype": dtype} | grid | profile
        options = {key: option for key, option in options.items() if option is not None}
        pixels = np.full((count, options["height"], options["width"]), value, dtype)
        with rasterio.open(path, "w", **options) as dst:
            dst.write(pixels)
        return path

    def cut(self, end: float, *, bytes_: int = 0, **profile: Any) -> Path:
        """A raster without its end."""
        path = self.tif(**profile)
        whole = path.read_bytes()
        path.write_bytes(whole[: bytes_ or int(end * len(whole))])
        return path

    def patched(self, tag: int, value: int, *, count: int | None = None, **profile: Any) -> Path:
        """A TIFF of one directory in which an entry has another value or count."""
        path = self.tif(**profile)
        content = bytearray(path.read_bytes())
        first = struct.unpack_from("<I", content, 4)[0]
        for at in range(first + 2, first + 2 + 12 * struct.unpack_from("<H", content, first)[0], 12):
            if struct.unpack_from("<H", content, at)[0] == tag:
                number = count or struct.unpack_from("<I", content, at + 4)[0]
                struct.pack_into("<HIBBBB", content, at + 2, 4, number, *value.to_bytes(4, "little"))
        path.write_bytes(content)
        return path

    def far_away(self) -> Path:
        """A BigTIFF whose pixel size lies where no file reaches."""
        path = self.tif(BIGTIFF="YES")
        content = bytearray(path.read_bytes())
        at = content.index(struct.pack("<HHQ", 33550, 12, 3))
        struct.pack_into("<Q", content, at + 12, 2**62)
        path.write_bytes(content)
        return path

    def second_directory(self, *entries: tuple[int, int, int, int]) -> Path:
        """A TIFF with another directory, of entries of tag, type, count and value."""
        path = self.tif()
        content = bytearray(path.read_bytes())
        first = struct.unpack_from("<I", content, 4)[0]
        struct.pack_into("<I", content, first + 2 + 12 * struct.unpack_from("<H", content, first)[0], len(content))
        content += struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
        path.write_bytes(content + bytes(4))
        return path

    def bundle(
        self, *, name: str = "a.safetensors", drop: tuple[str, ...] = (), sign: bool = True, **changes: Any
    ) -> Path:
        """The model with another specification, signed as if it were so from the start."""
        header, tensors = split(self.model)
        texts = header["__metadata__"]
        spec = json.loads(texts["geoseg_spec"]) | changes
        return self.write(
            name,
            join(signed(texts, json.dumps({k: v for k, v in spec.items() if k not in drop}), sign), header, tensors),
        )

    def spec(self, text: str) -> Path:
        """The model with any text as its specification."""
        header, tensors = split(self.model)
        return self.write("a.safetensors", join(signed(header["__metadata__"], text, True), header, tensors))

    def weights(self, changes: dict[str, Any]) -> Path:
        """The model with other entries of tensors, under another name, so that nothing is kept of it."""
        header, tensors = split(self.model)
        texts = header["__metadata__"]
        texts = signed(texts, texts["geoseg_spec"].replace('"bright"', '"other"'), True)
        return self.write("a.safetensors", join(texts, header | changes, tensors))

    def recipe(self, name: str = "a.toml", find: str = "", put: str = "") -> Path:
        from geoseg.training.library import find_recipe

        text = find_recipe("buildings-1m").read_text()
        assert find in text
        return self.write(name, text.replace(find, put, 1))

    def table(self, *rows: str, head: str = "path,datetime,crs,bands", name: str = "a.csv") -> Path:
        return self.write(name, "\n".join((head, *rows)) + "\n")

    def item(self, **changes: Any) -> Path:
        """A STAC Item whose asset is the scene."""
        asset = {"href": str(self.scene), "type": "image/tiff", "roles": ["data"]}
        box = {"type": "Polygon", "coordinates": [[[-3, 5], [-2, 5], [-2, 6], [-3, 6], [-3, 5]]]}
        fields = {
            "type": "Feature",
            "stac_version": "1.0.0",
            "id": "a",
            "geometry": box,
            "bbox": [-3, 5, -2, 6],
            "properties": {"datetime": "2023-05-01T00:00:00Z"},
            "links": [],
            "assets": {"image": asset},
        }
        return self.write("item.json", json.dumps(fields | changes))

    def catalog(self, *links: dict[str, str]) -> Path:
        """A STAC Catalog."""
        fields = {"type": "Catalog", "id": "a", "stac_version": "1.0.0", "description": "", "links": links}
        return self.write("catalog.json", json.dumps(fields))

    def area(self, *shapes: Any, crs: str | None = "EPSG:32630", name: str = "a.gpkg") -> Path:
        gpd.GeoDataFrame({"split": ["a"] * len(shapes)}, geometry=list(shapes), crs=crs).to_file(self.folder / name)
        return self.folder / name

    def finished(self, **changes: Any) -> Path:
        """The folder of a finished run, with another run.json."""
        folder = self.folder / "done"
        folder.mkdir()
        for name in ("probability.tif", "mask.tif"):
            self.tif(f"done/{name}", count=1, nodata=255)
        report = {"threshold": 0.5, "min_area_m2": 5.0, "model": {"target": "building"}, "settings": {}, "facts": {}}
        (folder / "run.json").write_text(json.dumps(report | changes))
        return folder

    def run(self, scene: object, *options: object) -> list[object]:
        return ["run", scene, "-m", self.model, "-q", "-o", self.folder / "out", *options]

    def model_of(self, path: object) -> list[object]:
        return ["run", self.scene, "-m", path, "-q", "-o", self.folder / "out"]

    def aoi(self, path: object, *options: object) -> list[object]:
        return self.run(self.scene, "--aoi", path, *options)

    def labels(self, path: object, *options: object) -> list[object]:
        return ["evaluate", self.scene, "-l", path, "-m", self.model, "-q", "-o", self.folder / "out", *options]


def split(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def signed(texts: dict[str, str], spec: str, sign: bool) -> dict[str, str]:
    checksum = hashlib.sha256(f"{spec}\n{texts['geoseg_weights_sha256']}".encode()).hexdigest()
    return texts | {"geoseg_spec": spec} | ({"geoseg_sha256": checksum} if sign else {})


def join(texts: dict[str, str], header: dict[str, Any], tensors: bytes) -> bytes:
    text = json.dumps(header | {"__metadata__": texts}).encode()
    return len(text).to_bytes(8, "little") + text + tensors


def zipped(path: Path, name: str, content: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(name, content)
    return path


def geojson(*geometries: Any) -> str:
    features = [{"type": "Feature", "properties": {}, "geometry": geometry} for geometry in geometries]
    return json.dumps({"type": "FeatureCollection", "features": features})


def chained(count: int) -> bytes:
    """A TIFF of many directories."""
    size = 2 + 12 + 4
    links = (8 + size * (number + 1) for number in range(count))
    return b"II*\0\x08\0\0\0" + b"".join(struct.pack("<HHHIII", 1, 256, 4, 1, 64, link) for link in links) + bytes(18)


LONG = 300 * "x"
"""A name that no file system takes."""

BOX = shapely.box(500_000, 599_980, 500_030, 600_000)
LINE = shapely.LineString([(500_000, 600_000), (500_020, 599_980)])
NAN = float("nan")
TINY = [
    [[3.53747733146476e-310, 3.53828148549714e-310], [3.5374768133994e-310, 3.53828167977166e-310]],
    [[3.5374769299641e-310, 3.5382815502553e-310], [3.53747687815756e-310, 3.5382816214893e-310]],
]
TINY = [[[a, b], [c, b], [c, d], [a, d], [a, b]] for (a, b), (c, d) in TINY]
"""Two boxes of which GEOS cannot tell how they lie to each other."""

Make = Callable[[Inputs], list[object]]

SCENES: dict[str, tuple[Make, str]] = {
    "a file that is not there": (lambda i: i.run(i.folder / "a.tif"), "There is no file .*a.tif"),
    "a name of 5,000 characters": (lambda i: i.run("x" * 5000), "There is no file"),
    "a pattern that matches nothing": (lambda i: i.run(i.folder / "*.tif"), "No scene matches"),
    "a broken URL": (lambda i: i.run("http://[/a.tif"), "not a URL"),
    "another kind of URL": (lambda i: i.run("ftp://127.0.0.1:1/a.tif"), "ftp"),
    "an empty file": (lambda i: i.run(i.write("a.tif", b"")), "is empty"),
    "a TIFF that points to the other end of nowhere": (lambda i: i.run(i.far_away()), "points to byte 4,611,686"),
    "a TIFF with the bits of four billion samples": (
        lambda i: i.run(i.second_directory((257, 3, 1, 8), (258, 3, 2**32 - 1, 1), (273, 4, 1, 8), (279, 4, 1, 8))),
        "reach to byte 8,589,934,591",
    ),
    "a text called .tif": (lambda i: i.run(i.write("a.tif", "I am a text\n" * 50)), "cannot be opened as a raster"),
    "a web page called .tif": (lambda i: i.run(i.write("a.tif", "<html>Log in</html>" * 9)), "cannot be opened"),
    "a pointer of Git LFS": (
        lambda i: i.run(i.write("a.tif", "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n")),
        "cannot be opened",
    ),
    "zeros called .tif": (lambda i: i.run(i.write("a.tif", bytes(500))), "cannot be opened"),
    "a zip archive called .tif": (lambda i: i.run(zipped(i.folder / "a.tif", "b.txt", b"b")), "cannot be opened"),
    "a model called .tif": (lambda i: i.run(i.write("a.tif", i.model.read_bytes())), "cannot be opened"),
    "a folder called .tif": (lambda i: i.run(i.write("a.tif/b.txt", "b").parent), "holds no raster"),
    "polygons": (lambda i: i.run(i.area(BOX)), "cannot be opened"),
    "half of a raster": (lambda i: i.run(i.cut(0.5)), "is cut short"),
    "half of a compressed raster": (
        lambda i: i.run(i.cut(0.7, compress="deflate", tiled=True, blockxsize=16, blockysize=16)),
        "is cut short|cannot be opened",
    ),
    "the first hundred bytes of a raster": (lambda i: i.run(i.cut(0, bytes_=100)), "cut short|cannot be opened"),
    "the first eight bytes of a raster": (lambda i: i.run(i.cut(0, bytes_=8)), "cut short|cannot be opened"),
    "half of a JPEG": (
        lambda i: i.run(i.cut(0.99, name="a.jpg", driver="JPEG", transform=None, crs=None)),
        "is cut short",
    ),
    "half of a PNG": (lambda i: i.run(i.cut(0.5, name="a.png", driver="PNG", transform=None, crs=None)), "a.png"),
    "a TIFF of four billion columns": (lambda i: i.run(i.patched(256, 2**32 - 1)), "a.tif"),
    "a TIFF of four billion rows": (lambda i: i.run(i.patched(257, 2**32 - 1)), "a.tif"),
    "a TIFF of no columns": (lambda i: i.run(i.patched(256, 0)), "cannot be opened"),
    "a TIFF of four billion bands": (lambda i: i.run(i.patched(277, 65535)), "a.tif"),
    "a TIFF of an unknown compression": (lambda i: i.run(i.patched(259, 12345)), "cannot be opened"),
    "a TIFF whose strips begin behind its end": (lambda i: i.run(i.patched(273, 2**31, count=1, blockysize=64)), "cut"),
    "a TIFF whose table of strips lies behind its end": (lambda i: i.run(i.patched(273, 2**31, blockysize=1)), "a.tif"),
    "a TIFF of four billion strips": (lambda i: i.run(i.patched(273, 8, count=2**32 - 1, blockysize=1)), "a.tif"),
    "a TIFF with fewer sizes than strips": (lambda i: i.run(i.patched(279, 400, count=3, blockysize=1)), "damaged"),
    "a TIFF of 1,500 directories": (lambda i: i.run(i.write("a.tif", chained(1500))), "more than 1,000 directories"),
    "complex pixels": (lambda i: i.run(i.tif(dtype="complex64")), "complex64"),
    "two bands for three": (lambda i: i.run(i.tif(count=2)), "wants 3"),
    "a transform that is not a number": (lambda i: i.run(i.tif(transform=Affine(NAN, 0, 5, 0, -1, 5))), "not finite"),
    "an infinite transform without a CRS": (
        lambda i: i.run(i.tif(transform=Affine(1, 0, float("inf"), 0, -1, 5), crs=None)),
        "not finite",
    ),
    "pixels without an area": (lambda i: i.run(i.tif(transform=Affine(1, 1, 5, 1, 1, 5))), "no area"),
    "pixels of nanometers": (lambda i: i.run(i.tif(transform=Affine(1e-10, 0, 5, 0, -1e-10, 5))), "gives pixels of"),
    "coordinates in degrees, the CRS in meters": (
        lambda i: i.run(i.tif(transform=Affine(5e-6, 0, -3, 0, -5e-6, 5))),
        "does not fit its CRS",
    ),
    "coordinates in meters, the CRS in degrees": (lambda i: i.run(i.tif(crs="EPSG:4326")), "does not fit its CRS"),
    "coordinates of Web Mercator, the CRS of UTM": (
        lambda i: i.run(i.tif(transform=Affine(0.5, 0, -1.9e7, 0, -0.5, 1.9e7))),
        "does not fit its CRS",
    ),
    "ground control points alone": (
        lambda i: i.run(
            i.tif(transform=None, gcps=[GroundControlPoint(r, c, c, -r) for r, c in ((0, 0), (0, 9), (9, 0))])
        ),
        "ground control points",
    ),
    "a VRT without its source": (
        lambda i: i.run(i.vrt(BAND.format("", SOURCE.format("gone.tif")))),
        "which does not exist",
    ),
    "a VRT of itself": (lambda i: i.run(i.vrt(BAND.format("", SOURCE.format("a.vrt")))), "a source of itself"),
    "two VRTs of each other": (
        lambda i: i.run(
            [i.vrt(BAND.format("", SOURCE.format(f"{other}.vrt")), f"{name}.vrt") for name, other in ("ab", "ba")].pop()
        ),
        "a source of itself",
    ),
    "a VRT whose overview is not there": (
        lambda i: i.run(
            i.vrt(
                BAND.format(
                    "",
                    "<Overview><SourceFilename>gone</SourceFilename><SourceBand>1</SourceBand></Overview>"
                    + SOURCE.format(i.scene),
                )
            )
        ),
        "which does not exist|names overviews",
    ),
    "a VRT of an absurd size": (
        lambda i: i.run(
            i.vrt(
                BAND.format("", SOURCE.format(i.scene)), geo=GEO.replace("96", "2147483647").replace("64", "2147483647")
            )
        ),
        "a.vrt",
    ),
    "a VRT without size": (lambda i: i.run(i.vrt(BAND.format("", ""), geo=GEO.replace("96", "0"))), "cannot be opened"),
    "a VRT without bands": (lambda i: i.run(i.vrt("")), "a.vrt"),
    "a VRT that is not XML": (
        lambda i: i.run(i.write("a.vrt", f"<VRTDataset {GEO}<VRTRasterBand")),
        "cannot be opened",
    ),
    "a VRT of a file with an endless name": (
        lambda i: i.run(i.vrt(BAND.format("", SOURCE.format(LONG)))),
        "has the source .*, which does not exist",
    ),
    "a VRT that is not XML, with letters of more than one byte": (
        lambda i: i.run(i.write("a.vrt", f"<VRTDataset {GEO}<VRTRasterBand{'é' * 3000}")),
        "not well-formed as a VRT",
    ),
    "a VRT with the number of half a character": (
        lambda i: i.run(i.vrt(BAND.format("", SOURCE.format(i.scene)).replace("Byte", "&#55356;"))),
        "not well-formed as a VRT",
    ),
    "a VRT with an endless element": (
        lambda i: i.run(i.vrt(f"<{'é' * 3000}/>{BAND.format('', SOURCE.format(i.scene))}")),
        "no element or attribute",
    ),
    "a VRT that is not text": (lambda i: i.run(i.write("a.vrt", f"<VRTDataset {GEO}".encode() + b"\xff\xfe")), "UTF-8"),
    "a VRT of the password file": (
        lambda i: i.run(
            i.vrt(BAND.format(' subClass="VRTRawRasterBand"', "<SourceFilename>/etc/passwd</SourceFilename>"))
        ),
        "outside its folder",
    ),
    "a VRT with a function in Python": (
        lambda i: i.run(
            i.vrt(
                BAND.format(
                    ' subClass="VRTDerivedRasterBand"',
                    "<PixelFunctionType>f</PixelFunctionType><PixelFunctionLanguage>Python</PixelFunctionLanguage>"
                    f"<PixelFunctionCode>def f(*a, **k): pass</PixelFunctionCode>{SOURCE.format(i.scene)}",
                )
            )
        ),
        "a function that GDAL does not run",
    ),
    "the whole world at 0.07 m": (lambda i: i.run(i.write("a.xml", TMS)), "a.xml"),
    "a nodata value that no pixel can have": (lambda i: i.run(i.scene, "--nodata", "-9999"), "--nodata -9999"),
    "scenes of one mosaic in CRSs of nowhere": (
        lambda i: i.run(i.tif(crs=LOCAL), i.scene, "--mosaic", "first"),
        "CRS",
    ),
}

BUNDLES: dict[str, tuple[Make, str]] = {
    "no such model": (lambda i: i.model_of("nothing.safetensors"), "There is no model"),
    "a folder as model": (lambda i: i.model_of(i.folder), "There is no model"),
    "an empty model": (lambda i: i.model_of(i.write("a.safetensors", b"")), "safetensors"),
    "a text as model": (lambda i: i.model_of(i.write("a.safetensors", "I am a text")), "safetensors"),
    "half of a model": (lambda i: i.model_of(i.write("a.safetensors", i.model.read_bytes()[:-20])), "cut short"),
    "a model whose header has 2^63 bytes": (
        lambda i: i.model_of(i.write("a.safetensors", b"\xff" * 7 + b"\x7f" + i.model.read_bytes()[8:])),
        "safetensors",
    ),
    "a pickle": (lambda i: i.model_of(i.write("a.pt", pickle.dumps({"a": 1}))), "is taken for a pickle"),
    "a pickle called .safetensors": (lambda i: i.model_of(i.write("a.safetensors", pickle.dumps([1]))), "for a pickle"),
    "an archive of torch.save": (lambda i: i.model_of(zipped(i.folder / "a.pt2", "a/data.pkl", b"")), "for a pickle"),
    "an archive of torch.export that is empty": (
        lambda i: i.model_of(zipped(i.folder / "a.pt2", "a/archive_format", b"pt2")),
        "not an archive of torch.export",
    ),
    "an ONNX file of noise": (lambda i: i.model_of(i.write("a.onnx", bytes(range(1, 200)))), "ONNX"),
    "an OpenVINO file without its weights": (lambda i: i.model_of(i.write("a.xml", "<net/>")), "weights are missing"),
    "weights without a specification": (
        lambda i: i.model_of(i.write("a.safetensors", b"\x02\0\0\0\0\0\0\0{}")),
        "without a geoseg specification",
    ),
    "a specification that is no JSON": (lambda i: i.model_of(i.spec("{")), "cannot be read"),
    "a specification that is a list": (lambda i: i.model_of(i.spec("[1]")), "cannot be read"),
    "a specification of 100,000 levels": (lambda i: i.model_of(i.spec("[" * 100_000)), "nested too deeply"),
    "a specification without a network": (lambda i: i.model_of(i.bundle(drop=("network",))), "network"),
    "a specification with unknown keys": (lambda i: i.model_of(i.bundle(wings=2)), "wings"),
    "a specification that was edited": (lambda i: i.model_of(i.bundle(gsd_m=0.4, sign=False)), "is damaged"),
    "a GSD of text": (lambda i: i.model_of(i.bundle(gsd_m="half a meter")), "expected a number"),
    "a GSD of a micrometer": (lambda i: i.model_of(i.bundle(gsd_m=1e-6)), "expected meters"),
    "an infinite GSD": (lambda i: i.model_of(i.bundle(gsd_m=float("inf"))), "gsd_m"),
    "means of text": (lambda i: i.model_of(i.bundle(mean=["a", "b", "c"])), "mean"),
    "two means for three bands": (lambda i: i.model_of(i.bundle(mean=[0.1, 0.2])), "2 means"),
    "deviations of zero": (lambda i: i.model_of(i.bundle(std=[1, 0, 1])), "positive numbers"),
    "no bands": (lambda i: i.model_of(i.bundle(bands=[], mean=[], std=[])), "expected 0 of each"),
    "chips of a million pixels": (lambda i: i.model_of(i.bundle(chip_px=2**20)), "at most 16,384"),
    "halos larger than the chip": (lambda i: i.model_of(i.bundle(halo_px=16)), "larger than two halos"),
    "a threshold of two": (lambda i: i.model_of(i.bundle(threshold=2)), "between 0 and 1"),
    "a class twice": (lambda i: i.model_of(i.bundle(classes=["building", "building"])), "each name once"),
    "ten thousand classes": (lambda i: i.model_of(i.bundle(classes=[str(n) for n in range(10_000)])), "a"),
    "an unknown network": (lambda i: i.model_of(i.bundle(network="unet-marvelous")), "unet-marvelous"),
    "an unknown option": (lambda i: i.model_of(i.bundle(network_options={"wings": 2})), "wings"),
    "options that are a list": (lambda i: i.model_of(i.bundle(network_options=[1])), "expected a table"),
    "a depth of a million": (lambda i: i.model_of(i.bundle(network_options={"depth": 10**6})), "expected 0 to 64"),
    "a depth below zero": (lambda i: i.model_of(i.bundle(network_options={"depth": -1})), "expected 0 to 64"),
    "filters of text": (
        lambda i: i.model_of(i.bundle(network_options={"filters": "x"})),
        "'filters' 'x'; it should be",
    ),
    "true as a number of filters": (
        lambda i: i.model_of(i.bundle(network_options={"filters": True})),
        "'filters' True",
    ),
    "options of an encoder that are a number": (
        lambda i: i.model_of(i.bundle(network="unet", network_options={"encoder_options": 3})),
        "'encoder_options' 3",
    ),
    "a network that is divided by zero": (
        lambda i: i.model_of(i.bundle(network="unet-atrous", network_options={"squeeze": 0})),
        "cannot build 'unet-atrous'",
    ),
    "a model with an endless name": (lambda i: i.model_of(f"{LONG}.safetensors"), "There is no model"),
    "a network that needs more memory than there is": (
        lambda i: i.model_of(i.bundle(network_options={"depth": 8, "filters": 4096}, stride_px=256, chip_px=1024)),
        "do not fit",
    ),
    "weights of another shape": (
        lambda i: i.model_of(i.bundle(network_options={"depth": 0, "filters": 2, "convolutions": 1, "norm": False})),
        "do not fit the network",
    ),
    "weights turned round": (
        lambda i: i.model_of(
            i.weights({"down.0.0.weight": split(i.model)[0]["down.0.0.weight"] | {"shape": [3, 3, 3, 1]}})
        ),
        "damaged|do not fit",
    ),
    "weights that end before they begin": (
        lambda i: i.model_of(i.weights({"head.bias": {"dtype": "F16", "shape": [1], "data_offsets": [9, 3]}})),
        "safetensors",
    ),
    "weights of 2^60 numbers": (
        lambda i: i.model_of(i.weights({"head.bias": {"dtype": "F16", "shape": [2**60], "data_offsets": [0, 2**61]}})),
        "safetensors",
    ),
}

RECIPES: dict[str, tuple[Make, str]] = {
    "no such recipe": (lambda i: ["train", "roofs"], "There is no recipe"),
    "an empty recipe": (lambda i: ["train", i.write("a.toml", "")], "is empty"),
    "a recipe of noise": (lambda i: ["train", i.write("a.toml", bytes(range(256)))], "not text"),
    "a recipe that is no TOML": (lambda i: ["train", i.write("a.toml", "name = ")], "is not TOML"),
    "a recipe of 100,000 levels": (lambda i: ["train", i.write("a.toml", "a = " + "[" * 100_000)], "too deeply"),
    "a recipe that is a list": (lambda i: ["train", i.write("a.yaml", "- a\n- b\n")], "is a list"),
    "a recipe that is no YAML": (lambda i: ["train", i.write("a.yaml", "a: [b")], "is not YAML"),
    "a recipe that runs Python": (
        lambda i: ["train", i.write("a.yaml", "name: !!python/object/apply:os.system ['true']")],
        "is not YAML",
    ),
    "a recipe of a billion values": (
        lambda i: [
            "train",
            i.write("a.yaml", "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1},' * 9}]\n" for n in range(1, 10))),
        ],
        "100,000 values",
    ),
    "a recipe that holds itself": (lambda i: ["train", i.write("a.yaml", "a: &a [*a]\n")], "levels"),
    "a recipe with an impossible date": (lambda i: ["train", i.write("a.yaml", "name: 2023-02-30\n")], "a.yaml"),
    "a recipe without a network": (lambda i: ["train", i.write("a.toml", 'name = "a"')], "missing"),
    "a recipe with an unknown key": (lambda i: ["train", i.recipe(find="name =", put="wings = 2\nname =")], "wings"),
    "a recipe with a GSD of text": (lambda i: ["train", i.recipe(), "--set", "gsd_m=one meter"], "gsd_m"),
    "a recipe with a rate that is not a number": (
        lambda i: ["train", i.recipe(), "--set", "fit.learning_rate=nan"],
        "learning_rate",
    ),
    "a recipe without sources": (lambda i: ["train", i.recipe(), "--set", "sources=[]"], "sources is empty"),
    "a recipe with chips off the stride": (lambda i: ["train", i.recipe(), "--set", "chip_px=1001"], "chip_px"),
    "a recipe with an unknown loss": (lambda i: ["train", i.recipe(), "--set", "loss={wings=1}"], "wings"),
    "a recipe with filters of text": (
        lambda i: [
            "train",
            i.recipe(),
            *("--set", "network.name=unet-plain", "--set", "network.encoder="),
            *("--set", "network.options={filters=['a']}"),
        ],
        "'filters' ",
    ),
    "a recipe with an endless name": (lambda i: ["train", f"{LONG}.toml"], "is longer than a file's may be"),
    "a recipe whose imagery is not there": (
        lambda i: ["train", i.recipe(), "--data", i.folder, "-o", i.folder / "out"],
        "finds nothing in",
    ),
}

SOURCES: dict[str, tuple[Make, str]] = {
    "an empty table": (lambda i: i.run(i.write("a.csv", "")), "does not say where its scenes are"),
    "a table without paths": (lambda i: i.run(i.table("1", head="number")), "does not say where its scenes are"),
    "a table without rows": (lambda i: i.run(i.table()), "no rows"),
    "a table of noise": (lambda i: i.run(i.write("a.csv", bytes(range(256)))), "UTF-8"),
    "a table of zeros": (lambda i: i.run(i.write("a.csv", "path\n" + "\0" * 100)), "a.csv"),
    "a table with a scene that is not there": (lambda i: i.run(i.table("gone.tif,,,")), "there is no file .*gone.tif"),
    "a table with too many values": (lambda i: i.run(i.table(f"{i.scene},,,1,2,3")), "2 values more"),
    "a table with an impossible date": (lambda i: i.run(i.table(f"{i.scene},2023-02-30,,")), "datetime 2023-02-30"),
    "a table with an unknown CRS": (lambda i: i.run(i.table(f"{i.scene},,EPSG:99999,")), "crs EPSG:99999"),
    "a table with band zero": (lambda i: i.run(i.table(f'{i.scene},,,"0,1,2"')), "counts from 0"),
    "a table with a path of 9,000 characters": (lambda i: i.run(i.table("x" * 9000 + ",,,")), "there is no file"),
    "a table with a field of 200,000 characters": (
        lambda i: i.run(i.table(f'{i.scene},"{"x" * 200_000}",,')),
        "a.csv",
    ),
    "a Parquet table of noise": (lambda i: i.run(i.write("a.parquet", b"PAR1" + bytes(99) + b"PAR1")), "Parquet"),
    "STAC that is no JSON": (lambda i: i.run(i.write("a.json", "{")), "cannot be read as STAC"),
    "STAC that is a list": (lambda i: i.run(i.write("a.json", "[1]")), "cannot be read as STAC"),
    "STAC of 100,000 levels": (lambda i: i.run(i.write("a.json", "[" * 100_000)), "cannot be read as STAC"),
    "STAC in another code": (lambda i: i.run(i.write("a.json", "{}".encode("utf-16"))), "cannot be read as STAC"),
    "a file of polygons as STAC": (lambda i: i.run(i.write("a.geojson", geojson(None))), "not STAC Items"),
    "an Item without assets": (lambda i: i.run(i.item(assets={})), "no raster among its assets"),
    "an Item whose assets are text": (lambda i: i.run(i.item(assets="image.tif")), "cannot be read as STAC"),
    "an Item whose roles are numbers": (
        lambda i: i.run(i.item(assets={"a": {"href": "a.tif", "roles": [[1]]}})),
        "STAC",
    ),
    "an Item whose links are numbers": (lambda i: i.run(i.item(links=[1, 2])), "cannot be read as STAC"),
    "an Item with an impossible date": (lambda i: i.run(i.item(properties={"datetime": "yesterday"})), "read as STAC"),
    "an Item whose image is not there": (lambda i: i.run(i.item(assets={"a": {"href": "./gone.tif"}})), "no file is"),
    "an Item without the asset": (lambda i: i.run(i.item(), "--asset", "nir"), "no asset nir"),
    "a Catalog that leads nowhere": (lambda i: i.run(i.catalog()), "leads to no Item"),
    "a Catalog of itself": (lambda i: i.run(i.catalog({"rel": "child", "href": "./catalog.json"})), "leads to no Item"),
    "a Catalog whose child is not there": (
        lambda i: i.run(i.catalog({"rel": "child", "href": "./gone/catalog.json"})),
        "gone/catalog.json",
    ),
}

AREAS: dict[str, tuple[Make, str]] = {
    "an area that is not there": (lambda i: i.aoi(i.folder / "a.gpkg"), "no AOI file"),
    "an area with an endless name": (lambda i: i.aoi(f"{LONG}.gpkg"), "no AOI file"),
    "an area with a corner a million kilometers away": (
        lambda i: i.aoi(i.area(shapely.Polygon([(500_000, 599_980), (500_000, 1e9), (500_030, 600_000)]))),
        "reach beyond what can be transformed",
    ),
    "an empty area": (lambda i: i.aoi(i.write("a.geojson", "")), "cannot be read"),
    "half of a GeoJSON": (lambda i: i.aoi(i.write("a.geojson", geojson(None)[:40])), "cannot be read"),
    "a text as area": (lambda i: i.aoi(i.write("a.gpkg", "I am a text")), "cannot be read"),
    "a folder as area": (lambda i: i.aoi(i.write("a/b.txt", "").parent), "cannot be read"),
    "half of a GeoPackage": (
        lambda i: i.aoi(i.write("b.gpkg", i.area(BOX).read_bytes()[:5000])),
        "cannot be read",
    ),
    "half of a Parquet file": (
        lambda i: i.aoi(i.write("b.parquet", b"PAR1" + bytes(500))),
        "cannot be read",
    ),
    "no features": (lambda i: i.aoi(i.write("a.geojson", geojson())), "no polygon"),
    "features without geometry": (lambda i: i.aoi(i.write("a.geojson", geojson(None, None))), "no polygon"),
    "lines": (lambda i: i.aoi(i.area(LINE)), "1 LineString"),
    "points": (lambda i: i.aoi(i.area(shapely.Point(500_000, 600_000))), "1 Point"),
    "a polygon without area": (
        lambda i: i.aoi(i.area(shapely.Polygon([(500_001, 599_999), (500_009, 599_999), (500_001, 599_999)]))),
        "outside|no polygon|no ground",
    ),
    "coordinates that are not numbers": (
        lambda i: i.aoi(i.write("a.geojson", geojson({"type": "Polygon", "coordinates": [[[NAN, NAN]] * 4]}))),
        "a.geojson",
    ),
    "coordinates that are next to nothing": (
        lambda i: i.aoi(i.write("a.geojson", geojson({"type": "MultiPolygon", "coordinates": [[TINY[0]], [TINY[1]]]}))),
        "without a finite area",
    ),
    "coordinates that are text": (
        lambda i: i.aoi(i.write("a.geojson", geojson({"type": "Polygon", "coordinates": [[["a", "b"]] * 4]}))),
        "a.geojson",
    ),
    "infinite coordinates": (
        lambda i: i.aoi(
            i.write(
                "a.geojson", geojson({"type": "Polygon", "coordinates": [[[0, 0], [1e308, 0], [0, 1e308], [0, 0]]]})
            )
        ),
        "a.geojson",
    ),
    "the other hemisphere": (
        lambda i: i.aoi(i.area(shapely.box(170, -40, 171, -39), crs="EPSG:4326")),
        "outside the scene",
    ),
    "degrees in a CRS of meters": (lambda i: i.aoi(i.area(shapely.box(-3, 5, -2.9, 5.1))), "outside the scene"),
    "meters in a CRS of degrees": (lambda i: i.aoi(i.area(BOX, crs="EPSG:4326")), "a.gpkg"),
    "two layers": (lambda i: i.aoi(two_layers(i)), "has the layers"),
    "a filter that matches nothing": (lambda i: i.aoi(i.area(BOX), "--aoi-where", "split = 'z'"), "matches none"),
    "a filter that is none": (lambda i: i.aoi(i.area(BOX), "--aoi-where", "split ="), "not a filter"),
}


def two_layers(inputs: Inputs) -> Path:
    path = inputs.area(BOX)
    gpd.GeoDataFrame(geometry=[BOX], crs="EPSG:32630").to_file(path, layer="other")
    return path


LABELS: dict[str, tuple[Make, str]] = {
    "labels that are not there": (lambda i: i.labels(i.folder / "a.tif"), "a.tif"),
    "labels with an endless name": (lambda i: i.labels(f"{LONG}.tif"), "is longer than a file's may be"),
    "an empty label raster": (lambda i: i.labels(i.write("a.tif", b"")), "a.tif"),
    "a text as labels": (lambda i: i.labels(i.write("a.gpkg", "I am a text")), "cannot be read"),
    "half of a label raster": (lambda i: i.labels(i.cut(0.5, count=1)), "a.tif"),
    "labels with values of no class": (lambda i: i.labels(i.tif(count=1, value=77)), "77"),
    "labels whose transform is not finite": (
        lambda i: i.labels(i.tif(count=1, transform=Affine(NAN, 0, 5, 0, -1, 5))),
        "not finite",
    ),
    "labels of another place": (
        lambda i: i.labels(i.tif(count=1, value=1, transform=Affine(0.5, 0, 100_000, 0, -0.5, 9_000))),
        "a.tif",
    ),
    "labels whose nodata value is a class": (lambda i: i.labels(i.tif(count=1, value=0, nodata=0)), "--code"),
    "lines as labels": (lambda i: i.labels(i.area(LINE)), "1 LineString"),
    "a code that is none": (lambda i: i.labels(i.tif(count=1, value=1), "--code", "x"), "--code x is not a code"),
}

SETTINGS: dict[str, tuple[Make, str]] = {
    "a threshold that is not a number": (lambda i: i.run(i.scene, "--threshold", "nan"), "--threshold nan"),
    "a negative smallest area": (lambda i: i.run(i.scene, "--min-area-m2", "-1"), "--min-area-m2 -1"),
    "a smallest area that is not a number": (lambda i: i.run(i.scene, "--min-area-m2", "nan"), "--min-area-m2 nan"),
    "holes of infinite size": (lambda i: i.run(i.scene, "--fill-holes-m2", "-inf"), "--fill-holes-m2"),
    "a negative tolerance": (lambda i: i.run(i.scene, "--tolerance-m", "-1"), "--tolerance-m"),
    "a tolerance that is not a number": (lambda i: i.run(i.scene, "--tolerance-m", "nan"), "--tolerance-m"),
    "a split depth of two": (lambda i: i.run(i.scene, "--split-depth", "2"), "--split-depth"),
    "band zero": (lambda i: i.run(i.scene, "--bands", "0,1,2"), "band"),
    "a negative number of threads": (lambda i: i.run(i.scene, "--threads", "-1"), "--threads -1"),
    "a CRS of a construction site": (lambda i: i.run(i.scene, "--crs", LOCAL), "--crs"),
    "a CRS of heights": (lambda i: i.run(i.scene, "--crs", "EPSG:5773"), "--crs"),
    "a CRS of 10,000 characters": (lambda i: i.run(i.scene, "--crs", "x" * 10_000), "is not a coordinate"),
    "a scheduler file that is none": (
        lambda i: i.run(i.scene, "--scheduler", i.write("a.json", "{}")),
        "not the address of a scheduler",
    ),
    "a GPU that is not there": (lambda i: i.run(i.scene, "--device", "mps"), "mps"),
}

RESULTS: dict[str, tuple[Make, str]] = {
    "a run folder with an endless name": (
        lambda i: ["run", i.scene, "-m", i.model, "-o", LONG],
        "is longer than a file's may be",
    ),
    "no run": (lambda i: ["status", i.folder], "There is no run in"),
    "a run folder that is a file": (lambda i: ["run", i.scene, "-m", i.model, "-o", i.write("out", "")], "out"),
    "a run folder below a file": (
        lambda i: ["run", i.scene, "-m", i.model, "-o", i.write("a", "").parent / "a/out"],
        "a",
    ),
    "a run folder on a web server": (
        lambda i: ["run", i.scene, "-m", i.model, "-o", "https://[::1]:1/out"],
        "Give a folder",
    ),
    "a run folder that holds another result": (
        lambda i: ["run", i.scene, "-m", i.model, "-o", i.write("out/mask.tif", "").parent],
        "already holds mask.tif",
    ),
    "a result of which run.json is a list of facts": (
        lambda i: ["run", i.scene, "-m", i.model, "-o", i.finished(facts=["a"])],
        "is damaged",
    ),
    "a result of other facts": (
        lambda i: ["run", i.scene, "-m", i.model, "-o", i.finished(facts={"files": 7})],
        "is damaged",
    ),
    "a result of another model": (
        lambda i: ["run", i.scene, "-m", i.model, "-o", i.finished(facts={"model": "a", "files": []})],
        "belongs to another run",
    ),
    "a run.json cut short": (lambda i: scored(i, '{"thresh'), "is damaged"),
    "a run.json that is a list": (lambda i: scored(i, "[1]"), "is damaged"),
    "a run.json of 100,000 levels": (lambda i: scored(i, "[" * 100_000), "is damaged"),
    "a run.json whose model is text": (lambda i: scored(i, json.dumps({"model": "a"})), "is damaged"),
    "a run.json whose threshold is text": (
        lambda i: scored(i, json.dumps({"threshold": "half", "model": {}})),
        "is damaged",
    ),
    "a run.json without a threshold": (
        lambda i: ["vectorize", i.finished(threshold=None), "-o", i.folder / "out"],
        "is damaged",
    ),
    "a run.json whose model is a number": (
        lambda i: ["vectorize", i.finished(model=7), "-o", i.folder / "out"],
        "is damaged",
    ),
    "a run whose probabilities are cut short": (
        lambda i: ["vectorize", shortened(i.finished()), "-o", i.folder / "out"],
        "probability.tif",
    ),
    "a run without probabilities": (
        lambda i: ["vectorize", i.write("done/run.json", "{}").parent, "-o", i.folder / "out"],
        "without run.json and probability.tif",
    ),
    "a text to outline": (
        lambda i: ["vectorize", i.write("a.tif", "a" * 99), "-o", i.folder / "out"],
        "cannot be read",
    ),
    "a plan that is no JSON": (lambda i: ["status", i.write("out/.geoseg/plan.json", "{").parents[1]], "no run"),
    "a plan without sizes": (lambda i: ["status", i.write("out/.geoseg/plan.json", "{}").parents[1]], "is damaged"),
    "a plan that names a folder elsewhere": (
        lambda i: [
            "status",
            i.write("out/.geoseg/plan.json", '{"block_px": 64, "blocks": 1, "run": "../../other"}').parents[1],
        ],
        "is damaged",
    ),
    "a batch without names": (
        lambda i: ["status", i.write("out/.geoseg/batches/a/scenes.json", '{"scenes": 7}').parents[3]],
        "is damaged",
    ),
    "progress of text": (
        lambda i: [
            "status",
            i.write(
                "out/.geoseg/plan.json",
                i.write("out/.geoseg/progress.json", '{"now": "soon"}') and '{"block_px": 64, "blocks": 1, "run": "a"}',
            ).parents[1],
        ],
        "progress.json is damaged",
    ),
    "a plan of text": (
        lambda i: ["status", i.write("out/.geoseg/plan.json", '{"block_px": "a", "blocks": [], "run": 3}').parents[1]],
        "is damaged",
    ),
}


def scored(inputs: Inputs, report: str) -> list[object]:
    folder = inputs.finished()
    (folder / "run.json").write_text(report)
    return ["evaluate", folder, "-l", inputs.tif(count=1, value=1), "-o", inputs.folder / "out", "--no-pictures"]


def shortened(folder: Path) -> Path:
    path = folder / "probability.tif"
    path.write_bytes(path.read_bytes()[:3000])
    return folder


BROKEN = SCENES | BUNDLES | RECIPES | SOURCES | AREAS | LABELS | SETTINGS | RESULTS


@pytest.fixture
def inputs(tmp_path: Path, scene: Path, bright: Path, monkeypatch: pytest.MonkeyPatch) -> Inputs:
    """A folder, which is the working folder too, as some commands write beside their input."""
    monkeypatch.chdir(tmp_path)
    return Inputs(tmp_path, scene, bright)


@pytest.fixture
def two_gigabytes() -> Iterator[None]:
    """No more memory than what the process has, and 2 GB."""
    import geoseg.engines
    import geoseg.evaluate
    import geoseg.training  # noqa: F401 - libraries map much more than they use

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_BYTES, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def contents(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.filterwarnings("ignore:.*:RuntimeWarning:pyogrio")
@pytest.mark.parametrize("name", BROKEN)
def test_broken_input_is_refused_in_one_line_and_nothing_is_left_behind(
    name: str, inputs: Inputs, geoseg: Run, two_gigabytes: None
) -> None:
    make, said = BROKEN[name]
    command = make(inputs)
    before = contents(inputs.folder)
    began = time.process_time()
    code, out, err = geoseg(*command)
    seconds = time.process_time() - began
    lines = err.splitlines()
    assert (code, out) == (2, []), err
    assert lines[-1].startswith("Error: ")
    assert re.search(said, lines[-1]), err
    assert not RAW.search(err), err
    assert [line for line in lines if line.startswith("Error: ")] == lines[-1:]
    assert len(lines[-1]) < 2500
    assert contents(inputs.folder) == before
    assert seconds < MOST_SECONDS


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["a TIFF of four billion rows", "the whole world at 0.07 m", "a recipe of a billion values"]
)
def test_a_process_refuses_what_is_absurdly_large_soon_and_takes_no_memory_for_it(name: str, inputs: Inputs) -> None:
    make, said = BROKEN[name]
    command = [sys.executable, "-m", "geoseg", *map(str, make(inputs))]
    before = contents(inputs.folder)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        printed = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 2, printed
    assert re.fullmatch(f"Error: [^\n]*{said}[^\n]*\n", printed), printed
    assert used.ru_maxrss * 1024 < MOST_BYTES
    assert used.ru_utime + used.ru_stime < 2 * MOST_SECONDS  # most of it to import the libraries
    assert contents(inputs.folder) == before


def test_there_are_more_than_a_hundred() -> None:
    assert len(BROKEN) > 100
