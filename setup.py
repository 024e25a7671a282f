"""The Cython cores, their compiler flags, and the switches of instrumented builds.

GBGW_DEBUG=1 builds them with line tracing, annotation pages, AddressSanitizer and UndefinedBehaviorSanitizer.
GBGW_SANITIZE=address builds them, and the harness of the fuzz targets, with both sanitizers alone; GBGW_SANITIZE=fuzzer
adds the coverage counters of libFuzzer (clang only). tests/fuzz/build.py asks for these two, into folders of their own.
"""

import os
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("GBGW_DEBUG") == "1"
SANITIZE = os.environ.get("GBGW_SANITIZE", "")
if SANITIZE not in ("", "address", "fuzzer"):
    raise SystemExit(f"GBGW_SANITIZE is address or fuzzer, not {SANITIZE}")

# A finding ends the program: a report that scrolls by is no gate. Many Pythons build with -fwrapv, which would define
# every signed overflow. clang calls NULL + 0 an overflow of a pointer, which Cython's own code does for objects made
# without arguments.
SANITIZERS = [
    *("-fsanitize=address,undefined", "-fno-sanitize=pointer-overflow", "-fno-sanitize-recover=undefined"),
    *("-fno-wrapv", "-fno-omit-frame-pointer", "-g1"),
]
# What -fsanitize=fuzzer-no-link means, without its calls at each comparison: they halve the speed, and the seeds and
# the dictionaries have the magic numbers already.
COVERAGE = ["-fsanitize-coverage=inline-8bit-counters,pc-table"]

compile_args = ["-O2", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-unused-function", "-Wno-cast-function-type"]
link_args: list[str] = []
macros: list[tuple[str, str | None]] = []
directives: dict[str, bool] = {}
if DEBUG or SANITIZE:
    # For the ordinary suite nothing is optimised away, and it compiles in a third of the time; fuzzing wants the speed.
    level = {"fuzzer": "-O2", "address": "-O0"}.get(SANITIZE, "-O1")
    compile_args = [level, *compile_args[1:], *SANITIZERS]
    link_args = SANITIZERS
if DEBUG:
    macros = [("CYTHON_TRACE", "1")]
    directives = {"linetrace": True}

extensions = [
    Extension(
        f"gbgw.{name}",
        [f"gbgw/{name}.pyx"],
        extra_compile_args=compile_args + (COVERAGE if SANITIZE == "fuzzer" else []),
        extra_link_args=link_args,
        define_macros=macros,
        depends=sorted(glob("gbgw/*.pxd")),
    )
    for name in ("_rtp", "_ps", "_flv", "_fanout", "_timeline", "_receiver", "_webrtc", "_load")
]
if SANITIZE:
    # Without coverage: the edges that are counted are the cores'.
    extensions.append(
        Extension(
            "native_targets",
            ["tests/fuzz/native/native_targets.pyx"],
            extra_compile_args=compile_args,
            extra_link_args=link_args,
            depends=sorted(glob("gbgw/*.pxd")),
        )
    )

folder = "build/cython" + ("-debug" if DEBUG else f"-{SANITIZE}" if SANITIZE else "")
setup(ext_modules=cythonize(extensions, annotate=DEBUG, compiler_directives=directives, build_dir=folder))
