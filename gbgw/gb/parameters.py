"""The parameter groups of a device, of both editions: ConfigDownload reads them, DeviceConfig sets one at a time
(GB/T 28181-2016 A.2.3.2 and A.2.6.8; -2022 A.2.3.2 and A.2.6.9; reference 3.10).

A field that is None is not sent and was not told. Leaves out what vendors add (Hikvision's platform address and
password in BasicParam is never kept).
"""

from dataclasses import dataclass
from typing import Any, Final

from gbgw.base.errors import RequestError
from gbgw.gb import schema
from gbgw.gb.manscdp import Edition, Field
from gbgw.gb.schema import named
from gbgw.gb.xml import Element


@dataclass(frozen=True, slots=True)
class BasicParam:
    """Who the device is and how often it shows that it lives."""

    name: str | None = None
    expiration: int | None = None  # seconds of a registration
    heart_beat_interval: int | None = None  # seconds
    heart_beat_count: int | None = None  # keepalives without answer before it registers anew
    position_capability: int | None = None  # 0 none, 1 GPS, 2 BeiDou; told by 2.0 devices, not set
    longitude: float | None = None  # degrees, likewise
    latitude: float | None = None


@dataclass(frozen=True, slots=True)
class VideoParamOpt:
    """What the device can do; read only."""

    download_speed: str = ""  # "1/2/4"
    resolution: str = ""  # codes of f=, joined by "/"


@dataclass(frozen=True, slots=True)
class RegionOfInterest:
    roi_seq: int | None = named("ROISeq")  # 1 to 16
    top_left: int | None = None
    bottom_right: int | None = None
    roi_qp: int | None = named("ROIQP")  # 0 plain to 3 best


@dataclass(frozen=True, slots=True)
class RoiParam:
    roi_flag: int | None = named("ROIFlag")
    roi_number: int | None = named("ROINumber")
    items: tuple[RegionOfInterest, ...] = named("Item", default=(), most=16)
    back_ground_qp: int | None = named("BackGroundQP")
    back_ground_skip_flag: int | None = None


@dataclass(frozen=True, slots=True)
class SvcParam:
    svc_space_domain_mode: int | None = named("SVCSpaceDomainMode")
    svc_time_domain_mode: int | None = named("SVCTimeDomainMode")
    ssvc_ratio_value: str | None = named("SSVCRatioValue")  # 3.0
    svc_space_support_mode: int | None = named("SVCSpaceSupportMode")
    svc_time_support_mode: int | None = named("SVCTimeSupportMode")
    ssvc_ratio_support_list: str | None = named("SSVCRatioSupportList")  # 3.0
    svc_stm_mode: int | None = named("SVCSTMMode")  # of the decoder


@dataclass(frozen=True, slots=True)
class SurveillanceParam:
    time_flag: int | None = None
    event_flag: int | None = None  # 2.0
    alert_flag: int | None = None  # 2.0
    osd_flag: int | None = named("OSDFlag")
    ai_flag: int | None = named("AIFlag")
    gis_flag: int | None = named("GISFlag")


@dataclass(frozen=True, slots=True)
class ShownParam:
    time_show_flag: int | None = None
    event_show_flag: int | None = None  # 2.0
    aler_showt_flag: int | None = None  # 2.0, so spelt in its schema
    osd_show_flag: int | None = named("OSDShowFlag")
    ai_show_flag: int | None = named("AIShowFlag")
    gis_show_flag: int | None = named("GISShowFlag")


@dataclass(frozen=True, slots=True)
class AudioParam:
    audio_recognition_flag: int | None = None


@dataclass(frozen=True, slots=True)
class SvacEncodeConfig:
    roi_param: RoiParam | None = named("ROIParam")
    svc_param: SvcParam | None = named("SVCParam")
    surveillance_param: SurveillanceParam | None = None
    audio_param: AudioParam | None = None


@dataclass(frozen=True, slots=True)
class SvacDecodeConfig:
    svc_param: SvcParam | None = named("SVCParam")
    surveillance_param: ShownParam | None = None


@dataclass(frozen=True, slots=True)
class VideoAttribute:
    """One stream, coded as in f= of the SDP."""

    stream_number: int | None = None  # 0 main, 1 ...
    video_format: str = ""
    resolution: str = ""
    frame_rate: str = ""
    bit_rate_type: str = ""  # 1 constant, 2 variable
    video_bit_rate: str = ""  # kbit/s


@dataclass(frozen=True, slots=True)
class VideoParamAttribute:
    items: tuple[VideoAttribute, ...] = named("Item", default=(), most=16)


@dataclass(frozen=True, slots=True)
class TimeSegment:
    start_hour: int | None = None
    start_min: int | None = None
    start_sec: int | None = None
    stop_hour: int | None = None
    stop_min: int | None = None
    stop_sec: int | None = None


@dataclass(frozen=True, slots=True)
class RecordSchedule:
    week_day_num: int | None = None  # 1 Monday to 7 Sunday
    time_segments: tuple[TimeSegment, ...] = named("TimeSegment", default=(), most=8, count="TimeSegmentSumNum")


@dataclass(frozen=True, slots=True)
class VideoRecordPlan:
    record_enable: bool | None = None
    record_schedules: tuple[RecordSchedule, ...] = named(
        "RecordSchedule", default=(), most=7, count="RecordScheduleSumNum"
    )
    stream_number: int | None = None


