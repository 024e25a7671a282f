"""What becomes of commands: answers in parts, late, wrong or missing, in virtual time."""

import asyncio
from typing import Any

import pytest

from gbgw.base.errors import GatewayError, PeerError, RequestError
from gbgw.commands import GAP_SECONDS, Commands
from gbgw.gb import control, manscdp
from gbgw.gb.answers import Presets
from gbgw.gb.parameters import BasicParam, group_of
from tests.support import clock
from tests.unit.gb.support import CAMERA
from tests.unit.test_questions import CHANNEL, World


def commands_of(world: World) -> Commands:
    world.online()
    return Commands(world.questions, world.tally)


def says(world: World, cmd_type: str, sn: int, *fields: manscdp.Field, target: str = CHANNEL) -> None:
    head: list[manscdp.Field] = [("CmdType", cmd_type), ("SN", sn), ("DeviceID", target)]
    world.questions.arrived(CAMERA, manscdp.parse(manscdp.write("Response", [*head, *fields], "3.0")))


async def outcome(call: Any, *later: tuple[float, Any]) -> Any:
    """Run a call while things happen; return its result, or the code of its error."""
    task = asyncio.ensure_future(call)
    for wait, happens in later:
        await asyncio.sleep(wait)
        happens()
    try:
        return await task
    except GatewayError as error:
        return error.code


def test_only_commands_with_a_result_wait_for_it() -> None:
    async def main() -> None:
        world = World()
        commands = commands_of(world)
        began = asyncio.get_running_loop().time()
        await commands.command(CAMERA, CAMERA, control.teleboot())
        assert asyncio.get_running_loop().time() == began
        guard = commands.command(CAMERA, CHANNEL, control.guard(on=True))
        ok = (3.0, lambda: says(world, "DeviceControl", 2, ("Result", "OK")))
        assert await outcome(guard, ok) is None
        assert asyncio.get_running_loop().time() == began + 3
        guard = commands.command(CAMERA, CHANNEL, control.guard(on=True))
        assert await outcome(guard, (1.0, lambda: says(world, "DeviceControl", 3))) == "command_failed"
        assert await outcome(commands.command(CAMERA, CHANNEL, control.guard(on=True))) == "query_no_answer"
        assert world.questions.pending == 0

    clock.run(main())


def test_a_configuration_comes_in_parts_or_not_whole() -> None:
    async def main() -> None:
        world = World()
        commands = commands_of(world)
        groups = [group_of("BasicParam"), group_of("FrameMirror")]
        found = await outcome(
            commands.configuration(CAMERA, CHANNEL, groups),
            (1.0, lambda: says(world, "ConfigDownload", 1, ("BasicParam", [("Name", "n")]))),
            (1.0, lambda: says(world, "ConfigDownload", 1, ("FrameMirror", 1))),
        )
        assert found == {"basic_param": BasicParam("n"), "frame_mirror": 1}
        began = asyncio.get_running_loop().time()
        found = await outcome(
            commands.configuration(CAMERA, CHANNEL, groups),
            (1.0, lambda: says(world, "ConfigDownload", 2, ("FrameMirror", 1))),
        )
        assert found == {"frame_mirror": 1}
        assert asyncio.get_running_loop().time() == began + 1 + GAP_SECONDS
        nothing = commands.configuration(CAMERA, CHANNEL, groups)
        assert await outcome(nothing, (1.0, lambda: says(world, "ConfigDownload", 3))) == "answer_unusable"
        failed = commands.configuration(CAMERA, CHANNEL, groups)
        error = (1.0, lambda: says(world, "ConfigDownload", 4, ("Result", "ERROR")))
        assert await outcome(failed, error) == "query_failed"

    clock.run(main())


def test_an_answer_about_another_is_passed_over_for_the_right_one() -> None:
    async def main() -> None:
        world = World()
        commands = commands_of(world)
        other = (0.5, lambda: says(world, "PresetQuery", 1, target="34020000001310000099"))
        right = (0.5, lambda: says(world, "PresetQuery", 1, ('PresetList Num="1"', [("Item", [("PresetID", 4)])])))
        found = await outcome(commands.ask(CAMERA, CHANNEL, "PresetQuery", Presets), other, right)
        assert [preset.id for preset in found.presets] == [4]
        assert world.tally["question.answer_for_another"] == 1

    clock.run(main())


def test_the_edition_decides_what_may_be_sent() -> None:
    async def main() -> None:
        world = World()
        commands = commands_of(world)
        entry = world.directory.get(CAMERA)
        assert entry is not None
        entry.edition = "2.0"
        with pytest.raises(RequestError) as caught:
            await commands.command(CAMERA, CHANNEL, control.format_sd_card(1))
        assert caught.value.code == "edition_unsupported"
        await commands.command(CAMERA, CHANNEL, control.format_sd_card(1), forced=True)
        with pytest.raises(RequestError):
            await commands.configure(CAMERA, CHANNEL, group_of("VideoParamOpt"), object())
        world.directory.offline(CAMERA, "test")
        with pytest.raises(PeerError):
            await commands.command(CAMERA, CHANNEL, control.teleboot())
        assert len(world.heard) == 1

    clock.run(main())
