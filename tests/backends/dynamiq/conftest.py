"""Fixtures of the service, for the tests of its client."""

from tests.service.conftest import (
    _no_proxy,
    keys,
    module_keys,
    module_open_service,
    module_service,
    open_service,
    service,
)

__all__ = [
    "_no_proxy",
    "keys",
    "module_keys",
    "module_open_service",
    "module_service",
    "open_service",
    "service",
]
