"""What gbgw uses of aiortc and aioice that is not part of their interface: reached by name, and refused by name when a
version does not have it.

PINNED is what it is made for; each place is held by a test.
"""

from importlib import metadata
from typing import Any, Final

from aioice.ice import Connection as IceConnection
from aiortc import RTCPeerConnection, rtcrtpreceiver, rtcrtpsender

from gbgw.base import limits
from gbgw.base.errors import LocalError

PINNED: Final = "aiortc 1.16 and aioice 0.13"


def internal(owner: object, name: str) -> Any:
    """An attribute of aiortc or aioice that is not part of their interface. Raises LocalError when it is gone."""
    try:
        return getattr(owner, name)
    except AttributeError:
        raise changed(owner, name) from None


def replace(owner: object, name: str, value: object) -> None:
    """Put `value` in the place of an internal method or field of one object. Raises LocalError when there is none."""
    if not hasattr(owner, name):
        raise changed(owner, name)
    setattr(owner, name, value)


def changed(owner: object, name: str) -> LocalError:
    kind = owner.__name__ if isinstance(owner, type) or hasattr(owner, "__name__") else type(owner).__name__
    found = ", ".join(f"{package} {metadata.version(package)}" for package in ("aiortc", "aioice"))
    return LocalError(
        f"{kind} has no {name}: WebRTC here is made for {PINNED}, and {found} is installed.",
        code="webrtc_version",
        remedy=f"Install {PINNED}.",
    )


def check_internals() -> None:
    """Look for everything internal that can be seen without a connection; let senders keep more for NACK, and receivers
    do without the thousand objects that estimate what a viewer might send: viewers send no pictures.

    Raises LocalError `webrtc_version`.
    """
    for owner, names in (
        (RTCPeerConnection, ("_RTCPeerConnection__connect", "_RTCPeerConnection__gather")),
        (rtcrtpsender.RTCRtpSender, ("_send_keyframe", "_next_encoded_frame")),
        (IceConnection, ("get_component_candidates", "check_incoming")),
    ):
        for name in names:
            internal(owner, name)
    replace(rtcrtpsender, "RTP_HISTORY_SIZE", limits.WEBRTC_HISTORY)
    replace(rtcrtpreceiver, "RemoteBitrateEstimator", _no_estimator)


def _no_estimator() -> None:
    """In the place of a class, as for sound: aiortc looks whether there is one."""
