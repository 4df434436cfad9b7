"""The assets of a STAC Item, and which of them is the scene."""

from collections.abc import Sequence
from dataclasses import dataclass

from geoseg.errors import AssetError
from geoseg.io.suffixes import SCENE_SUFFIXES
from geoseg.sources.location import suffix_of

RASTER_TYPES = ("image/", "application/x-geotiff", "application/geotiff")
"""How the media types of rasters begin: https://github.com/radiantearth/stac-spec/blob/master/best-practices.md."""

LESSER_ROLES = frozenset(("thumbnail", "overview", "metadata"))
"""Roles of pictures about a scene, which are not it."""

MAIN_ROLES = frozenset(("data", "visual"))
MAIN_KEYS = ("visual", "image", "data")
"""Tried in this order where several rasters are left."""


@dataclass(frozen=True, slots=True)
class Asset:
    """One file of an Item.

    Attributes:
        key: Its name among the Item's assets.
        href: Where it is, as the Item says it.
        media_type: Such as `image/tiff; application=geotiff`.
        roles: Such as `data` or `thumbnail`.
    """

    key: str
    href: str
    media_type: str | None = None
    roles: tuple[str, ...] = ()

    @property
    def is_raster(self) -> bool:
        """True where the media type says so, or the suffix where there is no type."""
        if self.media_type:
            return self.media_type.strip().lower().startswith(RASTER_TYPES)
        return suffix_of(self.href) in SCENE_SUFFIXES

    @property
    def is_full(self) -> bool:
        """True unless it is only a picture about the scene."""
        return not LESSER_ROLES & set(self.roles) or bool(MAIN_ROLES & set(self.roles))

    def __str__(self) -> str:
        roles = f"; {', '.join(self.roles)}" if self.roles else ""
        return f"{self.key} ({self.media_type or 'no media type'}{roles})"


def choose_asset(assets: Sequence[Asset], wanted: str | None, item: str) -> Asset:
    """Choose the scene among an Item's assets.

    The wanted one; else the only raster that is no thumbnail; else the only one with the role data or visual; else the
    one with the key visual, image or data.

    Args:
        assets: Of one Item.
        wanted: Key of the asset that the user asked for.
        item: How messages call the Item.

    Raises:
        AssetError: If the wanted one is not there, there is no raster, or several and no rule to choose.
    """
    if wanted is not None:
        chosen = next((asset for asset in assets if asset.key == wanted), None)
        if chosen is None:
            raise AssetError(f"{item} has no asset {wanted}. Found: {_show(assets)}. Name one of these with `asset`.")
        return chosen
    rasters = {asset.key: asset for asset in assets if asset.is_raster and asset.is_full}
    if not rasters:
        raise AssetError(
            f"{item} has no raster among its assets. Found: {_show(assets)}. "
            "Name one with `asset` if GDAL can read it all the same."
        )
    main = [asset for asset in rasters.values() if MAIN_ROLES & set(asset.roles)] or list(rasters.values())
    if len(main) == 1:
        return main[0]
    usual = next((rasters[key] for key in MAIN_KEYS if key in rasters), None)
    if usual is None:
        raise AssetError(
            f"{item} has {len(main)} rasters that could be the scene: {_show(main)}. "
            f"Name one with `asset`, such as `asset='{main[0].key}'`."
        )
    return usual


def _show(assets: Sequence[Asset]) -> str:
    return ", ".join(map(str, assets)) or "no assets at all"
