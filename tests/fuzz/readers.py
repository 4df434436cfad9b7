"""What is fuzzed: sound files of every kind that geoseg reads, how they are changed, and the call that reads them."""

import hashlib
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import mutate
import numpy as np

UTM = "EPSG:32630"
X, Y, GSD_M = 500_000, 600_000, 0.5

Change = Callable[[Random, bytes], bytes]


@dataclass(frozen=True, slots=True)
class Seed:
    """A sound input, in a folder of its own.

    Attributes:
        entry: The file that is read.
        files: The files of which one is changed; usually the entry itself.
        changes: How one may be changed.
    """

    entry: Path
    files: tuple[Path, ...]
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Reader:
    """A kind of file: `make` writes the seeds into a folder, `read` reads one."""

    make: Callable[[Path], list[Seed]]
    read: Callable[[Path], None]


def _as_text(change: Callable[[Random, str], str]) -> Change:
    return lambda rng, data: change(rng, data.decode("utf-8", "replace")).encode("utf-8", "replace")


TEXT: tuple[Change, ...] = (_as_text(mutate.change_text), _as_text(mutate.change_text), mutate.change_bytes)
JSON: tuple[Change, ...] = (mutate.change_json, mutate.change_json, *TEXT)


def _seed(folder: Path, name: str, write: Callable[[Path], Any], changes: tuple[Change, ...], **beside: bytes) -> Seed:
    """Write a file into a folder of its own; `beside` are more files there, with `_` for the dot."""
    path = folder / name.replace(".", "_") / name
    path.parent.mkdir(parents=True)
    write(path)
    for other, data in beside.items():
        (path.parent / other.replace("_", ".")).write_bytes(data)
    return Seed(path, (path,), changes)


# ---------------------------------------------------------------------------------------------------------- bundles


