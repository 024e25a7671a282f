"""The documents name what exists: keys, codes, metrics, commands, files."""

import ast
import json
import re
from pathlib import Path

import pytest

from gbgw.base.config import Config

ROOT = Path(__file__).parents[1]
OPERATIONS = ["docs/operations.md", "docs/operations.zh-CN.md"]
DOCUMENTS = [
    *("README.md", "README.zh-CN.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md"),
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md"))),
]
TOLD_TO_NOBODY = {  # of the simulated device, the demo and the benchmarks, or caught before anybody hears of them
    *("challenge_unusable", "demo_camera_died", "demo_not_ready", "device_failed"),
    *(
        "api_refused",
        "api_silent",
        "bench_confused",
        "bench_not_registered",
        "file_limit",
        "gateway_died",
        "load_stuck",
    ),
    *(
        "no_connection",
        "no_picture",
        "url_unusable",
        "viewer_refused",
        "upload_refused",
        "load_died",
        "whep_refused",
        "whep_unusable",
    ),
}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def cause_codes() -> dict[str, str]:
    """Every constant code of an error or a diagnosis in gbgw -> where it stands."""
    found = {}
    for path in sorted((ROOT / "gbgw").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            values = [keyword.value for keyword in node.keywords if keyword.arg == "code"] if "Error" in name else []
            values += node.args[:1] if name == "Diagnosis" else []
            for value in values:
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    found[value.value] = f"{path.relative_to(ROOT)}:{node.lineno}"
    return found


def test_some_codes_are_found() -> None:
    assert {"no_media", "invite_no_answer", "unknown_device", "transcode_limit"} <= set(cause_codes())


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_key_is_listed_with_its_default(name: str) -> None:
    rows = dict(re.findall(r"^\| `([a-z]+\.[a-z0-9_]+)`[ ↻]* \| `(.*?)` \|", read(name), re.MULTILINE))
    keys = {
        f"{section}.{key}": json.dumps(value)
        for section, options in Config().model_dump(mode="json").items()
        for key, value in options.items()
    }
    assert rows == keys


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_cause_code_is_explained(name: str) -> None:
    listed = set(re.findall(r"^\| `([a-z_]+(?:NNN)?)` \|", read(name), re.MULTILINE))
    missing = {code: place for code, place in cause_codes().items() if code not in listed | TOLD_TO_NOBODY | {"ok"}}
    assert not missing


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_row_explains_a_code_that_is_gone(name: str) -> None:
    listed = set(re.findall(r"^\| `(?!gbgw_)([a-z_]+)` \|", read(name), re.MULTILINE))
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "gbgw").rglob("*.py"))
    assert {code for code in listed if f'"{code}"' not in source} == set()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_make_targets_and_files_exist(name: str) -> None:
    text = read(name)
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    assert (
        set(re.findall(r"\bmake ([a-z-]+)\b(?=[`\s])", "".join(re.findall(r"`[^`]*`|^make .*$", text, re.M))))
        <= targets
    )
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if not link.startswith("http"):
            assert ((ROOT / name).parent / link).exists(), f"{name} points to {link}"


@pytest.mark.parametrize("name", [*OPERATIONS, "README.md", "README.zh-CN.md"])
def test_anchors_exist(name: str) -> None:
    for link, anchor in re.findall(r"\]\(([^)#\s]*)#([^)]+)\)", read(name)):
        target = read(str(((ROOT / name).parent / link).relative_to(ROOT)) if link else name)
        titles = [
            re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.+)$", target, re.M)
        ]
        assert anchor in titles, f"{name} points to {link}#{anchor}"


def test_the_threat_model_names_what_exists() -> None:
    text = read("docs/threat-model.md")
    limits = set(re.findall(r"^([A-Z_]+): Final", read("gbgw/base/limits.py"), re.MULTILINE))
    tests = set(
        re.findall(
            r"def (test_\w+)", "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
        )
    )
    assert set(re.findall(r"`([A-Z]+_[A-Z_]+|[A-Z]{5,})`", text)) - limits == set()
    assert set(re.findall(r"`(test_\w+)`", text)) - tests == set()
    assert [path for path in re.findall(r"`((?:tests|gbgw)/[\w/.]+)`", text) if not (ROOT / path).exists()] == []


def test_every_decision_is_listed() -> None:
    index = re.findall(r"^(\d+)\. \[.*\]\((\d{4})-", read("docs/adr/README.md"), re.MULTILINE)
    assert [int(number) for number, _ in index] == [int(file) for _, file in index]
    assert sorted(file for _, file in index) == sorted(path.name[:4] for path in (ROOT / "docs/adr").glob("0*.md"))
