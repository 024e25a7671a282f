"""The Cython cores, their compiler flags, and the debug switch.

GBGW_DEBUG=1 builds them with line tracing, annotation pages, AddressSanitizer and UndefinedBehaviorSanitizer.
"""

import os
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("GBGW_DEBUG") == "1"

compile_args = ["-O2", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-unused-function", "-Wno-cast-function-type"]
link_args: list[str] = []
macros: list[tuple[str, str | None]] = []
directives: dict[str, bool] = {}
if DEBUG:
    sanitizers = ["-fsanitize=address,undefined", "-fno-omit-frame-pointer", "-g"]
    compile_args = ["-O1", *compile_args[1:], *sanitizers]
    link_args = sanitizers
    macros = [("CYTHON_TRACE", "1")]
    directives = {"linetrace": True}

extensions = [
    Extension(
        f"gbgw.{name}",
        [f"gbgw/{name}.pyx"],
        extra_compile_args=compile_args,
        extra_link_args=link_args,
        define_macros=macros,
        depends=sorted(glob("gbgw/*.pxd")),
    )
    for name in ("_rtp", "_ps", "_flv", "_receiver", "_webrtc", "_load")
]

setup(ext_modules=cythonize(extensions, annotate=DEBUG, compiler_directives=directives, build_dir="build/cython"))
