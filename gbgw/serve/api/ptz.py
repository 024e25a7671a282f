"""Turning a camera: continuous movement under a lease, presets, cruises, scans, switches, home and exact positions.

Whoever moves a camera has it until a few seconds after his last command. `session` in the query tells pages of one
token apart; `priority` (1 to 10, 5 by default, above that for admin tokens) takes a camera over from a lower one.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from gbgw.base import limits
from gbgw.base.errors import RequestError
from gbgw.gb import control, ptz
from gbgw.gb.answers import CruiseTrack, CruiseTrackPoints, HomePosition, HomePositionAnswer, Preset, Presets
from gbgw.gb.answers import CruiseTracks as CruiseTrackList
from gbgw.gb.answers import PtzPosition as Position
from gbgw.gb.control import Area, Command
from gbgw.gb.manscdp import Field as XmlField
from gbgw.gb.ptz import Motion, PtzCommand
from gbgw.serve.api.shapes import CAMERA, FORCE, Input, Page, channel_of, forced, number_of, page_of
from gbgw.serve.cameras import Steered
from gbgw.serve.openapi import Call, Query, Route

DEFAULT_PRIORITY: Final = 5
HIGHEST: Final = 10
HAND: Final = (
    Query("session", "string", "names the page or program that steers, among those of one token"),
    Query("priority", "integer", "1 to 10; above 5 needs the scope admin"),
)
_BASE: Final = "/devices/{id}/channels/{cid}"

Speed = Annotated[int, Field(ge=-100, le=100)]
PresetName = Annotated[str, Field(max_length=32, pattern=r"^[^\x00-\x1f\x7f]*$")]


class MotionInput(Input):
    """Speeds in percent; all 0 stops."""

    pan: Speed = Field(0, description="right is positive")
    tilt: Speed = Field(0, description="up is positive")
    zoom: Speed = Field(0, description="closer is positive")
    focus: Speed = Field(0, description="to the far is positive")
    iris: Speed = Field(0, description="open is positive")
    seconds: float = Field(
        1.5, gt=0, le=limits.PTZ_LEASE_SECONDS, description="it stops by itself then, unless the same is put again"
    )


class PresetInput(Input):
    """The name, which devices of edition 3.0 take."""

    name: PresetName = ""


class CruiseInput(Input):
    """A cruise anew: what it was before is deleted. Not atomic: each point is a message."""

    presets: list[Annotated[int, Field(ge=1, le=255)]] = Field(min_length=1, max_length=32)
    speed: int | None = Field(None, ge=1, le=4_095)
    stay_seconds: int | None = Field(None, ge=1, le=4_095)
    name: PresetName = ""


class SwitchInput(Input):
    on: bool


class ScanInput(Input):
    speed: int = Field(ge=1, le=4_095)


class HomeInput(Input):
    enabled: bool
    reset_seconds: int | None = Field(None, ge=0, le=86_400, description="without a command until it returns")
    preset: int | None = Field(None, ge=0, le=255)


class PositionInput(Input):
    pan: float = Field(ge=0, le=360, description="degrees clockwise, seen from above")
    tilt: float = Field(ge=-90, le=90, description="degrees downwards")
    zoom: float = Field(1.0, ge=1, le=1_000, description="magnification")


class AreaInput(Input):
    """A box in the picture as the viewer sees it, in pixels from the top left."""

    length: int = Field(ge=1, le=65_535, description="width of the window")
    width: int = Field(ge=1, le=65_535, description="height of the window")
    mid_point_x: int = Field(ge=0, le=65_535)
    mid_point_y: int = Field(ge=0, le=65_535)
    length_x: int = Field(ge=1, le=65_535)
    length_y: int = Field(ge=1, le=65_535)

    def area(self) -> Area:
        return Area(self.length, self.width, self.mid_point_x, self.mid_point_y, self.length_x, self.length_y)


class DragInput(AreaInput):
    direction: Literal["in", "out"]


class TrackInput(Input):
    mode: Literal["Auto", "Manual", "Stop"]
    panorama_id: str = Field("", pattern=r"^[0-9A-Za-z_]{0,32}$", description="channel whose picture the area is in")
    area: AreaInput | None = None


def hand(call: Call) -> tuple[str, int]:
    """The caller's session and priority. Raises RequestError 400, or 403 for a priority above 5 without admin."""
    query = call.request.query
    session = query.get("session", "")[:64]
    text = query.get("priority", str(DEFAULT_PRIORITY))
    if not (text.isascii() and text.isdigit() and len(text) <= 2 and 1 <= int(text) <= HIGHEST):
        raise RequestError(f"priority is 1 to {HIGHEST}.", code="bad_query")
    if int(text) > DEFAULT_PRIORITY and not call.caller.admin:
        raise RequestError(
            f"A priority above {DEFAULT_PRIORITY} needs the scope admin.", status=403, code="scope_missing"
        )
    return session, int(text)


