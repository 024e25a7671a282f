"""gbgw: a GB/T 28181 media gateway.

`import gbgw` loads nothing heavy; `Gateway` and its companions are resolved on first use (PEP 562).
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Config", "Gateway", "GatewayError", "__version__"]

if TYPE_CHECKING:
    from gbgw.base.config import Config
    from gbgw.base.errors import GatewayError
    from gbgw.gateway import Gateway

_LAZY = {
    "Config": "gbgw.base.config",
    "Gateway": "gbgw.gateway",
    "GatewayError": "gbgw.base.errors",
}


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'gbgw' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(module), name)
