"""Fuzz target for gbgw/base/config: any bytes as the file, the environment and --set.

Input: lines that begin with `!` are --set, those with `$` are of the environment (NAME=VALUE); the others are the file.
"""

import os
import re

from gbgw.base import config
from gbgw.base.errors import ConfigError

_FILE = os.memfd_create("gbgw.toml")
PATH = f"/proc/self/fd/{_FILE}"


def parts(data: bytes) -> tuple[bytes, dict[str, str], list[str]]:
    """(file, environment, overrides)."""
    file: list[bytes] = []
    environment: dict[str, str] = {}
    overrides: list[str] = []
    for line in data.split(b"\n"):
        text = os.fsdecode(line[1:])
        if line.startswith(b"!"):
            overrides.append(text)
        elif line.startswith(b"$"):
            name, _, value = text.partition("=")
            environment[name] = value
        else:
            file.append(line)
    return b"\n".join(file), environment, overrides


def check(data: bytes) -> None:
    """A configuration that keeps its word, or ConfigError that says where."""
    file, environment, overrides = parts(data)
    os.ftruncate(_FILE, 0)
    os.pwrite(_FILE, file, 0)
    try:
        loaded = config.load(PATH, env=environment, overrides=overrides)
    except ConfigError as refused:
        error = refused
    else:
        judge(loaded)
        return
    assert error.message
    assert error.remedy


def judge(loaded: config.Loaded) -> None:
    """Every value is one that the rest of the program can use, and is known where it is from."""
    found = loaded.config
    assert config.Config.model_validate(found.model_dump()) == found
    assert re.fullmatch(r"[0-9]{20}", found.sip.id)
    ports = config.port_range(found.media.ports)
    assert 1 <= ports[0] < ports[-1] <= 65_535
    for url in found.sip.listen:
        assert 0 <= config.split_url(url, ["udp", "tcp"])[2] <= 65_535
    config.host_port(found.http.listen)
    if found.media.worker_cpus not in ("", "auto"):
        assert all(0 <= cpu < 4_096 for cpu in config.cpu_list(found.media.worker_cpus))
    for seconds in (found.sip.invite_seconds, found.media.idle_seconds, found.auth.play_token_seconds):
        assert 0 < seconds <= 86_400
    for place in loaded.origins:
        section, _, key = place.partition(".")
        assert hasattr(getattr(found, section), key), place