async def _aim(call: Call, *commands: Command) -> None:
    channel = channel_of(call)
    session, priority = hand(call)
    await call.serving.cameras.aim(
        channel.device_id, channel.id, call.caller, session, priority, commands, forced=forced(call)
    )


def _frame(call: Call, command: PtzCommand, *params: XmlField) -> Command:
    return control.ptz(command, priority=hand(call)[1], params=params)


async def get_ptz(call: Call) -> Any:
    channel = channel_of(call)
    return call.serving.cameras.steered(channel.device_id, channel.id, call.caller, hand(call)[0])


async def move_ptz(call: Call) -> Any:
    channel, body = channel_of(call), call.body
    session, priority = hand(call)
    motion = Motion(body.pan, body.tilt, body.zoom, body.focus, body.iris)
    cameras, place = call.serving.cameras, (channel.device_id, channel.id)
    before = cameras.steered(*place, call.caller, session)
    call.audited = not before.mine or Motion(**before.motion) != motion  # renewals are no news
    return await cameras.steer(*place, call.caller, session, motion, body.seconds, priority)


async def stop_ptz(call: Call) -> None:
    channel = channel_of(call)
    await call.serving.cameras.let_go(channel.device_id, channel.id, call.caller, hand(call)[0])


async def list_presets(call: Call) -> Any:
    channel = channel_of(call)
    found = await call.serving.cameras.ask(channel.device_id, channel.id, "PresetQuery", Presets)
    presets = sorted({each.id: each for each in found.presets if each.id is not None}.items())
    return page_of(call, [preset for _, preset in presets], lambda preset: f"{preset.id:03}")


async def set_preset(call: Call) -> None:
    number = number_of(call, "n", ptz.PRESETS)
    name: list[XmlField] = [("PresetName", call.body.name)] if call.body.name else []
    channel = channel_of(call)
    if call.serving.cameras.edition(channel.device_id) != "3.0":
        name = []
    await _aim(call, _frame(call, ptz.preset(ptz.SET_PRESET, number), *name))


async def go_to_preset(call: Call) -> None:
    await _aim(call, _frame(call, ptz.preset(ptz.CALL_PRESET, number_of(call, "n", ptz.PRESETS))))


async def delete_preset(call: Call) -> None:
    await _aim(call, _frame(call, ptz.preset(ptz.DELETE_PRESET, number_of(call, "n", ptz.PRESETS))))


async def list_cruises(call: Call) -> Any:
    channel = channel_of(call)
    found = await call.serving.cameras.ask(
        channel.device_id, channel.id, "CruiseTrackListQuery", CruiseTrackList, since="3.0", forced=forced(call)
    )
    tracks = sorted({each.number: each for each in found.tracks if each.number is not None}.items())
    return page_of(call, [track for _, track in tracks], lambda track: f"{track.number:09}")


