"""Whether a mistake of ours in one request, stream or viewer ends the process, so that tests see it (GBGW_STRICT=1).
Otherwise it costs that one, is logged with its traceback and counted as a bug."""

import os


def is_strict() -> bool:
    return os.environ.get("GBGW_STRICT") == "1"
