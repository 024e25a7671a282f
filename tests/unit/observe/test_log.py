"""Logging: nothing secret in any form or format, one event a line, libraries quiet."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any, Literal

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from gbgw.observe import log

SECRET = "Gh7-secret_Value.42"


@pytest.fixture(autouse=True)
def _configuration_of_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(log, "_configured", None)
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.configure(**before)
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def written(form: Literal["console", "json"], level: str = "info", **event: Any) -> str:
    out = io.StringIO()
    log.configure(level, form, out)
    log.get("test").info("happened", **event)
    return out.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        f"GET /live/1-2.flv?token={SECRET}&audio=aac HTTP/1.1",
        f"GET /x?audio=aac&token={SECRET}",
        f"ws://host/live/1.flv?TOKEN={SECRET}",
        f"access_token={SECRET}",
        f"Authorization: Bearer {SECRET}",
        f'Authorization: Digest username="3402", nonce="{SECRET}", uri="sip:x"',
        f'Digest username="3402", response="{SECRET}", algorithm=MD5',
        f"<Control><Password>{SECRET}</Password></Control>",
        f"<control><password>{SECRET}",
        f"sip.password={SECRET}",
        f"password: {SECRET}",
        f'{{"name": "a", "password": "{SECRET}"}}',
        f"{{'password': '{SECRET}'}}",
        f"turn://user:{SECRET}@turn.example:3478",
        f'password="{SECRET} and the rest"',
        f"ha1_md5, ha1={SECRET}",
    ],
)
def test_secrets_are_replaced_in_any_text(text: str) -> None:
    clean = log.redact(text)
    assert SECRET not in clean
    assert "and the rest" not in clean
    assert "***" in clean


def test_what_is_no_secret_stays() -> None:
    text = "GET /live/34020000001320000001-34020000001310000001.flv?audio=aac from 192.0.2.1:5060, sip:34020@host:5060"
    assert log.redact(text) == text
    assert log.redact("a=1&token=x&b=2") == "a=1&token=***&b=2"


def test_our_own_tokens_are_known_wherever_they_stand() -> None:
    assert log.redact("who is gbgw_7ldTMgotMCXVBVA6GTrX4IKeQmsNTWk1?") == "who is gbgw_***?"


@given(st.text())
def test_any_text_can_be_redacted_and_stays_so(text: str) -> None:
    once = log.redact(f"token={SECRET} {text}")
    assert SECRET not in once
    assert SECRET not in log.redact(once)


@pytest.mark.parametrize("form", ["console", "json"])
def test_secret_keys_nested_values_and_exceptions(form: Literal["console", "json"]) -> None:
    class Odd:
        def __str__(self) -> str:
            return f"Odd(token={SECRET})"

    text = written(
        form,
        password=SECRET,
        headers={"Authorization": f"Basic {SECRET}", "Host": "here"},
        urls=[f"/a?token={SECRET}", {"secret": SECRET}],
        odd=Odd(),
        number=5,
    )
    assert SECRET not in text
    assert "here" in text
    assert "5" in text


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_traceback_shows_no_values_of_variables(form: Literal["console", "json"]) -> None:
    out = io.StringIO()
    log.configure("info", form, out)
    password = SECRET
    try:
        raise ValueError(f"bad: password={password}")
    except ValueError:
        log.get("test").exception("bug", stream="a-b")
    assert "Traceback" in out.getvalue()
    assert "ValueError: bad: password=***" in out.getvalue()
    assert SECRET not in out.getvalue()


def test_json_is_one_object_a_line_in_order() -> None:
    line = written("json", stream="a-b", device="3402", text="two\nlines", name="摄像机")
    assert line.count("\n") == 1
    event = json.loads(line)
    assert list(event)[:4] == ["timestamp", "level", "area", "event"]
    assert event["timestamp"].endswith("Z")
    assert (event["area"], event["event"], event["name"]) == ("test", "happened", "摄像机")
    assert "摄像机" in line


def test_console_is_columns() -> None:
    line = written("console", stream="a-b")
    assert "[info     ] test      happened" in line
    assert "stream=a-b" in line
    assert "area=" not in line


def test_auto_is_json_where_nobody_watches() -> None:
    out = io.StringIO()
    log.configure("info", "auto", out)
    log.get("test").info("x")
    json.loads(out.getvalue())


def test_levels() -> None:
    assert written("json", "warning") == ""
    assert written("json", "debug") != ""


@pytest.mark.parametrize("form", ["console", "json"])
def test_libraries_are_quiet_below_warning_and_cleaned_above(form: Literal["console", "json"]) -> None:
    out = io.StringIO()
    log.configure("info", form, out)
    for name in ("aioice.ice", "aiortc.rtcpeerconnection", "aiohttp.access", "asyncio"):
        logging.getLogger(name).info("chatter")
        logging.getLogger(name).warning("odd %s", f"token={SECRET}")
    assert "chatter" not in out.getvalue()
    assert out.getvalue().count("odd") == 4
    assert SECRET not in out.getvalue()


def test_a_tally_line() -> None:
    out = io.StringIO()
    log.configure("info", "json", out)
    tally = log.root_tally()
    tally.add("ps.malformed", detail="first", now=1.0)
    tally.add("ps.malformed", 4, detail="more", now=1.5)
    tally.add("ps.malformed", detail="third", now=2.0)
    events = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(event["counter"], event["count"]) for event in events] == [("ps.malformed", 1), ("ps.malformed", 5)]
    assert all(event["level"] == "warning" for event in events)


def test_other_processes_are_told_how_this_one_logs() -> None:
    assert log.configured() is None, "a library does not know"
    log.configure("warning", "json", io.StringIO())
    assert log.configured() == ("warning", "json")
    log.configure("debug", "auto", io.StringIO())
    assert log.configured() == ("debug", "auto")
