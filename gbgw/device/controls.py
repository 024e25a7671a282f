"""What a simulated device does when it is told: the head of each camera, presets, guard, recording, parameters, SD
cards, snapshots, upgrade and restart. sans-IO; one object for the life of the device, restarts included, as its flash
memory would be.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import Any, Final

from gbgw.base import limits
from gbgw.base.errors import ManscdpError, RequestError
from gbgw.device.mount import Mount
from gbgw.device.options import DeviceOptions
from gbgw.gb import answers, manscdp, parameters, schema
from gbgw.gb.answers import (
    AlarmDuty,
    CruiseTrack,
    CruiseTracks,
    DutyList,
    HomePosition,
    HomePositionAnswer,
    Presets,
    SdCard,
    SdCards,
    SnapshotsDone,
    UpgradeResult,
)
from gbgw.gb.control import Area
from gbgw.gb.manscdp import DeviceControl, DeviceStatus, Document, Edition, Field
from gbgw.gb.parameters import BasicParam, SnapShotConfig, VideoParamOpt
from gbgw.gb.ptz import PtzCommand
from gbgw.gb.xml import Element
from gbgw.mux.view import AHEAD, View

BEIJING: Final = timezone(timedelta(hours=8))
CARD_MEGABYTES: Final = 64_000
FORMAT_SECONDS: Final = 4.0


@dataclass(frozen=True, slots=True)
class Restart:
    """Go away without a word and come back."""


@dataclass(frozen=True, slots=True)
class TakePictures:
    """Take pictures of a channel, upload them, and say `done` when that is over."""

    channel_id: str
    order: SnapShotConfig


Effect = Restart | TakePictures


@dataclass(slots=True)
class _Camera:
    """One channel."""

    mount: Mount = field(default_factory=Mount)
    recording: bool = False
    armed: bool = False
    groups: dict[str, Any] = field(default_factory=dict)  # fields of Parameters that were set
    formatting_since: float | None = None


class Controls:
    """Obeys DeviceControl and DeviceConfig and answers the queries about what came of it."""

    def __init__(self, options: DeviceOptions) -> None:
        self._options = options
        self._known = frozenset((options.device_id, *options.channel_ids))
        self._cameras: dict[str, _Camera] = {}  # of those that were ever told or asked anything
        self._upgrade: UpgradeResult | None = None
        self.firmware = "1"
        self.wrong_frames = 0  # PTZCmd whose checksum or length was wrong

    @property
    def _edition(self) -> Edition:
        return self._options.edition or manscdp.DEFAULT_EDITION

    def _camera(self, target: str) -> _Camera | None:
        """Return what is kept of the device or one of its channels; None for any other id."""
        return self._cameras.setdefault(target, _Camera()) if target in self._known else None

    def view(self, channel_id: str, now: float) -> View:
        camera = self._cameras.get(channel_id)
        return camera.mount.view(now) if camera is not None else AHEAD

    def recording(self, channel_id: str) -> bool:
        camera = self._cameras.get(channel_id)
        return camera is not None and camera.recording

    def control(self, document: Document, now: float) -> tuple[bytes | None, Sequence[Effect]]:
        """Obey a DeviceControl; return the Result to send, where the standard has one, and what the shell must do."""
        sn, target = document.sn or 0, document.device_id
        assert isinstance(document.payload, DeviceControl)
        command = document.payload.command.lower()
        camera = self._camera(target)
        if camera is None:
            return (self._result(document, ok=False) if command in _ANSWERED else None), ()
        element, value = document.element, document.payload.value
        inside = element.find(document.payload.command) or Element("", "")
        ok, effects = True, ()
        match command:
            case "ptzcmd":
                self._ptz(camera, element, value, now)
            case "ptzprecisectrl":
                camera.mount.look(View(*(_decimal(inside, each) for each in ("Pan", "Tilt", "Zoom"))), now)
            case "dragzoomin" | "dragzoomout":
                _drag(camera.mount, inside, now, closer=command == "dragzoomin")
            case "homeposition":
                ok = self._set_home(camera, inside)
            case "recordcmd":
                camera.recording = value.lower() == "record"
            case "guardcmd":
                camera.armed = value.lower() == "setguard"
            case "formatsdcard":
                camera.formatting_since = now
            case "teleboot":
                return None, (Restart(),)
            case "deviceupgrade":
                self.firmware = inside.get("Firmware")[:64] or self.firmware
                self._upgrade = UpgradeResult(inside.get("SessionID"), "OK", self.firmware)
                return manscdp.result("DeviceControl", sn, target, edition=self._edition), (Restart(),)
        return (self._result(document, ok=ok) if command in _ANSWERED else None), effects

    def configure(self, document: Document) -> tuple[bytes, Sequence[Effect]]:
        """Take a DeviceConfig; return its Result and what the shell must do."""
        found = {name: value for name, value in parameters.read(document.element).items() if value is not None}
        camera = self._camera(document.device_id)
        if camera is None or len(found) != 1 or any(not parameters.group_of(name).settable for name in found):
            return self._result(document, ok=False), ()
        order = found.get("snap_shot_config")
        if isinstance(order, SnapShotConfig):
            good = bool(order.upload_url and order.session_id and 1 <= (order.snap_num or 0) <= limits.SNAPSHOT_FILES)
            pictures = TakePictures(document.device_id, order)
            return self._result(document, ok=good), (pictures,) if good else ()
        camera.groups |= found
        return self._result(document, ok=True), ()

    def notices(self, sn: int) -> Iterable[bytes]:
        """Return what is to be told after a restart."""
        if self._upgrade is not None:
            report, self._upgrade = self._upgrade, None
            yield self._notify("DeviceUpgradeResult", sn, self._options.device_id, schema.write(report))

    def pictures_sent(self, sn: int, pictures: TakePictures, files: Sequence[str]) -> bytes:
        done = SnapshotsDone(pictures.order.session_id, tuple(files))
        return self._notify("UploadSnapShotFinished", sn, pictures.channel_id, schema.write(done))

    def answer(self, document: Document, now: float, *, encoding: bool) -> bytes | None:
        """Return the answer to a query that concerns this; None for all others. encoding: somebody watches."""
        target, element = document.device_id, document.element
        camera = self._camera(target)
        if camera is None:
            return None
        record: Any
        match document.cmd_type:
            case "DeviceStatus":
                return self._status(document, camera, encoding=encoding)
            case "ConfigDownload":
                return self._download(document, camera)
            case "PresetQuery":
                record = Presets(camera.mount.presets())
            case "HomePositionQuery":
                record = HomePositionAnswer(camera.mount.home)
            case "CruiseTrackListQuery":
                record = CruiseTracks(camera.mount.cruises())
            case "CruiseTrackQuery":
                record = camera.mount.cruise(answers.read(CruiseTrack, element).number or 0)
            case "PTZPosition":
                record = camera.mount.position(now)
            case "SDCardStatus":
                record = SdCards((self._card(camera, now),))
            case _:
                return None
        return self._response(document, schema.write(record))

    def _ptz(self, camera: _Camera, element: Element, value: str, now: float) -> None:
        params = element.find("PTZCmdParams") or Element("", "")
        try:
            frame = PtzCommand.parse(value)
        except ManscdpError:
            self.wrong_frames += 1
            return
        camera.mount.obey(frame, now, params.get("PresetName", "CruiseTrackName")[:32])

    @staticmethod
    def _set_home(camera: _Camera, inside: Element) -> bool:
        home = schema.read(HomePosition, inside)
        if home.enabled is None:
            return False
        before = camera.mount.home
        camera.mount.home = HomePosition(
            home.enabled,
            home.reset_time if home.reset_time is not None else before.reset_time,
            home.preset_index if home.preset_index is not None else before.preset_index,
        )
        return True

    @staticmethod
    def _card(camera: _Camera, now: float) -> SdCard:
        spent = now - camera.formatting_since if camera.formatting_since is not None else FORMAT_SECONDS
        if spent >= FORMAT_SECONDS:
            return SdCard(1, "sd1", "ok", 100, CARD_MEGABYTES, CARD_MEGABYTES)
        return SdCard(1, "sd1", "formatting", int(100 * spent / FORMAT_SECONDS), CARD_MEGABYTES, 0)

    def _status(self, document: Document, camera: _Camera, *, encoding: bool) -> bytes:
        duty = "ONDUTY" if camera.armed else "OFFDUTY"
        clock = datetime.now(BEIJING).strftime("%Y-%m-%dT%H:%M:%S")
        status = DeviceStatus(True, True, True, encoding=encoding, recording=camera.recording, device_time=clock)
        inputs = schema.write(DutyList((AlarmDuty(document.device_id, duty),)))
        return manscdp.device_status(document.sn or 0, document.device_id, status, self._edition, inputs)

    def _download(self, document: Document, camera: _Camera) -> bytes:
        fields: list[Field] = [("Result", "OK")]
        for name in document.element.get("ConfigType")[:512].split("/"):
            try:
                group = parameters.group_of(name)
            except RequestError:
                continue
            value = camera.groups.get(group.field)
            if group.field == "basic_param":
                own = BasicParam(self._options.name, self._options.expires_seconds)
                own = replace(
                    own,
                    heart_beat_interval=round(self._options.keepalive_seconds),
                    heart_beat_count=self._options.keepalive_misses,
                )
                value = _over(own, value)
            elif group.field == "video_param_opt":
                value = VideoParamOpt("1/2/4", "5/6")
            elif value is None:
                value = 0 if group.record is int else group.record()
            fields.append(parameters.write(group, value))
        return self._response(document, fields)

    def _result(self, document: Document, *, ok: bool) -> bytes:
        return manscdp.result(document.cmd_type, document.sn or 0, document.device_id, ok=ok, edition=self._edition)

    def _response(self, document: Document, fields: Iterable[Field]) -> bytes:
        head: list[Field] = [("CmdType", document.cmd_type), ("SN", document.sn or 0), ("DeviceID", document.device_id)]
        return manscdp.write("Response", [*head, *fields], self._edition)

    def _notify(self, cmd_type: str, sn: int, target: str, fields: Iterable[Field]) -> bytes:
        head: list[Field] = [("CmdType", cmd_type), ("SN", sn), ("DeviceID", target)]
        return manscdp.write("Notify", [*head, *fields], self._edition)


_ANSWERED: Final = frozenset(("recordcmd", "guardcmd", "alarmcmd", "homeposition", "deviceupgrade"))  # reference 3.1


def _decimal(element: Element, name: str) -> float:
    value = answers.read(answers.PtzPosition, element)
    found = {"Pan": value.pan, "Tilt": value.tilt, "Zoom": value.zoom}[name]
    return found if found is not None else (1.0 if name == "Zoom" else 0.0)


def _drag(mount: Mount, inside: Element, now: float, *, closer: bool) -> None:
    """Centre the box, and make it as large as the picture, or the picture as small as the box."""
    area = schema.read(_Area, inside)
    values = [getattr(area, name) for name in Area.__dataclass_fields__]
    if any(not isinstance(value, int) or value < 0 for value in values) or not (area.length and area.width):
        return
    size = max((area.length_x or 1) / area.length, (area.length_y or 1) / area.width)
    across = (area.mid_point_x or 0) / area.length - 0.5
    down = (area.mid_point_y or 0) / area.width - 0.5
    mount.drag(across, down, 1 / size if closer else size, now)


@dataclass(frozen=True, slots=True)
class _Area:
    """As Area, each of its numbers perhaps absent."""

    length: int | None = None
    width: int | None = None
    mid_point_x: int | None = None
    mid_point_y: int | None = None
    length_x: int | None = None
    length_y: int | None = None


def _over(below: BasicParam, above: BasicParam | None) -> BasicParam:
    """Return `below` with what of `above` is set."""
    if above is None:
        return below
    given = {name: value for name in BasicParam.__dataclass_fields__ if (value := getattr(above, name)) is not None}
    return replace(below, **given)