def make_bundles(folder: Path) -> list[Seed]:
    """Bundles of tiny networks, and the formats of exported networks, whose networks are not read here."""
    import onnx

    from geoseg.bundle import ModelSpec, save_bundle
    from geoseg.networks import build_network

    def save(path: Path, **facts: Any) -> None:
        options = {"depth": 1, "filters": 2, "convolutions": 1}
        spec = ModelSpec(
            name="fuzzed",
            network="unet-plain",
            network_options=options,
            bands=("red", "green", "blue"),
            gsd_m=GSD_M,
            mean=(0.1, 0.2, 0.3),
            std=(1.0, 0.5, 1.0),
            chip_px=32,
            halo_px=4,
            stride_px=2,
            **facts,
        )
        network = build_network("unet-plain", bands=3, classes=len(spec.channels), **options)
        save_bundle(path, spec, network.state_dict())

    several = {
        "classes": ("background", "building", "water"),
        "auxiliary": ("edge", "contact"),
        "colors": {"water": "#0000FF"},
        "confidence": {"constant": 0.5, "area_log": 0.1},
        "training": {"steps": 7, "sources": ["a", "b"]},
        "metrics": {"a": {"iou": 0.5}},
        "split_depth": 0.1,
    }
    safetensors = (_change_spec, _change_spec, _change_spec, _change_tensors, mutate.change_bytes)
    seeds = [
        _seed(folder, "one.safetensors", save, safetensors),
        _seed(folder, "several.safetensors", lambda path: save(path, **several), safetensors),
    ]
    header = _split(seeds[0].entry.read_bytes())[0]["__metadata__"]

    def save_onnx(path: Path) -> None:
        value = onnx.helper.make_tensor_value_info("pixels", onnx.TensorProto.FLOAT, (1, 3, "y", "x"))
        graph = onnx.helper.make_graph([], "a", [value], [value])
        model = onnx.helper.make_model(graph)
        onnx.helper.set_model_props(model, header)
        onnx.save(model, path)

    texts = "".join(f'<{key} value="{value.replace(chr(34), "&quot;")}"/>' for key, value in header.items())
    xml = f'<?xml version="1.0"?><net name="a" version="11"><rt_info><geoseg>{texts}</geoseg></rt_info></net>'

    def save_pt2(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as file:
            config = {"config": {"w": {"use_pickle": False, "path_name": "weight_0"}}}
            graph = {"graph_module": {"graph": {"nodes": [{"target": "torch.ops.aten.conv2d.default", "inputs": []}]}}}
            file.writestr("a/archive_format", "pt2")
            file.writestr("a/models/model.json", json.dumps(graph))
            file.writestr("a/data/weights/model_weights_config.json", json.dumps(config))
            for key, value in header.items():
                file.writestr(f"a/extra/{key}", value)

    return [
        *seeds,
        _seed(folder, "a.onnx", save_onnx, (mutate.change_bytes,)),
        _seed(folder, "net.xml", lambda path: path.write_text(xml), (mutate.change_xml, *TEXT), net_bin=b"\0" * 64),
        _seed(folder, "a.pt2", save_pt2, (mutate.change_bytes, _change_zip, _change_zip)),
    ]


def _split(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the header of a safetensors file, and its tensors."""
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def _join(header: Any, tensors: bytes) -> bytes:
    text = mutate.dump_json(header)
    return len(text).to_bytes(8, "little") + text + tensors


def _change_spec(rng: Random, data: bytes) -> bytes:
    """Change the specification and give it the checksum that it should have."""
    header, tensors = _split(data)
    texts = header["__metadata__"]
    change = rng.choice((mutate.change_json, mutate.change_json, _as_text(mutate.change_text)))
    texts["geoseg_spec"] = change(rng, texts["geoseg_spec"].encode()).decode("utf-8", "replace")
    signed = f"{texts['geoseg_spec']}\n{texts['geoseg_weights_sha256']}".encode("utf-8", "surrogatepass")
    texts["geoseg_sha256"] = hashlib.sha256(signed).hexdigest()
    return _join(header, tensors)


def _change_tensors(rng: Random, data: bytes) -> bytes:
    """Change the header: names, types, shapes and places of tensors, and the metadata."""
    header, tensors = _split(data)
    return _join(mutate.change_value(rng, header), tensors)


def _change_zip(rng: Random, data: bytes) -> bytes:
    """Change one file of an archive, or its name."""
    import io

    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        chosen = rng.choice(old.namelist())
        for name in old.namelist():
            content = old.read(name)
            if name == chosen:
                change = mutate.change_json if content[:1] == b"{" else mutate.change_bytes
                content = rng.choice((change, mutate.change_bytes))(rng, content)
                changed = name if rng.random() < 0.9 else mutate.change_text(rng, name)
                name = changed.replace("\0", "").encode(errors="ignore").decode()
            new.writestr(name or "a", content)
    return out.getvalue()


def read_bundle(path: Path) -> None:
    """Open a model, and build the network of a bundle."""
    from geoseg.bundle import load_bundle
    from geoseg.model_file import ModelFormat
    from geoseg.networks import load_segmenter

    bundle = load_bundle(path)
    if bundle.format is ModelFormat.SAFETENSORS:
        load_segmenter(bundle)


# ---------------------------------------------------------------------------------------------------------- recipes


def make_recipes(folder: Path) -> list[Seed]:
    """The recipes that come with geoseg, as TOML, some as YAML and JSON (which is YAML, too)."""
    import tomllib

    import yaml

    from geoseg.training.library import list_recipes

    seeds = []
    for name, file in sorted(list_recipes().items()):
        text = file.read_text()
        table = tomllib.loads(text)
        if "network" not in table:
            continue
        seeds.append(
            _seed(folder, f"{name}.toml", lambda path, text=text: path.write_text(text), (_change_toml, *TEXT))
        )
        if len(seeds) < 3:
            dumped = yaml.safe_dump(table)
            seeds.append(_seed(folder, f"{name}.yaml", lambda path, text=dumped: path.write_text(text), TEXT))
        seeds.append(_seed(folder, f"{name}-json.yml", lambda path, t=table: path.write_text(json.dumps(t)), JSON))
    return seeds


def _change_toml(rng: Random, data: bytes) -> bytes:
    import tomllib

    from geoseg.training.library import recipe_text

    changed = mutate.change_value(rng, tomllib.loads(data.decode()))
    return mutate.deepen(recipe_text(changed)).encode("utf-8", "replace")


def read_recipe(path: Path) -> None:
    """Read a recipe and check it."""
    from geoseg.training.library import load_recipe, recipe_text

    recipe_text(load_recipe(path))


# -------------------------------------------------------------------------------------------------------- manifests

ROWS = (
    "path,datetime,crs,name,bands\n"
    'a.tif,2023-05-01,EPSG:32630,one,"1,2,3"\n'
    'b.tif,2023-05-01T10:30:00Z,32630,two,"3 2 1"\n'
    "c.tif,,,,\n"
)


def make_manifests(folder: Path) -> list[Seed]:
    """Tables with a scene per row: CSV with three separators, Parquet, GeoParquet, stac-geoparquet."""
    import geopandas
    import pyarrow as pa
    import pyarrow.parquet as pq
    import shapely

    files = {f"{name}_tif": b"not opened" for name in "abc"}
    shapes = [shapely.box(-3, 5, -2.9, 5.1), None, shapely.box(-3, 5.2, -2.9, 5.3)]
    paths = ["a.tif", "b.tif", "c.tif"]
    table = pa.table({"path": paths, "bands": [[1, 2, 3], None, [1]], "crs": [32630.0, None, 32631.0]})
    assets = {"visual": {"href": "a.tif", "type": "image/tiff", "roles": ["data"]}}
    items = pa.table({"id": paths, "assets": [assets, assets, assets], "datetime": ["2023-05-01", None, "2024-01-01"]})
    frame = geopandas.GeoDataFrame({"path": paths}, geometry=shapes, crs="EPSG:4326")
    parquet = (mutate.change_bytes, _change_parquet, _change_parquet)
    return [
        _seed(folder, "comma.csv", lambda path: path.write_text(ROWS), TEXT, **files),
        _seed(folder, "semicolon.csv", lambda path: path.write_text(ROWS.replace(",", ";")), TEXT, **files),
        _seed(folder, "tab.csv", lambda path: path.write_text(ROWS.replace(",", "\t")), TEXT, **files),
        _seed(folder, "table.parquet", lambda path: pq.write_table(table, path), parquet, **files),
        _seed(folder, "items.parquet", lambda path: pq.write_table(items, path), parquet, **files),
        _seed(folder, "geo.parquet", lambda path: frame.to_parquet(path), parquet, **files),
    ]


def _change_parquet(rng: Random, data: bytes) -> bytes:
    """Write the table again with other values, other columns or other metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(pa.BufferReader(data))
    metadata = {key.decode(): json.loads(text) for key, text in (table.schema.metadata or {}).items()}
    columns = table.to_pydict()
    if metadata and rng.random() < 0.5:
        metadata = mutate.change_value(rng, metadata)
    elif rng.random() < 0.3:
        columns = mutate.change_value(rng, columns)
    else:
        name = rng.choice(list(columns))
        columns[name] = [rng.choice(mutate.VALUES) if rng.random() < 0.5 else value for value in columns[name]]
        if rng.random() < 0.5:
            columns[name] = [rng.choice(mutate.VALUES)] * len(columns[name])
    try:
        made = pa.table(columns).replace_schema_metadata(
            {key: mutate.dump_json(text) for key, text in metadata.items()}
        )
        out = pa.BufferOutputStream()
        pq.write_table(made, out)
    except (pa.ArrowException, ValueError, TypeError, AttributeError, OverflowError):
        return mutate.change_bytes(rng, data)
    return bytes(out.getvalue())


def read_sources(path: Path) -> None:
    """Read a manifest or a STAC document, and compare its footprints with an area."""
    from geoseg.sources import filter_sources, list_sources

    filter_sources(list_sources([path]), (-3.0, 5.0, -2.0, 6.0))


# ------------------------------------------------------------------------------------------------------------- STAC


def make_stac(folder: Path) -> list[Seed]:
    """An Item, an ItemCollection, and a Catalog of a Collection of Items, of which each document is changed."""
    import pystac
    import shapely

    box = shapely.box(-3, 5, -2.9, 5.1)
    start = pystac.utils.str_to_datetime("2023-05-01T10:30:00Z")

    def item(name: str) -> pystac.Item:
        made = pystac.Item(name, shapely.geometry.mapping(box), list(box.bounds), start, {"eo:cloud_cover": 5})
        made.add_asset("image", pystac.Asset("./image.tif", media_type="image/tiff", roles=["data"]))
        made.add_asset("thumbnail", pystac.Asset("./small.png", media_type="image/png", roles=["thumbnail"]))
        return made

    alone = json.dumps(item("alone").to_dict(include_self_link=False))
    several = json.dumps(pystac.ItemCollection([item("one"), item("two")]).to_dict())
    image = {"image_tif": b"not opened"}
    seeds = [
        _seed(folder, "item.json", lambda path: path.write_text(alone), JSON, **image),
        _seed(folder, "items.json", lambda path: path.write_text(several), JSON, **image),
    ]
    extent = pystac.Extent(pystac.SpatialExtent([list(box.bounds)]), pystac.TemporalExtent([[start, None]]))
    catalog, collection = pystac.Catalog("all", "All."), pystac.Collection("north", "Some.", extent)
    catalog.add_child(collection)
    catalog.add_item(item("one"))
    collection.add_item(item("two"))
    catalog.normalize_hrefs(str(folder / "catalog"))
    catalog.save(pystac.CatalogType.SELF_CONTAINED)
    documents = tuple(sorted((folder / "catalog").rglob("*.json")))
    for document in documents:
        (document.parent / "image.tif").write_bytes(b"not opened")
    return [*seeds, Seed(folder / "catalog" / "catalog.json", documents, JSON)]


# ------------------------------------------------------------------------------------------------------------ scenes


def _write_tiff(path: Path, *, count: int = 3, dtype: str = "uint8", mask: bool = False, **profile: Any) -> None:
    import rasterio
    from affine import Affine

    pixels = np.random.default_rng(1).integers(1, 255, (count, 64, 96)).astype(dtype)
    grid = {"crs": UTM, "transform": Affine(GSD_M, 0, X, 0, -GSD_M, Y), "height": 64, "width": 96}
    options = {"driver": "GTiff", "count": count, "dtype": dtype} | grid | profile
    overviews = options.pop("overviews", ())
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **options) as dst:
        dst.write(pixels)
        if mask:
            dst.write_mask(np.arange(64 * 96).reshape(64, 96) % 7 > 0)
        if overviews:
            dst.build_overviews(overviews)


TIFFS: dict[str, dict[str, Any]] = {
    "strips": {"blockysize": 8},
    "tiles": {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate", "overviews": (2, 4)},
    "mask": {"mask": True, "compress": "lzw", "predictor": 2},
    "bigtiff": {"BIGTIFF": "YES", "tiled": True, "blockxsize": 32, "blockysize": 32},
    "big-endian": {"ENDIANNESS": "BIG", "blockysize": 16, "interleave": "band"},
    "cog": {"driver": "COG", "count": 1},
    "alpha": {"count": 4, "alpha": "yes"},
    "float": {"dtype": "float32", "count": 1, "nodata": -9999.0, "predictor": 3, "compress": "deflate"},
    "jpeg": {"compress": "jpeg", "photometric": "ycbcr", "tiled": True, "blockxsize": 16, "blockysize": 16},
    "sparse": {"SPARSE_OK": "TRUE", "dtype": "uint16", "count": 1, "nodata": 0},
}


def make_tiffs(folder: Path) -> list[Seed]:
    """GeoTIFFs of all layouts that matter to geoseg's own reader of directories."""
    seeds = []
    for name, profile in TIFFS.items():
        write = lambda path, profile=profile: _write_tiff(path, **profile)  # noqa: E731
        seeds.append(_seed(folder, f"{name}.tif", write, (mutate.change_tiff, mutate.change_tiff, mutate.change_bytes)))
    return seeds


VRT = """<VRTDataset rasterXSize="96" rasterYSize="64"><SRS>EPSG:32630</SRS>
<GeoTransform>500000, 0.5, 0, 600000, 0, -0.5</GeoTransform>{}</VRTDataset>"""
BAND = """<VRTRasterBand dataType="Byte" band="{0}"{2}>{1}</VRTRasterBand>"""
SOURCE = """<{0}><SourceFilename relativeToVRT="1">{1}</SourceFilename><SourceBand>{2}</SourceBand>
<SrcRect xOff="0" yOff="0" xSize="96" ySize="64"/><DstRect xOff="0" yOff="0" xSize="96" ySize="64"/>{3}</{0}>"""


def make_vrts(folder: Path) -> list[Seed]:
    """Virtual rasters: of one file, of another VRT, with masks and nodata, of raw bytes, with a pixel function."""

    def simple(name: str = "a.tif", kind: str = "SimpleSource", more: str = "") -> str:
        return "".join(BAND.format(band, more + SOURCE.format(kind, name, band, ""), "") for band in (1, 2, 3))

    complex_ = "".join(
        BAND.format(band, "<NoDataValue>0</NoDataValue>" + SOURCE.format("ComplexSource", "a.tif", band, text), "")
        for band, text in ((1, "<NODATA>0</NODATA>"), (2, "<ScaleRatio>2</ScaleRatio>"), (3, "<LUT>0:0,255:9</LUT>"))
    )
    mask = f"<MaskBand>{BAND.format(1, SOURCE.format('SimpleSource', 'a.tif', 'mask,1', ''), '')}</MaskBand>"
    raw = BAND.format(
        1,
        '<SourceFilename relativeToVRT="1">a.raw</SourceFilename><ImageOffset>8</ImageOffset>'
        "<PixelOffset>1</PixelOffset><LineOffset>96</LineOffset>",
        ' subClass="VRTRawRasterBand"',
    )
    derived = BAND.format(
        1,
        "<PixelFunctionType>{}</PixelFunctionType>" + SOURCE.format("SimpleSource", "a.tif", 1, ""),
        ' subClass="VRTDerivedRasterBand"',
    )
    python = derived.format(
        "f</PixelFunctionType><PixelFunctionLanguage>Python</PixelFunctionLanguage><PixelFunctionType>f"
    )
    texts = {
        "simple": simple(),
        "nested": simple("inner.vrt"),
        "overviews": simple(
            more="<Overview><SourceFilename relativeToVRT='1'>a.tif</SourceFilename>"
            "<SourceBand>1</SourceBand></Overview><ColorInterp>Red</ColorInterp>"
        ),
        "complex": complex_,
        "average": simple(kind="AveragedSource"),
        "mask": simple() + mask,
        "raw": raw,
        "derived": derived.format("inv"),
        "python": python,
    }
    words = ("a.tif", "inner.vrt", "../a.tif", "/etc/passwd", "VRTRawRasterBand", "VRTDerivedRasterBand", "Float32")
    words += ("VRTWarpedDataset", "VRTPansharpenedDataset", "CFloat64", "python", *(f"{name}.vrt" for name in texts))
    changes = (lambda rng, data: mutate.change_xml(rng, data, words), *TEXT)
    seeds = []
    for name, text in texts.items():
        whole = VRT.format(text)
        write = lambda path, whole=whole: path.write_text(whole)  # noqa: E731
        seed = _seed(folder, f"{name}.vrt", write, (changes[0], *changes), a_raw=bytes(8 + 96 * 64))
        _write_tiff(seed.entry.with_name("a.tif"), blockysize=16)
        seed.entry.with_name("inner.vrt").write_text(VRT.format(simple()))
        seeds.append(seed)
    return seeds


def read_scene(path: Path) -> None:
    """Open a scene and read its first pixels, from the file itself and from overviews."""
    from geoseg.grid import Window
    from geoseg.scene import close_readers, open_scene

    try:
        scene = open_scene(path)
        for view in (scene, scene.at_shape((max(1, scene.grid.height // 4), max(1, scene.grid.width // 4)))):
            view.read(Window(0, 0, min(32, view.grid.height), min(32, view.grid.width)))
    finally:
        close_readers()


# -------------------------------------------------------------------------------------------------------------- AOIs


def make_aois(folder: Path) -> list[Seed]:
    """Areas as GeoJSON, GeoPackage, Shapefile, FlatGeobuf, GML, KML and GeoParquet."""
    import geopandas
    import shapely

    hole = shapely.Polygon(
        shapely.box(X, Y - 30, X + 40, Y).exterior, [shapely.box(X + 5, Y - 20, X + 9, Y - 9).exterior]
    )
    shapes = [
        hole,
        shapely.MultiPolygon([shapely.box(X + 50, Y - 9, X + 60, Y), shapely.box(X, Y - 50, X + 9, Y - 40)]),
    ]
    frame = geopandas.GeoDataFrame({"split": ["a", "b"], "n": [1, 2]}, geometry=shapes, crs=UTM)
    degrees = frame.to_crs(4326)
    mixed = degrees.iloc[:1].geometry.to_json()
    collection = json.loads(mixed)
    collection["features"][0]["geometry"] = {
        "type": "GeometryCollection",
        "geometries": [collection["features"][0]["geometry"], {"type": "Point", "coordinates": [-3, 5.4, 1]}],
    }
    seeds = [
        _seed(folder, "degrees.geojson", lambda path: degrees.to_file(path), (_change_coordinates, *JSON)),
        _seed(folder, "utm.geojson", lambda path: frame.to_file(path), (_change_coordinates, *JSON)),
        _seed(
            folder, "mixed.geojson", lambda path: path.write_text(json.dumps(collection)), (_change_coordinates, *JSON)
        ),
        _seed(folder, "a.gpkg", lambda path: frame.to_file(path), (mutate.change_bytes,)),
        _seed(folder, "a.fgb", lambda path: frame.to_file(path, driver="FlatGeobuf"), (mutate.change_bytes,)),
        _seed(folder, "a.kml", lambda path: degrees.to_file(path, driver="KML"), (mutate.change_xml, *TEXT)),
        _seed(folder, "a.parquet", lambda path: frame.to_parquet(path), (mutate.change_bytes, _change_parquet)),
    ]
    shapefile = _seed(folder, "a.shp", lambda path: frame.to_file(path), (mutate.change_bytes,))
    files = tuple(sorted(shapefile.entry.parent.iterdir()))
    return [*seeds, Seed(shapefile.entry, files, shapefile.changes)]


def _change_coordinates(rng: Random, data: bytes) -> bytes:
    """Put other numbers into a GeoJSON's coordinates."""
    document = json.loads(data)
    feature = rng.choice(document["features"])
    for _ in range(rng.choice((1, 2, 10))):
        inner = rng.choice(feature["geometry"].get("geometries") or [feature["geometry"]])["coordinates"]
        while isinstance(inner[0], list):
            inner = rng.choice(inner)
        inner[rng.randrange(len(inner))] = rng.choice(
            (0, -180, 180, 360, 90, -90, 91, 1e9, -1e30, 1e308, 5e-324, *mutate.NUMBERS)
        )
    return json.dumps(document).encode()


def read_area(path: Path) -> None:
    """Bring an area to the pixels of a scene, and to degrees."""
    from affine import Affine
    from rasterio.crs import CRS

    from geoseg.errors import GeosegError
    from geoseg.grid import Grid, Window
    from geoseg.inference.aoi import read_aoi, read_aoi_bounds

    grid = Grid(CRS.from_string(UTM), Affine(GSD_M, 0, X, 0, -GSD_M, Y), (64, 96))
    refusals = []
    for read in (lambda: read_aoi_bounds(path), lambda: read_aoi(path, grid).mask(Window(0, 0, 64, 96))):
        try:
            read()
        except GeosegError as err:
            refusals.append(err)
    if refusals:
        raise refusals[0]


READERS = {
    "bundle": Reader(make_bundles, read_bundle),
    "recipe": Reader(make_recipes, read_recipe),
    "manifest": Reader(make_manifests, read_sources),
    "stac": Reader(make_stac, read_sources),
    "tiff": Reader(make_tiffs, read_scene),
    "vrt": Reader(make_vrts, read_scene),
    "aoi": Reader(make_aois, read_area),
}
