"""Identity codes of GB/T 28181-2016 and -2022: 20 digits, their type, and what an operator may make up instead.

Ids are strings everywhere, never integers. Device ids come from the network only as 20 digits; another form is
accepted for a device that the operator created by hand. No id may contain "-", since stream keys are DEVICE-CHANNEL.
"""

import re
from enum import Enum
from typing import Final

from gbgw.base.errors import RequestError

_GB_ID: Final = re.compile(r"[0-9]{20}")
_OPAQUE: Final = re.compile(r"[0-9A-Za-z_]{1,32}")
_REGION: Final = re.compile(r"(?:[0-9]{2}){1,4}")
_KEY: Final = re.compile(r"([0-9A-Za-z_]{1,32})-([0-9A-Za-z_]{1,32})")

BUSINESS_GROUP: Final = 215
VIRTUAL_ORGANISATION: Final = 216
_NOT_PLAYABLE: Final = frozenset({134, 135, 136, 137, 140, *range(200, 217)})


class IdClass(Enum):
    """What a type code (digits 11 to 13) stands for."""

    FRONT_END = "front-end device"
    PERIPHERAL = "front-end peripheral"
    PLATFORM = "platform equipment"
    BUSINESS_GROUP = "business group"
    VIRTUAL_ORGANISATION = "virtual organisation"
    CENTRE_USER = "centre user"
    TERMINAL_USER = "terminal user"
    EXTERNAL = "external server"
    EXTENSION = "extension"
    REGION = "administrative region"
    OPAQUE = "opaque"


_RANGES: Final = (
    (111, 130, IdClass.FRONT_END),
    (131, 199, IdClass.PERIPHERAL),
    (215, 215, IdClass.BUSINESS_GROUP),
    (216, 216, IdClass.VIRTUAL_ORGANISATION),
    (200, 299, IdClass.PLATFORM),
    (300, 399, IdClass.CENTRE_USER),
    (400, 499, IdClass.TERMINAL_USER),
    (500, 599, IdClass.EXTERNAL),
)


def is_gb_id(text: str) -> bool:
    """Tell whether `text` is a 20-digit code (ASCII digits only)."""
    return _GB_ID.fullmatch(text) is not None


def is_opaque_id(text: str) -> bool:
    """Tell whether an operator may give `text` to a device made by hand: 1 to 32 of [0-9A-Za-z_], no "-"."""
    return _OPAQUE.fullmatch(text) is not None


def is_region(text: str) -> bool:
    """Tell whether `text` is the code of an administrative region: 2, 4, 6 or 8 digits."""
    return _REGION.fullmatch(text) is not None


def check_device_id(text: str, *, by_operator: bool = False) -> str:
    """Return `text` if a device may have this id.

    by_operator: the operator creates the device by hand, so that forms other than 20 digits are allowed.
    Raises RequestError with code "id_invalid".
    """
    if is_gb_id(text) or (by_operator and is_opaque_id(text)):
        return text
    shown = text[:40]
    if by_operator:
        raise RequestError(
            f"{shown!r} cannot be the id of a device",
            code="id_invalid",
            remedy="use 20 digits, or 1 to 32 letters, digits and _ ('-' separates device and channel)",
        )
    raise RequestError(
        f"{shown!r} is not a 20-digit code", code="id_invalid", remedy="set the device's id to 20 digits"
    )


def type_code(text: str) -> int | None:
    """Return digits 11 to 13 of a 20-digit code, None for any other id."""
    return int(text[10:13]) if is_gb_id(text) else None


def classify(text: str) -> IdClass:
    """Return what kind of object `text` names; unknown types are EXTENSION."""
    code = type_code(text)
    if code is None:
        return IdClass.REGION if is_region(text) else IdClass.OPAQUE
    for first, last, kind in _RANGES:
        if first <= code <= last:
            return kind
    return IdClass.EXTENSION


def is_channel(text: str) -> bool:
    """Tell whether a catalog item with this id may be played.

    Type codes of cameras vary between vendors (119 to 129 were seen), so everything is a channel except alarm and
    voice peripherals, platforms, groups, organisations and regions.
    """
    code = type_code(text)
    if code is None:
        return not is_region(text)
    return code not in _NOT_PLAYABLE


def stream_key(device_id: str, channel_id: str) -> str:
    """Return the stream key DEVICE-CHANNEL."""
    return f"{device_id}-{channel_id}"
