"""Instrumented builds of the cores, beside the ordinary ones and never in their place.

`address`: AddressSanitizer and UndefinedBehaviorSanitizer, by the machine's compiler; the ordinary suite replays the
corpora on it. `fuzzer`: also libFuzzer's coverage counters, and the program that main.c makes; by clang. A build is
kept in `build/instrumented/` for as long as nothing that went into it changes.
"""

import hashlib
import importlib
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Final, Literal

ROOT: Final = Path(__file__).resolve().parents[2]
BUILDS: Final = ROOT / "build" / "instrumented"
CORES: Final = tuple(sorted(path.stem for path in (ROOT / "gbgw").glob("_*.pyx")))
PROGRAM: Final = "gbgw-fuzz"
# Leaks are the targets' business (main.c counts bytes), since an interpreter that ends never frees all it had.
OPTIONS: Final = {
    "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:exitcode=77:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:exitcode=77",
}
EXIT_CODE: Final = 77

Flavour = Literal["address", "fuzzer"]


class BuildError(Exception):
    """No compiler fits, or it refused; the text is for the one who called."""


def compiler(flavour: Flavour) -> str:
    """The compiler for a flavour: clang where coverage is wanted, else whichever has a runtime to preload."""
    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang") if flavour == "address" else ("clang",):
        if name and shutil.which(name) and (flavour == "fuzzer" or runtime(name) is not None):
            return name
    raise BuildError(
        "no compiler with AddressSanitizer; apt-get install gcc"
        if flavour == "address"
        else "libFuzzer needs clang; apt-get install clang libclang-rt-dev"
    )


def runtime(compiler: str) -> Path | None:
    """The shared library of AddressSanitizer that belongs to a compiler."""
    machine = os.uname().machine
    for name in (f"libclang_rt.asan-{machine}.so", "libasan.so"):  # clang knows gcc's as well
        found = subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=False)
        path = Path(found.stdout.strip())
        if path.is_absolute() and path.exists():
            return path.resolve()
    return None


def build(flavour: Flavour, *, seconds: float = 600.0) -> Path:
    """Build what is not built yet; return the folder of the modules (and, for `fuzzer`, of the program)."""
    cc = compiler(flavour)
    folder = BUILDS / flavour
    stamp, wanted = folder / "stamp", digest(flavour, cc)
    if stamp.exists() and stamp.read_text() == wanted:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    environment = {**os.environ, "CC": cc, "GBGW_SANITIZE": flavour, "LDSHARED": f"{cc} -shared"}
    environment.pop("GBGW_DEBUG", None)
    command = [sys.executable, "setup.py", "-q", "build_ext", "--force", f"-j{os.cpu_count() or 1}"]
    _run([*command, f"--build-lib={folder}", f"--build-temp={folder / 'objects'}"], environment, seconds)
    if flavour == "fuzzer":
        for command in _program(cc, folder):
            _run(command, environment, seconds)
    stamp.write_text(wanted)
    return folder


def use(folder: str) -> None:
    """Make this process import the instrumented cores. AssertionError when it has others already."""
    import gbgw

    assert not [name for name in CORES if f"gbgw.{name}" in sys.modules], "the ordinary cores are imported already"
    gbgw.__path__.insert(0, str(Path(folder) / "gbgw"))
    if folder not in sys.path:
        sys.path.insert(0, folder)
    for name in CORES:
        core = importlib.import_module(f"gbgw.{name}")
        assert str(core.__file__).startswith(folder), core.__file__


def environment(folder: Path, cc: str) -> dict[str, str]:
    """For a process that calls use(folder): the runtime comes first, and all memory from malloc, where ASan sees it."""
    found = runtime(cc)
    assert found is not None
    return {
        **os.environ,
        **OPTIONS,
        "LD_PRELOAD": str(found),
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": str(ROOT),
        "GBGW_FUZZ_PATH": str(folder),
    }


def _program(cc: str, folder: Path) -> tuple[list[str], list[str]]:
    """Compile and link. Only the link knows of libFuzzer: the edges of main.c are nobody's."""
    include, libraries, version = sysconfig.get_config_vars("INCLUDEPY", "LIBDIR", "LDVERSION")
    source, made = str(ROOT / "tests/fuzz/native/main.c"), str(folder / f"{PROGRAM}.o")
    checks = ["-g", "-fsanitize=address,undefined"]
    return (
        [cc, "-c", "-O1", "-Wall", "-Wextra", *checks, f"-I{include}", source, "-o", made],
        [
            *(cc, *checks, "-fsanitize=fuzzer", "-rdynamic", made, "-o", str(folder / PROGRAM)),
            *(f"-L{libraries}", f"-Wl,-rpath,{libraries}", f"-lpython{version}", "-ldl", "-lm"),
        ],
    )


def _run(command: list[str], environment: dict[str, str], seconds: float) -> None:
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )
    if done.returncode:
        raise BuildError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")


def digest(flavour: Flavour, cc: str) -> str:
    """Of everything that goes into a build."""
    version = subprocess.run([cc, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    found = hashlib.sha256(f"{flavour} {version} {sys.version} {sys.executable}".encode())
    sources = [*sorted((ROOT / "gbgw").glob("_*.p[xy][xd]*")), *sorted((ROOT / "tests/fuzz/native").iterdir())]
    for path in [ROOT / "setup.py", Path(__file__), *(one for one in sources if one.suffix in (".pyx", ".pxd", ".c"))]:
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()