@dataclass(frozen=True, slots=True)
class VideoAlarmRecord:
    record_enable: bool | None = None
    record_time: int | None = None  # seconds after the alarm
    pre_record_time: int | None = None  # and before it
    stream_number: int | None = None


@dataclass(frozen=True, slots=True)
class MaskRegion:
    seq: int | None = None  # 1 to 4
    point: str = ""  # "left,top,right,bottom" in pixels


@dataclass(frozen=True, slots=True)
class PictureMask:
    on: bool | None = None
    regions: tuple[MaskRegion, ...] = named("Item", default=(), listed_in="RegionList", most=4, count="SumNum")


@dataclass(frozen=True, slots=True)
class AlarmReport:
    motion_detection: bool | None = None
    field_detection: bool | None = None


@dataclass(frozen=True, slots=True)
class OsdText:
    text: str = ""  # at most 32 characters
    x: int | None = None
    y: int | None = None


@dataclass(frozen=True, slots=True)
class OsdConfig:
    length: int | None = None  # of the window, pixels
    width: int | None = None
    time_x: int | None = None
    time_y: int | None = None
    time_enable: bool | None = None
    time_type: int | None = None  # 0 YYYY-MM-DD HH:MM:SS, 1 with the characters for year, month and day
    text_enable: bool | None = None
    texts: tuple[OsdText, ...] = named("Item", default=(), most=8, count="SumNum")


@dataclass(frozen=True, slots=True)
class SnapShotConfig:
    """snap_num: 1 to 10; interval: seconds, 1 at least; session_id: 32 to 128 of A-Z a-z 0-9 -."""

    snap_num: int | None = None
    interval: int | None = None
    upload_url: str = named("UploadURL", default="")
    session_id: str = named("SessionID", default="")


@dataclass(frozen=True, slots=True)
class Parameters:
    """Groups of a device; None: not asked for, not told, or not to be changed."""

    basic_param: BasicParam | None = None
    video_param_opt: VideoParamOpt | None = None
    svac_encode_config: SvacEncodeConfig | None = None
    svac_decode_config: SvacDecodeConfig | None = None
    video_param_attribute: VideoParamAttribute | None = None
    video_record_plan: VideoRecordPlan | None = None
    video_alarm_record: VideoAlarmRecord | None = None
    picture_mask: PictureMask | None = None
    frame_mirror: int | None = None  # 0 none, 1 left and right, 2 up and down, 3 both
    alarm_report: AlarmReport | None = None
    osd_config: OsdConfig | None = None
    snap_shot_config: SnapShotConfig | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """A row: the element, its field in Parameters, the first edition that has it, whether it can be set."""

    name: str
    field: str
    record: type
    since: Edition = "3.0"
    settable: bool = True
    aliases: tuple[str, ...] = ()


GROUPS: Final = (
    Group("BasicParam", "basic_param", BasicParam, "2.0"),
    Group("VideoParamOpt", "video_param_opt", VideoParamOpt, "2.0", settable=False),
    Group("SVACEncodeConfig", "svac_encode_config", SvacEncodeConfig, "2.0"),
    Group("SVACDecodeConfig", "svac_decode_config", SvacDecodeConfig, "2.0"),
    Group("VideoParamAttribute", "video_param_attribute", VideoParamAttribute),
    Group("VideoRecordPlan", "video_record_plan", VideoRecordPlan),
    Group("VideoAlarmRecord", "video_alarm_record", VideoAlarmRecord),
    Group("PictureMask", "picture_mask", PictureMask),
    Group("FrameMirror", "frame_mirror", int),
    Group("AlarmReport", "alarm_report", AlarmReport),
    Group("OSDConfig", "osd_config", OsdConfig),
    Group("SnapShotConfig", "snap_shot_config", SnapShotConfig, aliases=("SnapShot", "SnapShotCfg")),
)
_BY_NAME: Final = {name.lower(): group for group in GROUPS for name in (group.name, group.field, *group.aliases)}


def group_of(name: str) -> Group:
    """Return the group an element, ConfigType or field names. Raises RequestError `unknown_config_type`."""
    group = _BY_NAME.get(name.strip().lower())
    if group is None:
        raise RequestError(
            f"there is no parameter group {name[:40]!r}",
            code="unknown_config_type",
            remedy="one of " + ", ".join(each.name for each in GROUPS),
        )
    return group


def read(element: Element) -> dict[str, Any]:
    """Return what a ConfigDownload answer holds: field of Parameters -> its value."""
    found: dict[str, Any] = {}
    for child in element.children:
        group = _BY_NAME.get(child.key)
        if group is None:
            continue
        if group.record is int:
            found[group.field] = int(child.text) if child.text in ("0", "1", "2", "3") else None
        else:
            found[group.field] = schema.read(group.record, child)
    return found


def write(group: Group, value: Any) -> Field:
    """Return the element of one group."""
    if group.record is int:
        return group.name, int(value)
    name = group.name
    if isinstance(value, VideoParamAttribute):
        name += f' Num="{len(value.items)}"'
    return name, schema.write(value)


def given(parameters: Parameters) -> list[tuple[Group, Any]]:
    """Return the groups that have a value, in the order of the standard."""
    pairs = [(group, getattr(parameters, group.field)) for group in GROUPS]
    return [(group, value) for group, value in pairs if value is not None]
