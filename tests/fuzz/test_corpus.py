"""Replay of the fuzz corpora.

Every `fuzz_NAME.py` has `check(data)`, run here over the files of `corpus/NAME` and over mutations
of them that are the same in each run.
"""

import importlib.util
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parent
MUTATIONS = 60  # of each file; a change here changes nothing that was ever found, crashes become files


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def targets() -> list[Path]:
    return sorted(HERE.glob("fuzz_*.py"))


def corpus(target: Path) -> list[Path]:
    return sorted(one for one in (HERE / "corpus" / target.stem.removeprefix("fuzz_")).glob("*") if one.is_file())


def mutations(data: bytes, seed: str) -> Iterator[bytes]:
    chance = random.Random(seed)
    for _ in range(MUTATIONS):
        mutant = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(mutant) + 1)
            kind = chance.randrange(5)
            if kind == 0:
                mutant[at : at + 1] = bytes([chance.randrange(256)])
            elif kind == 1:
                del mutant[at : at + chance.randint(1, 16)]
            elif kind == 2:
                mutant[at:at] = chance.randbytes(chance.randint(1, 16))
            elif kind == 3:
                mutant[at : at + 2] = chance.choice([b"\0\0", b"\xff\xff", b"\x80\x60", b"\0\0\1\xba", b"\x7f\xff"])
            else:
                mutant[at:at] = mutant[: chance.randint(1, 64)]
        yield bytes(mutant)


def test_every_target_has_a_corpus() -> None:
    assert targets()
    assert [target.stem for target in targets() if not corpus(target)] == []


@pytest.mark.parametrize("target", targets(), ids=lambda target: target.stem)
def test_replay(target: Path) -> None:
    check: Callable[[bytes], None] = load(target).check
    check(b"")
    for file in corpus(target):
        data = file.read_bytes()
        check(data)
        for mutant in mutations(data, file.name):
            try:
                check(mutant)
            except Exception as error:
                error.add_note(f"mutant of {file.name}: {mutant.hex()}")
                raise
