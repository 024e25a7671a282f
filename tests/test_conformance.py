"""docs/conformance.md says which test proves which statement of the checklist; the markers in the tests are the truth.

`python -m tests.test_conformance` writes the table's last column anew from the markers.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
DOCUMENT: Final = ROOT / "docs" / "conformance.md"
ROW: Final = re.compile(r"^\| (\d+) \| (.+?) \| (.*) \|$")
# What this version claims; the other numbers of the checklist come with playback, alarms, cascade and the like.
STATEMENTS: Final = frozenset(
    [*range(1, 16), *range(20, 44), *range(46, 52), *range(57, 71), *range(73, 80), 87, 88, 89, 91]
)


def marked() -> dict[int, list[str]]:
    """Test names by statement, in the order of files and lines."""
    found: dict[int, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        source = path.read_text()
        if "conformance(" not in source:
            continue
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                for number in numbers(node):
                    found[number].append(f"{path.relative_to(ROOT).as_posix()}::{node.name}")
    return found


def numbers(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[int]:
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.conformance":
            for argument in decorator.args:
                yield ast.literal_eval(argument)


def rows() -> dict[int, tuple[str, list[str]]]:
    found = {}
    for line in DOCUMENT.read_text().splitlines():
        match = ROW.match(line)
        if match:
            number = int(match[1])
            assert number not in found, f"statement {number} twice"
            found[number] = (match[2], re.findall(r"`([^`]+)`", match[3]))
    return found


def test_the_document_lists_each_statement_once_in_order() -> None:
    found = rows()
    assert set(found) == STATEMENTS
    assert list(found) == sorted(found)
    assert all(len(text) >= 20 for text, _ in found.values())


def test_each_statement_names_the_tests_that_are_marked_with_it() -> None:
    tests = marked()
    assert set(tests) == STATEMENTS, "markers and claims differ"
    for number, (_, named) in rows().items():
        assert named == tests[number], f"statement {number}: run python -m tests.test_conformance"


def write() -> None:
    tests = marked()

    def renewed(line: str) -> str:
        match = ROW.match(line)
        if match is None:
            return line
        names = "<br>".join(f"`{name}`" for name in tests[int(match[1])])
        return f"| {match[1]} | {match[2]} | {names} |"

    DOCUMENT.write_text("".join(renewed(line) + "\n" for line in DOCUMENT.read_text().splitlines()))


if __name__ == "__main__":
    write()