async def get_cruise(call: Call) -> Any:
    channel, number = channel_of(call), number_of(call, "n", ptz.GROUPS)
    return await call.serving.cameras.ask(
        channel.device_id,
        channel.id,
        "CruiseTrackQuery",
        CruiseTrackPoints,
        fields=[("Number", number)],
        since="3.0",
        forced=forced(call),
    )


async def set_cruise(call: Call) -> None:
    body, group = call.body, number_of(call, "n", ptz.GROUPS)
    channel = channel_of(call)
    name: list[XmlField] = [("CruiseTrackName", body.name)] if body.name else []
    if call.serving.cameras.edition(channel.device_id) != "3.0":
        name = []
    frames = [ptz.cruise_point(ptz.DELETE_POINT, group, 0)]
    frames += [ptz.cruise_point(ptz.ADD_POINT, group, each) for each in body.presets]
    if body.speed is not None:
        frames.append(ptz.cruise_value(ptz.CRUISE_SPEED, group, body.speed))
    if body.stay_seconds is not None:
        frames.append(ptz.cruise_value(ptz.CRUISE_SECONDS, group, body.stay_seconds))
    await _aim(call, *(_frame(call, frame, *name) for frame in frames))


async def delete_cruise(call: Call) -> None:
    await _aim(call, _frame(call, ptz.cruise_point(ptz.DELETE_POINT, number_of(call, "n", ptz.GROUPS), 0)))


async def start_cruise(call: Call) -> None:
    await _aim(call, _frame(call, ptz.start_cruise(number_of(call, "n", ptz.GROUPS))))


async def start_scan(call: Call) -> None:
    await _aim(call, _frame(call, ptz.scan(number_of(call, "n", ptz.GROUPS))))


async def set_scan_left(call: Call) -> None:
    await _aim(call, _frame(call, ptz.scan(number_of(call, "n", ptz.GROUPS), 1)))


async def set_scan_right(call: Call) -> None:
    await _aim(call, _frame(call, ptz.scan(number_of(call, "n", ptz.GROUPS), 2)))


async def set_scan(call: Call) -> None:
    await _aim(call, _frame(call, ptz.scan_speed(number_of(call, "n", ptz.GROUPS), call.body.speed)))


async def set_switch(call: Call) -> None:
    await _aim(call, _frame(call, ptz.switch(number_of(call, "n", range(256)), on=call.body.on)))


async def get_home(call: Call) -> Any:
    channel = channel_of(call)
    found = await call.serving.cameras.ask(
        channel.device_id, channel.id, "HomePositionQuery", HomePositionAnswer, since="3.0", forced=forced(call)
    )
    return found.home_position or HomePosition()


async def set_home(call: Call) -> None:
    body: HomeInput = call.body
    await _aim(call, control.home_position(HomePosition(body.enabled, body.reset_seconds, body.preset)))


async def get_position(call: Call) -> Any:
    channel = channel_of(call)
    return await call.serving.cameras.ask(
        channel.device_id, channel.id, "PTZPosition", Position, since="3.0", forced=forced(call)
    )


async def set_position(call: Call) -> None:
    await _aim(call, control.ptz_precise(call.body.pan, call.body.tilt, call.body.zoom))


async def drag_zoom(call: Call) -> None:
    await _aim(call, control.drag_zoom(call.body.area(), closer=call.body.direction == "in"))


async def track_target(call: Call) -> None:
    body: TrackInput = call.body
    if body.mode == "Manual" and body.area is None:
        raise RequestError("Manual tracking needs an area.", code="bad_body", remedy="/api/docs shows the fields.")
    area = body.area.area() if body.area is not None else None
    await _aim(call, control.target_track(body.mode, body.panorama_id, area))


