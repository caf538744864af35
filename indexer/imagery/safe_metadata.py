"""What the metadata of a Sentinel-2 product tell: time, baseline, and how numbers are scaled."""

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from xml.parsers import expat

from indexer.errors import ImageryError, InvalidInputError
from indexer.sensors import (
    HAND_PROCESSED,
    PROFILES,
    QUANTIFICATION,
    canonical_band,
    offset_dn,
    parse_baseline,
)

# Names of elements: Sentinel-2 Products Specification Document, S2-PDGS-TAS-DI-PSD-V15, annexes of
# the Level-1C and Level-2A user products; those with L2A_ are of baselines before 02.08.
_TIMES: Final = ("DATATAKE_SENSING_START", "PRODUCT_START_TIME")
_QUANTIFICATIONS: Final = (
    "BOA_QUANTIFICATION_VALUE",
    "L2A_BOA_QUANTIFICATION_VALUE",
    "QUANTIFICATION_VALUE",
)
_OFFSETS: Final = ("BOA_ADD_OFFSET", "RADIO_ADD_OFFSET")
# Digital numbers of any product fit into 16 bits.
_LEAST_QUANTIFICATION: Final = 1e-6
_ROOTS: Final = ("Level-1C_User_Product", "Level-2A_User_Product")


@dataclass(frozen=True)
class ProductMetadata:
    """The part of a product's metadata that reading its bands needs."""

    acquired_at: datetime | None = None
    """Beginning of the datatake, aware UTC; None where it is not stated."""
    processing_baseline: str | None = None
    """As ``parse_baseline`` returns it; None where it is not stated."""
    quantification: float = QUANTIFICATION
    """Digital numbers per unit of reflectance."""
    offsets_dn: Mapping[str, float] = field(default_factory=dict)
    """What is added to the digital numbers of each band first, where that is stated."""

    def offset_dn(self, band: str) -> float:
        """What is added to a band's digital numbers before they are divided.

        Products before baseline 04.00 state none; where a later one does not, the rule for its
        baseline holds.
        """
        rule = offset_dn(self.processing_baseline, self.acquired_at)
        return self.offsets_dn.get(band, rule)


def parse_metadata(content: bytes, file: str) -> ProductMetadata:
    """Read ``MTD_MSIL1C.xml`` or ``MTD_MSIL2A.xml``, or what these were called before 2016.

    Args:
        content: Of the file, of bounded size.
        file: Product and file, for messages.

    Raises:
        ImageryError: ``header-invalid``, if it is no XML, or of another kind, or defines entities,
            or states what cannot be.
    """
    elements = _Elements(file)
    parser = expat.ParserCreate()
    # Else each line break is a text of its own.
    parser.buffer_text = True
    parser.StartElementHandler = elements.start
    parser.CharacterDataHandler = elements.text
    parser.EndElementHandler = elements.end
    # Without a document type there are no entities: none to fetch, and none to multiply.
    parser.StartDoctypeDeclHandler = elements.refuse_doctype
    try:
        parser.Parse(content, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise _invalid(file, f"is no XML that can be read ({error})") from error
    return elements.metadata()


@dataclass
class _Elements:
    """The elements that are looked for, gathered while a document is parsed."""

    file: str
    root: str | None = None
    texts: dict[str, str] = field(default_factory=dict)
    """First text of each element of a kind that stands once."""
    offsets: dict[str, str] = field(default_factory=dict)
    """Offset of each band's number."""
    band_names: dict[str, str] = field(default_factory=dict)
    """Physical name of each band's number."""
    _open: str | None = None
    _number: str = ""
    _text: list[str] = field(default_factory=list)

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        name = tag.rpartition(":")[2]
        self.root = self.root or name
        self._open, self._text = name, []
        self._number = attributes.get("band_id", "").strip()
        if name == "Spectral_Information":
            self.band_names[attributes.get("bandId", "")] = attributes.get("physicalBand", "")

    def text(self, text: str) -> None:
        self._text.append(text)

    def end(self, tag: str) -> None:
        name, text = tag.rpartition(":")[2], "".join(self._text).strip()
        if name == self._open and name in _OFFSETS:
            self.offsets.setdefault(self._number, text)
        elif name == self._open and text:
            self.texts.setdefault(name, text)
        self._open = None

    def refuse_doctype(self, *_: object) -> None:
        raise _invalid(self.file, "declares a document type, which no product does")

    def metadata(self) -> ProductMetadata:
        if self.root not in _ROOTS:
            raise _invalid(self.file, f"holds {str(self.root)[:60]!r}, not a Sentinel-2 product")
        stated = next((self.texts[name] for name in _QUANTIFICATIONS if name in self.texts), None)
        quantification = QUANTIFICATION if stated is None else self._number_in(stated)
        if not _LEAST_QUANTIFICATION <= quantification <= 1 / _LEAST_QUANTIFICATION:
            raise _invalid(self.file, f"states a quantification value of {stated}")
        offsets = {
            band: self._number_in(text)
            for number, text in self.offsets.items()
            if (band := self._band(number)) is not None
        }
        return ProductMetadata(self._time(), self._baseline(), quantification, offsets)

    def _band(self, number: str) -> str | None:
        if number in self.band_names:
            return canonical_band(self.band_names[number])
        order = PROFILES["l1c"]
        known = number.isascii() and number.isdigit() and len(number) < 3
        return order[int(number)] if known and int(number) < len(order) else None

    def _number_in(self, text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise _invalid(self.file, f"states {text[:40]!r} where a number should be")
        return number

    def _time(self) -> datetime | None:
        for name in _TIMES:
            with suppress(ValueError):
                moment = datetime.fromisoformat(self.texts.get(name, ""))
                if moment.tzinfo is None:
                    return moment.replace(tzinfo=UTC)
                return moment.astimezone(UTC)
        return None

    def _baseline(self) -> str | None:
        with suppress(InvalidInputError):
            baseline = parse_baseline(self.texts.get("PROCESSING_BASELINE", ""))
            return None if baseline == HAND_PROCESSED else baseline
        return None


def _invalid(file: str, found: str) -> ImageryError:
    return ImageryError(f"{file}: {found}. Fetch the product again.", kind="header-invalid")
