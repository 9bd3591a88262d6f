"""What the errors of Weaviate and its client mean."""

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
    # The client raises its own errors within the handlers of others, whose status it does not keep.
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def status_of(error: BaseException) -> grpc.StatusCode | None:
    """The status of gRPC behind an error, if there is one."""
    for each in _causes(error):
        if isinstance(each, grpc.RpcError) and hasattr(each, "code"):
            status: grpc.StatusCode = each.code()
            return status
    return None


def http_status_of(error: BaseException) -> int | None:
    """The status of HTTP behind an error, if there is one."""
    for each in _causes(error):
        if isinstance(each, client.UnexpectedStatusCodeError):
            return each.status_code
    return None


def is_too_large(error: BaseException) -> bool:
    """Whether what was to be sent exceeds the limit of gRPC."""
    return status_of(error) is grpc.StatusCode.RESOURCE_EXHAUSTED


def said_by(error: Exception) -> str:
    """What the server said, in one line."""
    if isinstance(error, grpc.RpcError) and hasattr(error, "details"):
        return str(error.details())
    text = " ".join(str(getattr(error, "message", None) or error).split())
    return f"{text[:500]} …" if len(text) > 500 else text


def lengths_in(text: str) -> tuple[int, int] | None:
    """The two lengths of vectors that a refusal names."""
    found = _LENGTHS.search(text)
    return None if found is None else (int(found[1]), int(found[2]))


def translated(error: Exception, where: str) -> DynamiqMemoryError:
    """Turn an error of the client's into one of ours.

    Args:
        error: The client's.
        where: The collection and its server, without secrets.
    """
    said, status, http_status = said_by(error), status_of(error), http_status_of(error)
    if isinstance(error, _REFUSED) or status in _CREDENTIALS or http_status in {401, 403}:
        return BackendAuthenticationError(
            f"{where} refuses the key or lacks a permission ({said}): set WEAVIATE_API_KEY, or give Weaviate(api_key=…)"
        )
    if status is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return BackendError(
            f"{where}: more than the server sends or takes at once ({said}): raise GRPC_MAX_MESSAGE_SIZE"
        )
    if status in _UNAVAILABLE or any(isinstance(each, _UNREACHABLE) for each in _causes(error)):
        return BackendConnectionError(
            f"{where} cannot be reached ({said}): check the host, the ports of HTTP and gRPC, and the network"
        )
    if lengths_in(said) is not None:
        return wrong_length(said, where)
    if "tenant not found" in said or "tenant not active" in said:
        return BackendError(f"{where}: the tenant is not there, or not active ({said})")
    if "could not find class" in said:
        return BackendError(f"{where} is gone ({said}): open it again with create_if_not_exist=True")
    return BackendError(f"{where}: {said}")


def wrong_length(said: str, where: str) -> ConfigurationError:
    """The error for a vector of another length than those that are stored."""
    return ConfigurationError(
        f"{where} has vectors of another length than the embedder gives ({said}): use the embedder that the messages "
        "were stored with, or another collection_name"
    )
