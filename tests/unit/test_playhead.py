"""Commands to a recording that plays, and where it stands."""

import asyncio
from typing import cast

import pytest

from gbgw.base.errors import PeerError, RequestError
from gbgw.playhead import Playhead
from gbgw.sip.message import Request, Response
from gbgw.worker.base import Ingest
from tests.support import clock

START, STOP = 1_000, 4_600


class Device:
    """Takes INFOs and answers as it is told; stands in for the ingest as well."""

    def __init__(self) -> None:
        self.bodies: list[str] = []
        self.status = 200
        self.body = b""
        self.paces: list[tuple[float | None, bool]] = []
        self.asking = 0
        self.most = 0
        self.playhead = Playhead(START, STOP, self.send)

    @property
    def ingest(self) -> Ingest:
        return cast(Ingest, self)

    async def send(self, request: Request, seconds: float) -> Response:
        self.asking += 1
        self.most = max(self.most, self.asking)
        await asyncio.sleep(0.1)
        self.asking -= 1
        assert request.method == "INFO"
        self.bodies.append(request.body.decode())
        invited = Request.new(
            "INFO",
            "sip:a@b",
            {"Via": "SIP/2.0/UDP h;branch=z9hG4bK1", "From": "<sip:a@b>;tag=1", "To": "<sip:a@b>", "Call-ID": "1"},
        )
        return Response.to(invited, self.status, body=self.body)

    async def pace(self, *, scale: float | None = None, seek: bool = False) -> None:
        self.paces.append((scale, seek))

    async def settle(self) -> None: ...


def test_commands_change_what_is_told_of_it() -> None:
    async def main() -> None:
        device = Device()
        playhead = device.playhead
        assert playhead.position(2.5) == 1_002.5
        await playhead.pause(device.ingest)
        assert playhead.paused
        assert playhead.changed_at > 0
        await playhead.resume(device.ingest)
        assert not playhead.paused
        await playhead.set_scale(device.ingest, 4)
        assert playhead.scale == 4
        await playhead.pause(device.ingest)
        await playhead.seek(device.ingest, 1_100)
        assert not playhead.paused
        assert playhead.position(1.0) == 1_101
        assert device.paces == [(1.0, False), (4.0, False), (None, True)]
        assert [body.split("\r\n")[2] for body in device.bodies] == [
            "PauseTime: now",
            "Range: npt=now-",
            "Scale: 4.0",
            "PauseTime: now",
            "Range: npt=100-",
        ]

    clock.run(main())


def test_the_device_may_choose_another_place_and_speed() -> None:
    async def main() -> None:
        device = Device()
        device.body = b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nRange: npt=96-\r\nScale: 2.0\r\n\r\n"
        await device.playhead.seek(device.ingest, 1_100)
        assert device.playhead.position(0) == 1_096
        await device.playhead.set_scale(device.ingest, 8)
        assert device.playhead.scale == 2
        assert device.paces[-1] == (2.0, False)

    clock.run(main())


@pytest.mark.parametrize(("status", "body"), [(488, b""), (200, b"RTSP/1.0 454 Session Not Found\r\n")])
def test_a_refusal_changes_nothing(status: int, body: bytes) -> None:
    async def main() -> None:
        device = Device()
        device.status, device.body = status, body
        for command in (
            device.playhead.pause(device.ingest),
            device.playhead.seek(device.ingest, 1_100),
            device.playhead.set_scale(device.ingest, 2),
        ):
            with pytest.raises(PeerError) as caught:
                await command
            assert caught.value.code == "control_refused"
        assert (device.playhead.paused, device.playhead.scale, device.playhead.position(0)) == (False, 1.0, START)
        assert device.paces == []
        assert device.playhead.changed_at == 0.0

    clock.run(main())


def test_what_cannot_be_is_not_asked() -> None:
    async def main() -> None:
        device = Device()
        for moment in (START - 1, STOP):
            with pytest.raises(RequestError, match="span"):
                await device.playhead.seek(device.ingest, moment)
        for scale in (0.0, 0.2, 9.0, -9.0):
            with pytest.raises(RequestError) as caught:
                await device.playhead.set_scale(device.ingest, scale)
            assert caught.value.code == "bad_speed"
        assert device.bodies == []

    clock.run(main())


def test_one_command_at_a_time() -> None:
    async def main() -> None:
        device = Device()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(3):
                tasks.create_task(device.playhead.pause(device.ingest))
        assert device.most == 1
        assert [body.split("\r\n")[1] for body in device.bodies] == ["CSeq: 1", "CSeq: 2", "CSeq: 3"]

    clock.run(main())


def test_where_its_end_is() -> None:
    async def main() -> None:
        device = Device()
        playhead = device.playhead
        assert playhead.position(-5) == START
        assert playhead.position(99_999) == STOP
        assert not playhead.is_near_end(3_590)
        assert playhead.is_near_end(3_598)
        await playhead.set_scale(device.ingest, -1)
        assert not playhead.is_near_end(3_598)
        assert playhead.is_near_end(2)

    clock.run(main())
