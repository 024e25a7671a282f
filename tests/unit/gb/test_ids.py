import pytest

from gbgw.base.errors import RequestError
from gbgw.gb import ids
from gbgw.gb.ids import IdClass

CAMERA = "34020000001320000001"


@pytest.mark.parametrize("text", [CAMERA, "0" * 20])
def test_gb_id(text: str) -> None:
    assert ids.is_gb_id(text)


@pytest.mark.parametrize("text", ["", CAMERA[1:], CAMERA + "1", "3402000000132000000A", "３" * 20, CAMERA + "\n"])
def test_not_gb_id(text: str) -> None:
    assert not ids.is_gb_id(text)


@pytest.mark.parametrize(
    ("code", "kind", "channel"),
    [
        ("111", IdClass.FRONT_END, True),
        ("118", IdClass.FRONT_END, True),
        ("121", IdClass.FRONT_END, True),  # Uniview cameras
        ("131", IdClass.PERIPHERAL, True),
        ("132", IdClass.PERIPHERAL, True),
        ("134", IdClass.PERIPHERAL, False),
        ("137", IdClass.PERIPHERAL, False),
        ("138", IdClass.PERIPHERAL, True),
        ("140", IdClass.PERIPHERAL, False),
        ("200", IdClass.PLATFORM, False),
        ("215", IdClass.BUSINESS_GROUP, False),
        ("216", IdClass.VIRTUAL_ORGANISATION, False),
        ("217", IdClass.PLATFORM, True),
        ("300", IdClass.CENTRE_USER, True),
        ("403", IdClass.TERMINAL_USER, True),
        ("500", IdClass.EXTERNAL, True),
        ("700", IdClass.EXTENSION, True),
        ("099", IdClass.EXTENSION, True),
    ],
)
def test_type_codes(code: str, kind: IdClass, channel: bool) -> None:
    text = f"3402000000{code}0000001"
    assert ids.classify(text) is kind
    assert ids.is_channel(text) is channel
    assert ids.type_code(text) == int(code)


@pytest.mark.parametrize("text", ["34", "3402", "340200", "34020000"])
def test_regions(text: str) -> None:
    assert ids.is_region(text)
    assert ids.classify(text) is IdClass.REGION
    assert not ids.is_channel(text)


def test_opaque_ids_are_channels() -> None:
    assert ids.classify("door_7") is IdClass.OPAQUE
    assert ids.is_channel("door_7")


def test_device_ids_from_the_network_are_twenty_digits() -> None:
    assert ids.check_device_id(CAMERA) == CAMERA
    with pytest.raises(RequestError) as caught:
        ids.check_device_id("door_7")
    assert caught.value.code == "id_invalid"


def test_operators_may_invent_ids_without_hyphen() -> None:
    assert ids.check_device_id("door_7", by_operator=True) == "door_7"
    for text in ("a-b", "", "x" * 33, "a b", "é"):
        with pytest.raises(RequestError):
            ids.check_device_id(text, by_operator=True)
