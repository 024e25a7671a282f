"""Checklist statements 40-43, 47, 49 and 51 over real sockets: what the REST API has cameras told, and a camera made of
raw bytes that hears it."""

import asyncio
import io
import re
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.support.peer import Camera, Text
from tests.system.conftest import CHANNEL, DEVICE
from tests.system.control import (
    CONTROL,
    DEVICE_PATH,
    HERE,
    Api,
    controlled,
    element,
    fact,
    says,
    sub_commands,
    told,
    while_asked,
)  # fmt: skip

GatewayAt = Callable[..., Any]
STOP = "A50F0100000000B5"
AREA = {"length": 640, "width": 360, "mid_point_x": 100, "mid_point_y": 90, "length_x": 64, "length_y": 36}

# (method, path, body, sub-command, its text or None) of commands whose 200 is the answer
UNANSWERED = [
    ("PUT", f"{HERE}/ptz", {"pan": -100, "seconds": 10}, "PTZCmd", "A50F0102FFFF00B5"),
    ("POST", f"{HERE}/presets/1/goto", None, "PTZCmd", "A50F018200010038"),
    ("PUT", f"{HERE}/presets/1", {"name": "gate"}, "PTZCmd", "A50F018100010037"),
    ("DELETE", f"{HERE}/presets/1", None, "PTZCmd", "A50F018300010039"),
    ("POST", f"{HERE}/cruises/1/start", None, "PTZCmd", "A50F01880100003E"),
    ("DELETE", f"{HERE}/cruises/1", None, "PTZCmd", "A50F01850100003B"),
    ("POST", f"{HERE}/scans/1/start", None, "PTZCmd", "A50F01890100003F"),
    ("POST", f"{HERE}/scans/1/left", None, "PTZCmd", "A50F018901010040"),
    ("POST", f"{HERE}/scans/1/right", None, "PTZCmd", "A50F018901020041"),
    ("PUT", f"{HERE}/scans/1", {"speed": 128}, "PTZCmd", "A50F018A018000C0"),
    ("PUT", f"{HERE}/switches/1", {"on": True}, "PTZCmd", "A50F018C01000042"),
    ("PUT", f"{HERE}/switches/1", {"on": False}, "PTZCmd", "A50F018D01000043"),
    ("POST", f"{DEVICE_PATH}/reboot", None, "TeleBoot", "Boot"),
    ("POST", f"{HERE}/ptz/drag-zoom", {"direction": "in", **AREA}, "DragZoomIn", None),
    ("POST", f"{HERE}/ptz/drag-zoom", {"direction": "out", **AREA}, "DragZoomOut", None),
    ("PUT", f"{HERE}/ptz/position", {"pan": 12.5, "tilt": 3, "zoom": 2}, "PTZPreciseCtrl", None),
    ("POST", f"{HERE}/sd-cards/1/format", None, "FormatSDCard", "1"),
    ("PUT", f"{HERE}/target-track", {"mode": "Auto"}, "TargetTrack", "Auto"),
]
# and of those that have a Result
ANSWERED = [
    ("PUT", f"{HERE}/record", {"recording": True}, "RecordCmd", "Record"),
    ("PUT", f"{HERE}/record", {"recording": False, "stream_number": 1}, "RecordCmd", "StopRecord"),
    ("PUT", f"{HERE}/guard", {"armed": True}, "GuardCmd", "SetGuard"),
    ("PUT", f"{DEVICE_PATH}/guard", {"armed": False}, "GuardCmd", "ResetGuard"),
    ("POST", f"{HERE}/alarm-reset?method=2&type=1", None, "AlarmCmd", "ResetAlarm"),
    ("PUT", f"{HERE}/home", {"enabled": True, "reset_seconds": 60, "preset": 1}, "HomePosition", None),
    ("PATCH", f"{DEVICE_PATH}/config", {"basic_param": {"name": "门"}}, "BasicParam", None),
    (
        "POST",
        f"{DEVICE_PATH}/upgrade",
        {"firmware": "2.0", "file_url": "http://user:secret@192.0.2.9/fw.bin"},
        "DeviceUpgrade",
        None,
    ),
]


