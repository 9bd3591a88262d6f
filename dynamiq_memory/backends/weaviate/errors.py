"""The meaning of errors of Weaviate and its client."""

from __future__ import annotations

import re
from collections.abc import Iterator

import grpc
import httpx
from weaviate import exceptions as client

from dynamiq_memory.exceptions import (
    BackendAuthenticationError,
    BackendConnectionError,
    BackendError,
    ConfigurationError,
    DynamiqMemoryError,
)

DRIVER_ERRORS: tuple[type[Exception], ...] = (client.WeaviateBaseError, grpc.RpcError, httpx.HTTPError)

_UNREACHABLE = (
    client.WeaviateConnectionError,
    client.WeaviateGRPCUnavailableError,
    client.WeaviateRetryError,
    client.WeaviateTimeoutError,
    httpx.TransportError,
)
_REFUSED = (client.AuthenticationFailedError, client.InsufficientPermissionsError)
_UNAVAILABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_CREDENTIALS = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
_LENGTHS = re.compile(r"(?:vector with length|lengths don't match:?) (\d+)\D+(\d+)")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    # The client raises its own errors while it handles others, and does not keep their status.
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def grpc_status(error: BaseException) -> grpc.StatusCode | None:
    """The status of gRPC that caused an error, if there is one."""
    causes = _causes(error)
    return next((each.code() for each in causes if isinstance(each, grpc.RpcError) and hasattr(each, "code")), None)


def _http_status(error: BaseException) -> int | None:
    causes = _causes(error)
    return next((each.status_code for each in causes if isinstance(each, client.UnexpectedStatusCodeError)), None)


def is_too_large(error: BaseException) -> bool:
    """Whether a message exceeds the size limit of gRPC."""
    return grpc_status(error) is grpc.StatusCode.RESOURCE_EXHAUSTED


def _text_of(error: Exception) -> str:
    if isinstance(error, grpc.RpcError) and hasattr(error, "details"):
        return str(error.details())
    text = " ".join(str(getattr(error, "message", None) or error).split())
    return f"{text[:500]} …" if len(text) > 500 else text


def translated(error: Exception, location: str) -> DynamiqMemoryError:
    """Translate an error of the client.

    Args:
        error: The client's error.
        location: The collection and its server, without secrets.
    """
    text, status, http_status = _text_of(error), grpc_status(error), _http_status(error)
    if isinstance(error, _REFUSED) or status in _CREDENTIALS or http_status in {401, 403}:
        return BackendAuthenticationError(
            f"{location} refuses the key or lacks a permission ({text}): set WEAVIATE_API_KEY, or give "
            "Weaviate(api_key=…)"
        )
    if status is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return BackendError(
            f"{location}: more than the server sends or takes at once ({text}): raise GRPC_MAX_MESSAGE_SIZE"
        )
    if status in _UNAVAILABLE or any(isinstance(each, _UNREACHABLE) for each in _causes(error)):
        return BackendConnectionError(
            f"{location} cannot be reached ({text}): check the host, the ports of HTTP and gRPC, and the network"
        )
    return refusal(text, location)


def refusal(text: str, location: str) -> DynamiqMemoryError:
    """Make the error for a request that the server refused.

    Args:
        text: The text of the server.
        location: The collection and its server, without secrets.
    """
    if _LENGTHS.search(text):
        return ConfigurationError(
            f"{location} has vectors of another length than the embedder's ({text}): use the embedder that the "
            "messages were stored with, or another collection_name"
        )
    if "maximum results exceeded" in text:
        return ConfigurationError(
            f"{location}: the server returns fewer results at once than max_results ({text}): pass its "
            "QUERY_MAXIMUM_RESULTS as max_results"
        )
    if "tenant not found" in text or "tenant not active" in text:
        return BackendError(f"{location}: the tenant does not exist, or is not active ({text})")
    if "could not find class" in text:
        return BackendError(f"{location} is gone ({text}): open it again with create_if_not_exist=True")
    return BackendError(f"{location}: {text}")
