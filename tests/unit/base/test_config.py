"""gbgw.base.config: where values come from, and errors that a person can act on."""

from pathlib import Path

import pytest

from gbgw.base.config import Config, host_port, load, port_range
from gbgw.base.errors import ConfigError


def write(folder: Path, text: str) -> str:
    path = folder / "gbgw.toml"
    path.write_text(text)
    return str(path)


def test_defaults_are_the_documented_ones() -> None:
    config = Config()
    assert config.sip.listen == ("udp://0.0.0.0:5060", "tcp://0.0.0.0:5060")
    assert config.http.listen == "127.0.0.1:8080"
    assert config.media.ports == "30000-34999"
    assert config.auth.play == "token"
    assert config.sip.password == ""


def test_order_is_default_file_environment_set(tmp_path: Path) -> None:
    path = write(tmp_path, "[media]\nidle_seconds = 1\nlinger_seconds = 1\nfirst_packet_seconds = 1\n")
    loaded = load(
        path,
        env={"GBGW_MEDIA__LINGER_SECONDS": "2", "GBGW_MEDIA__FIRST_PACKET_SECONDS": "2", "HOME": "/"},
        overrides=["media.first_packet_seconds=3"],
    )
    media = loaded.config.media
    assert (media.idle_seconds, media.linger_seconds, media.first_packet_seconds) == (1, 2, 3)
    assert loaded.origins["media.idle_seconds"] == f"{path}:2"
    assert loaded.origins["media.linger_seconds"] == "GBGW_MEDIA__LINGER_SECONDS"
    assert loaded.origins["media.first_packet_seconds"] == "--set"


def test_ids_and_ranges_need_no_quotes() -> None:
    config = load(overrides=["sip.id=34020000002000000009", "media.ports=30000-30499", "webrtc.ports=8000"]).config
    assert config.sip.id == "34020000002000000009"
    assert config.media.ports == "30000-30499"
    assert config.webrtc.ports == "8000"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[media]\nport = 1\n", ("gbgw.toml:2", "media.port", "ports")),
        ("[medai]\nports = 1\n", ("gbgw.toml:1", "medai", "[media]")),
        ("ports = 1\n", ("gbgw.toml:1", "outside any [section]")),
        ("[media]\nports = '5-1'\n", ("gbgw.toml:2", "media.ports", "first <= last")),
        ("[media]\ntransport = 'sctp'\n", ("gbgw.toml:2", "media.transport", "tcp-passive")),
        ("[sip]\nid = '123'\n", ("gbgw.toml:2", "sip.id")),
        ("[sip]\nlisten = ['http://x']\n", ("gbgw.toml:2", "udp|tcp")),
        ("[media]\nidle_seconds = -1\n", ("gbgw.toml:2", "greater than 0")),
        ("[media]\nports='30000-40000'\n[webrtc]\nports='35000'\n", ("webrtc.ports 35000", "overlap")),
        ("[media]\nsingle_port=35000\n[webrtc]\nports='35000'\n", ("webrtc.ports 35000", "media.single_port 35000")),
        ("[media]\nsingle_port=5060\n", ("sip.listen port 5060", "media.single_port 5060")),
        ("[media]\nsingle_port=30000\nreceive='loop'\n", ("media.single_port", "thread")),
        ("[sip]\nlisten=['udp://0.0.0.0:30002']\n", ("30002", "media.ports")),
        ("[store]\nurl='redis://x'\n", ("gbgw.toml:2", "sqlite")),
        ("[media\n", ("gbgw.toml", "line 1")),
    ],
)
def test_an_error_names_key_line_and_what_was_expected(tmp_path: Path, text: str, said: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text))
    for part in said:
        assert part in str(caught.value)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(str(tmp_path / "none.toml"))


def test_a_file_that_is_no_text_says_so(tmp_path: Path) -> None:
    path = tmp_path / "gbgw.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(str(path))


@pytest.mark.parametrize("text", ["no-equals", "key=1", "nosection.key", "sip.nothing=1"])
def test_a_bad_override_says_so(text: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        load(overrides=[text])


@pytest.mark.parametrize("text", ["", "x", "1-2-3", "0", "70000", "9-8"])
def test_port_ranges_refuse(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        port_range(text)


def test_addresses() -> None:
    assert host_port("127.0.0.1:80") == ("127.0.0.1", 80)
    assert host_port("[::1]:8080") == ("::1", 8080)
    with pytest.raises(ValueError, match="expected"):
        host_port("8080")


def test_the_password_is_not_shown() -> None:
    assert "secret" not in repr(load(overrides=["sip.password=secret"]).config)


def test_an_unknown_section_is_traced_to_where_it_was_set() -> None:
    with pytest.raises(ConfigError) as raised:
        load(overrides=("nowhere.key=1",))
    assert str(raised.value).startswith("--set: unknown key nowhere")