def body_of(body: Any) -> dict[str, Any]:
    return {} if body is None else {"json": body}


@pytest.mark.conformance(40, 41)
@pytest.mark.parametrize(("method", "path", "body", "name", "text"), UNANSWERED, ids=lambda value: str(value)[-40:])
async def test_commands_without_an_answer_are_done_with_the_200(
    gateway_at: GatewayAt, method: str, path: str, body: Any, name: str, text: str | None
) -> None:
    async with (
        gateway_at() as gateway,
        controlled(gateway) as (camera, api),
        while_asked(api.raw(method, path, **body_of(body))) as call,
    ):
        message = await told(camera)
        assert sub_commands(message) == [name]
        assert text is None or element(message, name) == text
        assert element(message, "DeviceID") == (DEVICE if "reboot" in path else CHANNEL)
        async with asyncio.timeout(1.5):  # nobody waits for a Response that never comes
            assert (await call)[0] in (200, 204)


@pytest.mark.conformance(40, 42)
@pytest.mark.parametrize(("method", "path", "body", "name", "text"), ANSWERED, ids=lambda value: str(value)[-40:])
async def test_commands_with_a_result_wait_for_it(
    gateway_at: GatewayAt, method: str, path: str, body: Any, name: str, text: str | None
) -> None:
    async with gateway_at() as gateway, controlled(gateway) as (camera, api):
        cmd_type = "DeviceConfig" if "config" in path else "DeviceControl"
        for result, good in (("OK", True), ("ERROR", False)):
            async with while_asked(api.raw(method, path, **body_of(body))) as call:
                message = await told(camera, cmd_type)
                assert sub_commands(message) == [name]
                assert text is None or element(message, name) == text
                await asyncio.sleep(0.05)
                assert not call.done(), "it waits for the Result"
                says(
                    camera, cmd_type, element(message, "SN"), f"<Result>{result}</Result>", element(message, "DeviceID")
                )
                status, value, _ = await call
                assert (status < 300) is good, value
                if not good:
                    assert (status, value["error"]["code"]) == (504, "command_failed")
        assert "secret" not in str((await api("GET", f"{CONTROL}/audit"))["items"])


@pytest.mark.conformance(43)
async def test_a_movement_ends_when_its_operator_is_gone(gateway_at: GatewayAt) -> None:
    """Nobody renews it: the stop goes out by itself, and twice, since UDP may lose one."""
    async with gateway_at() as gateway, controlled(gateway) as (camera, api):
        async with while_asked(api("PUT", f"{HERE}/ptz", json={"pan": 40, "zoom": -20, "seconds": 0.5})) as call:
            assert element(await told(camera), "PTZCmd") == "A50F0121666630B4"[:8] + "666630" + checksum(
                "A50F0121666630"
            )
            found = await call
        assert (found["moving"], found["mine"], found["priority"]) == (True, True, 5)
        async with while_asked(api("PUT", f"{HERE}/ptz", json={"pan": 40, "zoom": -20, "seconds": 0.5})):
            pass  # the same again renews it and tells the camera nothing
        for _ in range(2):
            assert element(await told(camera), "PTZCmd") == STOP
        await camera.nothing(0.3, "MESSAGE")
        audit = (await api("GET", f"{CONTROL}/audit?device={DEVICE}"))["items"]
        assert [entry["action"] for entry in audit] == ["ptz.stop", "ptz.move"]
        assert [entry["name"] for entry in audit] == ["gbgw", "admin"]


def checksum(digits: str) -> str:
    return f"{sum(bytes.fromhex(digits)) & 0xFF:02X}"


@pytest.mark.conformance(43)
async def test_a_movement_ends_with_the_gateway(gateway_at: GatewayAt) -> None:
    async def hear(camera: Camera) -> set[str]:
        return {element(await told(camera), "PTZCmd") for _ in range(2)}

    async with AsyncExitStack() as later:
        async with gateway_at() as gateway:
            camera, api = await later.enter_async_context(controlled(gateway))
            async with while_asked(api("PUT", f"{HERE}/ptz", json={"tilt": 10, "focus": 10, "seconds": 10})):
                await hear(camera)
            hearing = asyncio.create_task(hear(camera), name="test:hear")
        assert await hearing == {STOP, "A50F0140000000F5"}


