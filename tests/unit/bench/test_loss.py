from pathlib import Path
from xml.etree import ElementTree

import pytest

from gbgw.bench import loss
from gbgw.bench.loss import POLICIES, Outcome, VirtualClock, reference, run
from gbgw.bench.report import Report
from gbgw.device.sender import Rates
from gbgw.mux.loop import Loop
from gbgw.mux.scene import SceneSpec, scene_loop

OBEYING, FREEZE, PASS = POLICIES
SECONDS = 8.0


@pytest.fixture(scope="module")
def loop() -> Loop:
    return scene_loop(SceneSpec(320, 176, 25, 50, 2, 600_000))


@pytest.fixture(scope="module")
def known(loop: Loop) -> dict[bytes, int]:
    return reference(loop)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_a_good_network_shows_every_picture(loop: Loop, known: dict[bytes, int], policy: loss.Policy) -> None:
    assert run(loop, known, Rates(), policy, SECONDS, 1) == Outcome(200, 200, 200, 0)


@pytest.mark.parametrize("seed", range(3))
def test_reordering_inside_the_window_leaves_no_trace(loop: Loop, known: dict[bytes, int], seed: int) -> None:
    assert run(loop, known, Rates(reorder=0.05), FREEZE, SECONDS, seed) == Outcome(200, 200, 200, 0)


@pytest.mark.parametrize("seed", range(3))
def test_freeze_shows_nothing_damaged_and_pass_does(loop: Loop, known: dict[bytes, int], seed: int) -> None:
    rates = Rates(loss=0.02)
    frozen = run(loop, known, rates, FREEZE, SECONDS, seed)
    assert frozen.damaged == frozen.complaints == 0
    assert 0 < frozen.whole < frozen.sent
    passed = run(loop, known, rates, PASS, SECONDS, seed)
    assert passed.damaged > 0
    assert passed.whole >= frozen.whole
    obeying = run(loop, known, rates, OBEYING, SECONDS, seed)
    assert obeying.damaged == obeying.complaints == 0


def test_a_camera_that_obeys_is_back_sooner(loop: Loop, known: dict[bytes, int]) -> None:
    rates = Rates(loss=0.004)
    whole = [
        sum(run(loop, known, rates, policy, 20.0, seed).whole / 500 for seed in range(4))
        for policy in (OBEYING, FREEZE)
    ]
    assert whole[0] > whole[1]


def test_equal_seeds_give_equal_outcomes(loop: Loop, known: dict[bytes, int]) -> None:
    rates = Rates(loss=0.05)
    assert run(loop, known, rates, PASS, 4.0, 7) == run(loop, known, rates, PASS, 4.0, 7)


def test_the_clock_rings_in_order_and_not_what_was_cancelled() -> None:
    clock, rung = VirtualClock(), []
    begin = clock.time()
    clock.call_at(begin + 2, lambda: rung.append(("b", clock.time() - begin)))
    clock.call_at(
        begin + 1, lambda: clock.call_at(begin + 1.5, lambda: rung.append(("a", clock.time() - begin))) and None
    )
    clock.call_at(begin + 1.7, lambda: rung.append(("never", 0.0))).cancel()
    clock.call_at(begin + 9, lambda: rung.append(("later", 0.0)))
    clock.advance(begin + 3)
    assert rung == [("a", 1.5), ("b", 2.0)]
    assert clock.time() == begin + 3


def test_what_is_published(tmp_path: Path) -> None:
    options = loss.LossOptions(losses=(0.0, 2.0), reorders=(1.0,), folder=tmp_path)
    reports = []
    for number, policy in enumerate(POLICIES):
        report = Report(policy.name)
        for rate in options.losses:
            report.add(f"{rate:g} % lost: whole", 100 - rate * (number + 1))
            report.add(f"{rate:g} % lost: damaged", rate)
            report.add(f"{rate:g} % lost: complaints", 0)
        reports.append(report)
    order = Report("reorder")
    for what, value in (("whole", 100), ("damaged", 0), ("complaints", 0)):
        order.add(f"1 % reordered: {what}", value)
    shared = dict.fromkeys(("command", "stream", "run", "whole picture", "decoder", "IFrame"), "text")
    loss.publish(options, reports, [order], shared)
    table = (tmp_path / "loss.md").read_text()
    assert "| 2 % | 98.0 % / 2.0 % / 0 | 96.0 % / 2.0 % / 0 | 94.0 % / 2.0 % / 0 |" in table
    assert "| 1 % | 100.0 % / 0.0 % / 0 |" in table
    root = ElementTree.fromstring((tmp_path / "loss.svg").read_text())
    assert sum(node.tag.endswith("polyline") for node in root.iter()) == 4
