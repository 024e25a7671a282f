"""The house rules that a linter does not know (CONTRIBUTING.md, ARCHITECTURE.md)."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gbgw.base import limits

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "gbgw").rglob("*.py"))
CORES = sorted((ROOT / "gbgw").glob("*.pyx"))
CIMPORT = re.compile(
    r"\s*(cimport cython|from (libc|cpython|cython|gbgw\._(bytes|rtp|ps))\S* cimport|from gbgw cimport)"
)
DIRECTIVES = [
    "# cython: language_level=3, binding=True, embedsignature=True",
    "# cython: boundscheck=True, wraparound=False, cdivision=False, initializedcheck=True",
]


def calls(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node.lineno


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_task_has_an_owner(path: Path) -> None:
    """Tasks are made by a TaskGroup; its variable is called tasks or group."""
    for name, line in calls(ast.parse(path.read_text())):
        assert name not in ("asyncio.create_task", "asyncio.ensure_future", "asyncio.wait_for"), f"{path}:{line} {name}"
        if name.endswith(".create_task"):
            owner = name.removesuffix(".create_task").rsplit(".", 1)[-1].lstrip("_")
            assert owner in ("tasks", "group"), f"{path}:{line} {name}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_exception_is_swallowed_whole(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
            silent = all(isinstance(each, ast.Pass) for each in node.body)
            assert not (broad and silent), f"{path}:{node.lineno}"
            assert node.type is not None, f"{path}:{node.lineno} bare except"


def test_sans_io_layers_read_no_clock() -> None:
    for layer in ("base", "media", "sip", "gb"):
        for path in (ROOT / "gbgw" / layer).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                for name in names:
                    assert name.split(".")[0] not in ("asyncio", "socket", "time", "threading", "selectors"), path


def test_every_limit_is_used_and_has_its_reason() -> None:
    text = (ROOT / "gbgw/base/limits.py").read_text()
    used = "".join(path.read_text() for path in [*SOURCES, *CORES] if path.name != "limits.py")
    for name in (name for name in vars(limits) if name.isupper()):
        line = next(line for line in text.splitlines() if line.startswith(f"{name}:") or line.startswith(f"{name} "))
        after = text[text.index(line) :].split("\n\n")[0]
        assert "#" in after, f"{name} has no reason"
        assert re.search(rf"\b{name}\b", used) or name in text.replace(line, ""), f"limits.{name} is not used"


@pytest.mark.parametrize("path", CORES, ids=lambda path: path.name)
def test_cores_keep_their_directives_and_imports(path: Path) -> None:
    text = path.read_text()
    assert text.splitlines()[:2] == DIRECTIVES
    for line in text.splitlines():
        if "cimport" in line and not line.strip().startswith("#"):
            assert CIMPORT.match(line), line
        assert not re.match(r"\s*include\b", line)
    for line in text.splitlines():
        match = re.match(r"\s*from (gbgw\S*) import|\s*import (gbgw\S*)", line)
        if match:
            assert (match[1] or match[2]).startswith("gbgw.base"), line


def test_import_gbgw_is_light() -> None:
    import subprocess
    import sys

    heavy = "{'av', 'aiohttp', 'aiortc', 'numpy', 'pydantic'}"
    code = f"import gbgw, sys; print(sorted({heavy} & set(sys.modules)))"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_versions_agree() -> None:
    import tomllib

    import gbgw

    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == gbgw.__version__