async def test_two_operators_do_not_fight(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, controlled(gateway) as (camera, api):
        guard = await api.another("guard", "control")
        async with while_asked(guard("PUT", f"{HERE}/ptz", json={"pan": 20, "seconds": 10})):
            await told(camera)
        status, refused, _ = await api.raw("PUT", f"{HERE}/ptz", json={"pan": -20})
        assert (status, refused["error"]["code"]) == (409, "ptz_locked")
        assert re.search(r"guard steers this camera \(priority 5\), for another \d+ s", refused["error"]["message"])
        assert await api.refused("POST", f"{HERE}/presets/1/goto", 409) == "ptz_locked"
        assert await guard.refused("PUT", f"{HERE}/ptz?priority=9", 403, json={"pan": 1}) == "scope_missing"
        seen = await api("GET", f"{HERE}/ptz")
        assert (seen["holder"], seen["mine"], seen["motion"]["pan"]) == ("guard", False, 20)
        async with while_asked(api("PUT", f"{HERE}/ptz?priority=9", json={"pan": -20, "seconds": 10})):
            assert element(await told(camera), "PTZCmd").startswith("A50F0102")
        assert await guard.refused("PUT", f"{HERE}/ptz", 409, json={"pan": 20}) == "ptz_locked"
        await guard("DELETE", f"{HERE}/ptz", 204)  # not his any more: nothing happens
        async with while_asked(api("DELETE", f"{HERE}/ptz", 204)):
            assert element(await told(camera), "PTZCmd") == STOP
        async with while_asked(guard("PUT", f"{HERE}/ptz", json={"tilt": 1, "seconds": 0.1})):
            while element(await told(camera), "PTZCmd") == STOP:
                pass
        for _ in range(2):
            assert element(await told(camera), "PTZCmd") == STOP


@pytest.mark.conformance(47)
@pytest.mark.parametrize(("version", "spelt"), [("2.0", "IFameCmd"), ("3.0", "IFrameCmd"), (None, "IFameCmd")])
async def test_the_key_frame_command_is_spelt_by_edition(
    gateway_at: GatewayAt, version: str | None, spelt: str
) -> None:
    from tests.system.steps import playing

    async with gateway_at() as gateway, controlled(gateway, version=version) as (camera, api), playing(gateway, camera):
        await asyncio.sleep(gateway.config.sip.keyframe_seconds)
        async with while_asked(api("POST", f"{HERE}/iframe", 204)):
            message = await told(camera)
            assert sub_commands(message) == [spelt]
            assert element(message, spelt) == "Send"


async def test_an_older_device_gets_no_newer_command_unless_forced(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, controlled(gateway, version="2.0") as (camera, api):
        position = {"pan": 1, "tilt": 1}
        assert await api.refused("PUT", f"{HERE}/ptz/position", 409, json=position) == "edition_unsupported"
        assert await api.refused("GET", f"{HERE}/cruises", 409) == "edition_unsupported"
        assert await api.refused("GET", f"{HERE}/config?types=OSDConfig", 409) == "edition_unsupported"
        async with while_asked(api("PUT", f"{HERE}/ptz/position?force=1", 204, json=position)):
            assert sub_commands(await told(camera)) == ["PTZPreciseCtrl"]
        async with while_asked(api("PUT", f"{HERE}/presets/7", 204, json={"name": "gate"})):
            assert b"PTZCmdParams" not in (await told(camera)).body


QUERIES = [
    ("presets", "PresetQuery", '<PresetList Num="2"><Item><PresetID>002</PresetID><PresetName>b</PresetName></Item>'
     "<Item><PresetID>1</PresetID><PresetName>门</PresetName></Item></PresetList>",
     lambda found: [(each["id"], each["name"]) for each in found["items"]] == [(1, "门"), (2, "b")]),
    ("home", "HomePositionQuery", "<HomePosition><Enabled>1</Enabled><ResetTime>60</ResetTime>"
     "<PresetIndex>3</PresetIndex></HomePosition>",
     lambda found: found == {"enabled": True, "reset_time": 60, "preset_index": 3}),
    ("cruises", "CruiseTrackListQuery", '<SumNum>1</SumNum><CruiseTrackList Num="1"><CruiseTrack><Number>0</Number>'
     "<Name>round</Name></CruiseTrack></CruiseTrackList>",
     lambda found: found["items"] == [{"number": 0, "name": "round"}]),
    ("cruises/0", "CruiseTrackQuery", '<Number>0</Number><Name>round</Name><CruisePointList Num="1"><CruisePoint>'
     "<PresetIndex>4</PresetIndex><StayTime>9</StayTime><Speed>5</Speed></CruisePoint></CruisePointList>",
     lambda found: found["points"] == [{"preset_index": 4, "stay_time": 9, "speed": 5}]),
    ("ptz/position", "PTZPosition", "<PTZPosInfo><Pan>10.5</Pan><Tilt>-3</Tilt><Zoom>x</Zoom></PTZPosInfo>",
     lambda found: (found["pan"], found["tilt"], found["zoom"]) == (10.5, -3.0, None)),
    ("sd-cards", "SDCardStatus", '<SDCardStatusInfo Num="1"><Item><ID>1</ID><HddName>sd</HddName><Status>ok</Status>'
     "<FormatProgress>100</FormatProgress><Capacity>64000</Capacity><FreeSpace>7</FreeSpace></Item></SDCardStatusInfo>",
     lambda found: found["items"][0]["free_space"] == 7),
    ("status", "DeviceStatus", '<Result>OK</Result><Online>ONLINE</Online><Status>OK</Status><Record>ON</Record>'
     "<Alarmstatus Num=1><Item><DeviceID>34020000001340000001</DeviceID><DutyStatus>ONDUTY</DutyStatus></Item>"
     "</Alarmstatus>",
     lambda found: found["recording"] is True and found["encoding"] is None
     and found["alarm_inputs"] == [{"device_id": "34020000001340000001", "duty_status": "ONDUTY"}]),
    ("config?types=FrameMirror", "ConfigDownload", "<Result>OK</Result><FrameMirror>2</FrameMirror>",
     lambda found: found["frame_mirror"] == 2 and found["basic_param"] is None),
]  # fmt: skip


@pytest.mark.parametrize(("path", "cmd_type", "inside", "right"), QUERIES, ids=[row[0] for row in QUERIES])
async def test_queries_are_answered_in_a_message_or_in_the_200(
    gateway_at: GatewayAt, path: str, cmd_type: str, inside: str, right: Callable[[Any], bool]
) -> None:
    async with gateway_at() as gateway, controlled(gateway) as (camera, api):
        async with while_asked(api("GET", f"{HERE}/{path}")) as call:
            sn, _ = await camera.query(cmd_type)
            says(camera, cmd_type, sn, inside)
            assert right(await call), await call
        async with while_asked(api("GET", f"{HERE}/{path}")) as call:
            while f"<CmdType>{cmd_type}</CmdType>" not in (message := await camera.receive()).body.decode("gb18030"):
                camera.respond(message, 200)
            xml = (
                f"<Response><CmdType>{cmd_type}</CmdType><SN>{element(message, 'SN')}</SN>"
                f"<DeviceID>{CHANNEL}</DeviceID>{inside}</Response>"
            )
            camera.respond(message, 200, body=xml.encode("gb18030"))
            assert right(await call)
        assert gateway.tally.counts["question.answered_in_200"] == 1


async def test_an_answer_that_is_late_missing_or_about_another_has_a_cause_of_its_own(
    gateway_at: GatewayAt, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gbgw.questions import Question

    monkeypatch.setattr(Question.answer, "__defaults__", (0.3,))
    async with gateway_at() as gateway, controlled(gateway) as (camera, api):
        async with while_asked(api.raw("GET", f"{HERE}/home")) as call:
            sn, _ = await camera.query("HomePositionQuery")
            status, value, _ = await call
            assert (status, value["error"]["code"]) == (504, "query_no_answer")
        before = gateway.tally.counts.get("interview.unsolicited", 0)
        says(camera, "HomePositionQuery", sn)  # late
        await fact(lambda: gateway.tally.counts.get("interview.unsolicited", 0) == before + 1, "counted")
        async with while_asked(api.raw("GET", f"{HERE}/home")) as call:
            sn, _ = await camera.query("HomePositionQuery")
            says(camera, "HomePositionQuery", sn, target="34020000001310009999")
            assert (await call)[1]["error"]["code"] == "answer_for_another"
        async with while_asked(api.raw("GET", f"{HERE}/home")) as call:
            sn, _ = await camera.query("HomePositionQuery")
            says(camera, "HomePositionQuery", sn, "<Result>ERROR</Result>")
            assert (await call)[1]["error"]["code"] == "query_failed"
        async with while_asked(api.raw("GET", f"{HERE}/home")) as call:
            while (message := await camera.receive()).method != "MESSAGE":
                pass
            camera.respond(message, 501)
            assert (await call)[1]["error"]["code"] == "query_refused"


@pytest.mark.conformance(49)
async def test_snapshots_are_matched_by_session_and_fewer_are_partial(gateway_at: GatewayAt) -> None:
    jpeg = b"\xff\xd8\xff\xe0" + bytes(100_000)

    async def order(api: Api, camera: Camera, count: int) -> tuple[Any, str, str]:
        async with while_asked(api("POST", f"{HERE}/snapshot", 202, json={"count": count})) as call:
            message = await told(camera, "DeviceConfig")
            assert sub_commands(message) == ["SnapShotConfig"]
            assert element(message, "SnapNum") == str(count)
            session, url = element(message, "SessionID"), element(message, "UploadURL")
            assert re.fullmatch(r"[A-Za-z0-9-]{32,128}", session)
            says(camera, "DeviceConfig", element(message, "SN"))
            return await call, session, url

    def done(camera: Camera, session: str, files: int) -> None:
        names = "".join(f"<SnapShotFileID>{CHANNEL}02{n:019}</SnapShotFileID>" for n in range(files))
        camera.send(
            camera.message(
                "<Notify><CmdType>UploadSnapShotFinished</CmdType><SN>7</SN>"
                f"<DeviceID>{CHANNEL}</DeviceID><SessionID>{session}</SessionID>"
                f"<SnapShotList>{names}</SnapShotList></Notify>"
            )
        )

    async with gateway_at() as gateway, controlled(gateway) as (camera, api):
        first, first_session, first_url = await order(api, camera, 2)
        second, second_session, second_url = await order(api, camera, 3)
        assert first_session in first_url
        assert first["state"] == "waiting"
        async with api.client.post(second_url, data=jpeg, headers={"Content-Type": "image/jpeg"}) as answer:
            assert answer.status == 200
        for url in (first_url, first_url + "/b.jpg"):
            form = {"file": io.BytesIO(jpeg)}
            async with api.client.put(url, data=form) as answer:
                assert answer.status == 200, await answer.text()
        done(camera, first_session, 2)
        whole = await api("GET", f"{CONTROL}/snapshots/{first['id']}?wait=5")
        assert (whole["state"], whole["missing"], len(whole["files"])) == ("done", 0, 2)
        done(camera, second_session, 1)
        part = await api("GET", f"{CONTROL}/snapshots/{second['id']}?wait=5")
        assert (part["state"], part["missing"], len(part["reported"])) == ("partial", 2, 1)
        assert (await api.raw("GET", f"{CONTROL}/snapshots/{first['id']}/1"))[2] == jpeg
        third, third_session, _ = await order(api, camera, 1)
        done(camera, third_session, 0)
        assert (await api("GET", f"{CONTROL}/snapshots/{third['id']}?wait=5"))["state"] == "failed"
        assert len((await api("GET", f"{HERE}/snapshots"))["items"]) == 3
        for url, data, status in (
            (first_url, jpeg, 409),
            (second_url, b"GIF89a", 415),
            (re.sub(r"[0-9a-f]{64}", "0" * 64, first_url), jpeg, 404),
        ):
            async with api.client.post(url, data=data) as answer:
                assert answer.status == status


async def test_an_upgrade_is_reported_after_the_restart(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, controlled(gateway) as (camera, api):
        assert await api.refused("GET", f"{DEVICE_PATH}/upgrade", 404) == "unknown_upgrade"
        order = {"firmware": "2.0", "file_url": "http://192.0.2.9/fw.bin"}
        async with while_asked(api("POST", f"{DEVICE_PATH}/upgrade", json=order)) as call:
            message = await told(camera)
            says(camera, "DeviceControl", element(message, "SN"), target=DEVICE)
            assert (await call)["state"] == "ordered"
        camera.send(
            camera.message(
                f"<Notify><CmdType>DeviceUpgradeResult</CmdType><SN>9</SN><DeviceID>{DEVICE}</DeviceID>"
                f"<SessionID>{element(message, 'SessionID')}</SessionID><UpgradeResult>ERROR</UpgradeResult>"
                "<Firmware>1.0</Firmware><UpgradeFailedReason>02</UpgradeFailedReason></Notify>"
            )
        )
        await camera.expect(200)
        found = await api("GET", f"{DEVICE_PATH}/upgrade")
        assert (found["state"], found["running"], found["reason"]) == ("failed", "1.0", "the package is damaged")


@pytest.mark.conformance(51)
async def test_passwords_of_devices_are_nowhere(
    gateway_at: GatewayAt, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hikvision's BasicParam carries the platform's password, a catalog item the camera's."""
    async with gateway_at() as gateway, controlled(gateway) as (camera, api):
        async with while_asked(api("GET", f"{DEVICE_PATH}/config?types=BasicParam")) as call:
            sn, _ = await camera.query("ConfigDownload")
            inside = (
                "<Result>OK</Result><BasicParam><Name>n</Name><SIPServerIP>192.0.2.1</SIPServerIP>"
                "<Password>hunter2</Password><Expiration>3600</Expiration></BasicParam>"
            )
            says(camera, "ConfigDownload", sn, inside, DEVICE)
            found = await call
        assert found["basic_param"]["expiration"] == 3600
        asking = asyncio.create_task(gateway.devices.refresh_catalog(DEVICE), name="test:catalog")
        sn, _ = await camera.query("Catalog")
        says(
            camera, "Catalog", sn,
            f'<SumNum>1</SumNum><DeviceList Num="1"><Item><DeviceID>{CHANNEL}</DeviceID><Name>n</Name>'
            "<Password>hunter2</Password></Item></DeviceList>", DEVICE,
        )  # fmt: skip
        await asking
        shown = [found, await api("GET", f"{DEVICE_PATH}/channels"), await api("GET", f"{CONTROL}/audit")]
        stored = (await gateway._store.catalogs())[0]
        out, err = capsys.readouterr()
        assert "hunter2" not in f"{shown}{stored}{caplog.text}{out}{err}"


async def test_a_configuration_in_parts_and_under_another_name(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, controlled(gateway) as (camera, api):
        async with while_asked(api("GET", f"{HERE}/config?types=BasicParam/OSDConfig")) as call:
            sn, message = await camera.query("ConfigDownload")
            assert element(message, "ConfigType") == "BasicParam/OSDConfig"
            says(camera, "ConfigDownload", sn, "<Result>OK</Result><BasicParam><Name>n</Name></BasicParam>")
            says(
                camera, "ConfigDownload", sn,
                "<Result>OK</Result><OSDConfig><TimeEnable>1</TimeEnable><SumNum>1</SumNum><Item><Text>东门</Text><X>5</X>"
                "</Item></OSDConfig>",
            )  # fmt: skip
            found = await call
        assert (found["basic_param"]["name"], found["osd_config"]["texts"][0]["text"]) == ("n", "东门")
        async with while_asked(api("GET", f"{HERE}/config?types=VideoAlarmRecord")) as call:
            sn, _ = await camera.query("ConfigDownload")
            says(camera, "ConfigDownload", sn, "<AlarmRecordCfg><RecordTime>30</RecordTime></AlarmRecordCfg>")
            assert (await call)["video_alarm_record"]["record_time"] == 30
        assert await api.refused("GET", f"{HERE}/config?types=Nonsense", 400) == "unknown_config_type"
        for bad in ({}, {"frame_mirror": "x"}, {"basic_param": {"nome": "n"}}, {"osd_config": {"texts": [{}] * 9}}):
            assert await api.refused("PATCH", f"{HERE}/config", 400, json=bad) == "bad_body"
        read_only = {"video_param_opt": {"resolution": "5"}}
        assert await api.refused("PATCH", f"{HERE}/config", 409, json=read_only) == "config_read_only"


def messages(camera: Camera) -> list[Text]:
    return [text for text in camera.received if text.method == "MESSAGE"]


async def test_who_may_not_control_is_refused_and_offline_devices_say_so(gateway_at: GatewayAt) -> None:
    async with gateway_at() as gateway, controlled(gateway) as (camera, api):
        viewer = await api.another("viewer", "view")
        before = len(messages(camera))
        for method, path, body, *_ in UNANSWERED + ANSWERED:
            assert await viewer.refused(method, path, 403, **body_of(body)) == "scope_missing"
        assert await viewer.refused("GET", f"{CONTROL}/audit", 403) == "scope_missing"
        assert await api.refused("PUT", f"{HERE}/ptz", 400, json={"pan": 101}) == "bad_body"
        assert await api.refused("POST", f"{HERE}/presets/0/goto", 404) == "out_of_range"
        assert len(messages(camera)) == before
        await camera.register("an excellent secret", expires=0)
        await fact(lambda: not gateway.directory.get(DEVICE).online, "offline")
        for method, path, body, *_ in UNANSWERED + ANSWERED:
            assert await api.refused(method, path, 504, **body_of(body)) == "device_offline"
        entries = (await api("GET", f"{CONTROL}/audit?limit=5"))["items"]
        assert {entry["result"] for entry in entries} == {"device_offline"}


@pytest.mark.conformance(46, 50)
async def test_alarms_and_positions_of_both_editions_are_told(gateway_at: GatewayAt) -> None:
    place = "<Longitude>121.1</Longitude><Latitude>31.2</Latitude>"
    head = f"<SN>1</SN><DeviceID>{DEVICE}</DeviceID>"
    told_ = [
        f"<CmdType>Alarm</CmdType>{head}<AlarmPriority>1</AlarmPriority><AlarmMethod>12</AlarmMethod>",
        f"<CmdType>Alarm</CmdType>{head}<AlarmPriority>1</AlarmPriority><AlarmMethod>1/2</AlarmMethod>",
        f"<CmdType>MobilePosition</CmdType>{head}<Time>2026-02-03T08:15:30</Time>{place}",
        f'<CmdType>MobilePosition</CmdType>{head}<SumNum>1</SumNum><DeviceList Num="1"><Item>'
        f"<DeviceID>{CHANNEL}</DeviceID>{place}</Item></DeviceList>",
    ]
    async with gateway_at() as gateway, controlled(gateway) as (camera, api):
        seen: list[Any] = []

        async def follow() -> None:
            async for event in gateway.events.follow():
                if event.type in ("device.alarm", "device.positions"):
                    seen.append((event.type, event.data))

        following = asyncio.create_task(follow(), name="test:follow")
        await asyncio.sleep(0)
        for inside in told_:
            camera.send(camera.message(f"<Notify>{inside}</Notify>"))
            await camera.expect(200)
        await fact(lambda: len(seen) == 4, "four events")
        following.cancel()
        assert [data["alarm"]["methods"] for kind, data in seen if kind == "device.alarm"] == [(1, 2), (1, 2)]
        positions = [each for kind, data in seen if kind == "device.positions" for each in data["positions"]]
        assert [(data["device_id"], data["longitude"], data["latitude"]) for data in positions] == [
            (DEVICE, 121.1, 31.2),
            (CHANNEL, 121.1, 31.2),
        ]
        for version, text in (("3.0", "1/2"), ("2.0", "12")):
            gateway.directory.get(DEVICE).edition = version
            async with while_asked(api("POST", f"{HERE}/alarm-reset?method=1/2", 204)):
                message = await told(camera)
                assert element(message, "AlarmMethod") == text
                says(camera, "DeviceControl", element(message, "SN"))
