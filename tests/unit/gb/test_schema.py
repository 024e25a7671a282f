"""Records out of elements and back; and the parameter groups and answers that are made of them."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gbgw.base import limits
from gbgw.base.errors import RequestError
from gbgw.gb import answers, manscdp, parameters, schema, xml
from gbgw.gb.answers import Preset, Presets, SdCards
from gbgw.gb.parameters import GROUPS, BasicParam, OsdConfig, OsdText, Parameters


def round_trip(record: Any) -> Any:
    body = manscdp.write("Response", [("Inside", schema.write(record))], "3.0")
    inside = xml.parse(body).find("Inside")
    assert inside is not None
    return schema.read(type(record), inside)


def values_of(kind: type, *, repeats: bool, most: int) -> st.SearchStrategy[Any]:
    if repeats:
        return st.lists(values_of(kind, repeats=False, most=0), max_size=min(most, 3)).map(tuple)
    if dataclasses.is_dataclass(kind):
        return records(kind)
    plain: dict[type, st.SearchStrategy[Any]] = {
        bool: st.booleans(),
        int: st.integers(0, 1 << 31),
        float: st.integers(-3_600, 3_600).map(lambda tenths: tenths / 8),
        str: st.text("abc/123门", min_size=1, max_size=8),
    }
    return plain[kind]


def records(kind: type) -> st.SearchStrategy[Any]:
    return st.builds(
        kind,
        **{
            column.name: values_of(column.kind, repeats=column.repeats, most=column.most)
            for column in schema.columns(kind)
        },
    )


RECORDS = [group.record for group in GROUPS if group.record is not int]
RECORDS += [answers.Presets, answers.HomePositionAnswer, answers.CruiseTracks, answers.CruiseTrackPoints]
RECORDS += [answers.PtzPosition, answers.SdCards, answers.SnapshotsDone, answers.UpgradeResult, answers.DutyList]


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_every_record_comes_back(kind: type, data: st.DataObject) -> None:
    record = data.draw(records(kind))
    assert round_trip(record) == record


def test_elements_are_spelt_as_the_standard_does() -> None:
    body = manscdp.write("Control", [parameters.write(parameters.group_of("BasicParam"), BasicParam("n", 1, 2, 3))])
    expected = [
        *("<Control>", "<BasicParam>", "<Name>n</Name>", "<Expiration>1</Expiration>"),
        *("<HeartBeatInterval>2</HeartBeatInterval>", "<HeartBeatCount>3</HeartBeatCount>", "</BasicParam>"),
        *("</Control>", ""),
    ]
    assert body.decode().split("\r\n")[1:] == expected


def test_lists_carry_their_count() -> None:
    osd = OsdConfig(704, 576, 0, 0, True, 0, True, (OsdText("a", 1, 2), OsdText("b", 3, 4)))
    text = manscdp.write("Control", [parameters.write(parameters.group_of("osd_config"), osd)]).decode()
    assert "<SumNum>2</SumNum>\r\n<Item>\r\n<Text>a</Text>\r\n<X>1</X>" in text
    assert "<TimeEnable>1</TimeEnable>" in text
    presets = Presets((Preset(1, "gate"),))
    written = manscdp.write("Response", schema.write(presets)).decode()
    assert '<SumNum>1</SumNum>\r\n<PresetList Num="1">\r\n<Item>' in written
    attribute = parameters.VideoParamAttribute((parameters.VideoAttribute(0, "2", "6"),))
    group = parameters.group_of("VideoParamAttribute")
    assert '<VideoParamAttribute Num="1">' in manscdp.write("Control", [parameters.write(group, attribute)]).decode()


def read(kind: type, inside: str) -> Any:
    return answers.read(kind, xml.parse(f"<Response>{inside}</Response>".encode()))


def test_reading_forgives() -> None:
    found = read(
        SdCards,
        "<SDCardStatusInfo Num=2><Item><ID> 1 </ID><Capacity>x</Capacity><FreeSpace>1e999</FreeSpace></Item>"
        "<Item/></SDCardStatusInfo>",
    )
    assert [(card.id, card.capacity, card.free_space, card.name) for card in found.cards] == [
        (1, None, None, ""),
        (None, None, None, ""),
    ]
    assert read(Presets, "") == Presets()
    many = "".join(f"<Item><PresetID>{n}</PresetID></Item>" for n in range(2_000))
    assert len(read(Presets, f"<PresetList>{many}</PresetList>").presets) == limits.ANSWER_ITEMS
    assert len(read(SdCards, f"<SDCardStatusInfo>{many}</SDCardStatusInfo>").cards) == 8


@pytest.mark.parametrize("spelt", ["SnapShotConfig", "SnapShot", "SnapShotCfg", "snapshot"])
def test_groups_have_other_names_too(spelt: str) -> None:
    element = xml.parse(f"<Response><{spelt}><SnapNum>3</SnapNum></{spelt}><Other/></Response>".encode())
    assert parameters.read(element)["snap_shot_config"].snap_num == 3


def test_a_plain_number_and_what_is_none() -> None:
    element = xml.parse(b"<Response><FrameMirror>3</FrameMirror></Response>")
    assert parameters.read(element) == {"frame_mirror": 3}
    assert parameters.read(xml.parse(b"<Response><FrameMirror>left</FrameMirror></Response>")) == {"frame_mirror": None}
    assert parameters.write(parameters.group_of("FrameMirror"), 1) == ("FrameMirror", 1)


def test_only_what_is_given_is_set_and_in_the_order_of_the_standard() -> None:
    given_ = Parameters(osd_config=OsdConfig(), basic_param=BasicParam("n"))
    assert [group.name for group, _ in parameters.given(given_)] == ["BasicParam", "OSDConfig"]
    with pytest.raises(RequestError) as caught:
        parameters.group_of("Colour")
    assert caught.value.code == "unknown_config_type"


def test_a_password_in_basic_param_is_not_read() -> None:
    text = b"<Response><BasicParam><Name>n</Name><Password>hunter2</Password></BasicParam></Response>"
    element = xml.parse(text)
    assert parameters.read(element) == {"basic_param": BasicParam("n")}
    assert "hunter2" not in repr(element)
