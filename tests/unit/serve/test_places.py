"""What play URLs mean."""

from typing import Any

import pytest

from gbgw.base.errors import RequestError
from gbgw.serve import places
from gbgw.serve.source import StreamKey
from tests.unit.serve.support import CHANNEL, DEVICE, KEY, Camera, FakeSource, world

START, STOP = 1_770_076_800, 1_770_080_400
SPAN = "20260203T000000Z-20260203T010000Z"


def test_keys_of_recordings_are_written_and_read() -> None:
    for text in (
        KEY,
        f"{KEY}@1",
        f"{KEY}-{START}-{STOP}",
        f"{KEY}-{START}-{STOP}-p0badcafe",
        f"{KEY}@1-{START}-{STOP}",
    ):
        key = StreamKey.parse(text)
        assert str(key) == text
        assert key.is_history == ("-17700" in text)
        assert key.live.device_id == DEVICE
        assert key.live.channel_id == CHANNEL
        assert not key.live.is_history
    for text, code in (
        (f"{KEY}-{START}", "unknown_channel"),
        (f"{KEY}-{STOP}-{START}", "bad_span"),
        (f"{KEY}-{START}-{START}", "bad_span"),
        (f"{KEY}-{START}-{STOP}-", "unknown_channel"),
        (f"{KEY}-{START}-{STOP}-P", "unknown_channel"),
        (f"{KEY}-{START}-{STOP}-a-b", "unknown_channel"),
    ):
        with pytest.raises(RequestError) as caught:
            StreamKey.parse(text)
        assert caught.value.code == code, text


def test_where_a_key_is_played() -> None:
    assert places.path_of(f"{KEY}@1") == f"/live/{KEY}@1"
    assert places.path_of(f"{KEY}-{START}-{STOP}") == f"/playback/{KEY}/{SPAN}"
    assert places.path_of(f"{KEY}-{START}-{STOP}-p0badcafe") == f"/playback/{KEY}/{SPAN}-p0badcafe"


class Recorder(FakeSource):
    """Opens any recording of its channel."""

    async def open(self, key: str, **options: Any) -> Any:
        self.cameras.setdefault(key, self.cameras[KEY])
        return await super().open(key, **options)


def source() -> Recorder:
    return Recorder({KEY: Camera()})


async def test_each_request_without_a_name_is_a_playback_of_its_own() -> None:
    recorder = source()
    async with world(source=recorder) as it:
        for span in (SPAN, f"{START}-{STOP}", SPAN):
            async with it.client.get(f"{it.url}/playback/{KEY}/{span}.flv") as response:
                assert response.status == 200
                key = StreamKey.parse(response.headers["X-Gbgw-Stream"])
                assert (key.start, key.stop, key.name[0]) == (START, STOP, "a")
        assert len({key for key, *_ in recorder.opened}) == 3


async def test_a_named_playback_is_shared() -> None:
    recorder = source()
    async with world(source=recorder) as it:
        for ending in (".flv", ".ts", "/index.m3u8"):
            async with it.client.get(f"{it.url}/playback/{KEY}/{SPAN}-p0badcafe{ending}") as response:
                assert response.status == 200
                assert response.headers["X-Gbgw-Stream"] == f"{KEY}-{START}-{STOP}-p0badcafe"
        assert {key for key, *_ in recorder.opened} == {f"{KEY}-{START}-{STOP}-p0badcafe"}


async def test_hls_below_a_playback_is_of_its_session_only() -> None:
    async with world(source=source()) as it:
        address = f"{it.url}/playback/{KEY}/{SPAN}"
        async with it.client.get(f"{address}/index.m3u8") as response:
            master = await response.text()
        uri = next(line for line in master.splitlines() if line and not line.startswith("#"))
        async with it.client.get(f"{address}/{uri}") as response:
            assert response.status == 200
        for other in (f"/live/{KEY}", f"/playback/{KEY}/{START}-{STOP + 1}"):
            async with it.client.get(f"{it.url}{other}/{uri}") as response:
                assert response.status == 403
                assert (await response.json())["error"]["code"] == "session_foreign"


async def test_a_play_token_is_for_a_span_or_a_playback() -> None:
    async with world(play="token", source=source()) as it:
        span, named = f"{KEY}-{START}-{STOP}", f"{KEY}-{START}-{STOP}-p0badcafe"
        for signed, address, status in (
            (span, f"/playback/{KEY}/{SPAN}.flv", 200),
            (named, f"/playback/{KEY}/{SPAN}-p0badcafe.flv", 200),
            (named, f"/playback/{KEY}/{SPAN}.flv", 403),
            (KEY, f"/playback/{KEY}/{SPAN}.flv", 403),
            (span, f"/live/{KEY}.flv", 403),
        ):
            token = it.serving.authority.sign_play(signed)[0]
            async with it.client.get(f"{it.url}{address}?token={token}") as response:
                assert response.status == status, (signed, address)


async def test_what_no_playback_can_be_at() -> None:
    async with world(source=source()) as it:
        for address, status in (
            (f"/playback/{KEY}/{STOP}-{START}.flv", 400),
            (f"/playback/{KEY}/{SPAN}-a0badcafe.flv", 404),
            (f"/playback/{KEY}-{START}-{STOP}/{SPAN}.flv", 404),
            (f"/live/{KEY}-{START}-{STOP}.flv", 404),
            (f"/playback/{KEY}/today-tomorrow.flv", 404),
            (f"/playback/{KEY}/20269999T000000Z-{STOP}.flv", 400),
        ):
            async with it.client.get(f"{it.url}{address}") as response:
                assert response.status == status, address


async def test_the_name_that_control_gave_counts_only_in_a_worker() -> None:
    recorder = source()
    async with world(source=recorder) as it:
        headers = {"X-Gbgw-Key": f"{KEY}-{START}-{STOP}-a0badcafe"}
        async with it.client.get(f"{it.url}/playback/{KEY}/{SPAN}.flv", headers=headers) as response:
            assert response.headers["X-Gbgw-Stream"] != headers["X-Gbgw-Key"]
        it.serving.play_only = True
        async with it.client.get(f"{it.url}/playback/{KEY}/{SPAN}.flv", headers=headers) as response:
            assert response.headers["X-Gbgw-Stream"] == headers["X-Gbgw-Key"]