def _command(
    method: Literal["POST", "PUT", "DELETE"],
    path: str,
    call: Any,
    summary: str,
    audit: str,
    body: type[Input] | None = None,
    *,
    idempotent: bool = True,
    force: bool = False,
) -> Route:
    query = (*HAND, FORCE) if force else HAND
    return Route(
        method, _BASE + path, call, summary, "control", body=body, idempotent=idempotent, query=query,
        errors=CAMERA, audit=audit,
    )  # fmt: skip


ROUTES: Final[tuple[Route, ...]] = (
    Route("GET", f"{_BASE}/ptz", get_ptz, "Who steers a camera", "view", Steered, query=HAND[:1], errors=(404,)),
    Route(
        "PUT",
        f"{_BASE}/ptz",
        move_ptz,
        "Move a camera for some seconds; put again, it goes on",
        "control",
        Steered,
        MotionInput,
        query=HAND,
        errors=CAMERA,
        audit="ptz.move",
    ),
    _command("DELETE", "/ptz", stop_ptz, "Stop a camera and give it back", "ptz.stop"),
    Route(
        "GET",
        f"{_BASE}/ptz/position",
        get_position,
        "Where a camera looks (edition 3.0)",
        "view",
        Position,
        query=(FORCE,),
        errors=CAMERA,
    ),
    _command(
        "PUT",
        "/ptz/position",
        set_position,
        "Turn a camera to a position (3.0)",
        "ptz.position",
        PositionInput,
        force=True,
    ),
    _command(
        "POST", "/ptz/drag-zoom", drag_zoom, "Zoom to a box, or out of it", "ptz.drag-zoom", DragInput, idempotent=False
    ),
    _command("PUT", "/target-track", track_target, "Follow a target (3.0)", "target-track", TrackInput, force=True),
    Route(
        "GET", f"{_BASE}/presets", list_presets, "Presets of a camera", "view", Page[Preset], paged=True, errors=CAMERA
    ),
    _command("PUT", "/presets/{n}", set_preset, "Keep where a camera looks as a preset", "preset.set", PresetInput),
    _command("DELETE", "/presets/{n}", delete_preset, "Delete a preset", "preset.delete"),
    _command("POST", "/presets/{n}/goto", go_to_preset, "Turn a camera to a preset", "preset.goto"),
    Route(
        "GET",
        f"{_BASE}/cruises",
        list_cruises,
        "Cruises of a camera (3.0)",
        "view",
        Page[CruiseTrack],
        paged=True,
        query=(FORCE,),
        errors=CAMERA,
    ),
    Route(
        "GET",
        f"{_BASE}/cruises/{{n}}",
        get_cruise,
        "Points of a cruise (3.0)",
        "view",
        CruiseTrackPoints,
        query=(FORCE,),
        errors=CAMERA,
    ),
    _command("PUT", "/cruises/{n}", set_cruise, "Make a cruise of presets", "cruise.set", CruiseInput),
    _command("DELETE", "/cruises/{n}", delete_cruise, "Delete a cruise", "cruise.delete"),
    _command("POST", "/cruises/{n}/start", start_cruise, "Start a cruise; DELETE ptz stops it", "cruise.start"),
    _command("PUT", "/scans/{n}", set_scan, "Set the speed of a scan", "scan.set", ScanInput),
    _command("POST", "/scans/{n}/start", start_scan, "Start a scan; DELETE ptz stops it", "scan.start"),
    _command("POST", "/scans/{n}/left", set_scan_left, "The scan ends here on its left", "scan.left"),
    _command("POST", "/scans/{n}/right", set_scan_right, "The scan ends here on its right", "scan.right"),
    _command("PUT", "/switches/{n}", set_switch, "Switch an auxiliary; 1 is the wiper", "switch", SwitchInput),
    Route(
        "GET",
        f"{_BASE}/home",
        get_home,
        "Where a camera returns to (3.0)",
        "view",
        HomePosition,
        query=(FORCE,),
        errors=CAMERA,
    ),
    _command("PUT", "/home", set_home, "Set where a camera returns to", "home", HomeInput),
)
