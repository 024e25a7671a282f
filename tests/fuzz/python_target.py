"""One Python target under atheris, which counts the edges of gbgw's bytecode.

python -m tests.fuzz.python_target NAME [libFuzzer's options and folders]
"""

import sys
from collections.abc import Callable
from time import process_time_ns


def main(name: str) -> None:
    import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]  # installed by `make fuzz`

    # The models stay as they are: an edge of theirs is none of the gateway's.
    with atheris.instrument_imports(include=["gbgw"]):
        from tests.fuzz.targets import check_of

        check = check_of(name)
    atheris.Setup([sys.argv[0], *sys.argv[2:]], timed(check))
    atheris.Fuzz()


def timed(check: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """`check` that tells of an input that takes longer than every one before, as native/main.c does."""
    slowest = 500_000

    def run(data: bytes) -> None:
        nonlocal slowest
        begun = process_time_ns()
        check(data)
        if (taken := process_time_ns() - begun) > slowest:
            slowest = taken
            print(f"gbgw-fuzz: slowest input so far: {-(-taken // 1_000_000)} ms", file=sys.stderr, flush=True)

    return run


if __name__ == "__main__":
    main(sys.argv[1])
