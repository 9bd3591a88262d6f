"""What the errors of DynamoDB and its SDK mean."""

from __future__ import annotations

import re
from typing import Any

from botocore import exceptions as sdk
from botocore.exceptions import ClientError

from dynamiq_memory.exceptions import (
    BackendAuthenticationError,
    BackendConnectionError,
    BackendError,
    ConfigurationError,
    DynamiqMemoryError,
    MessageTooLargeError,
)

_CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (with temporary ones AWS_SESSION_TOKEN too), or a profile, or run "
    "it with a role"
)
_KINDS: dict[str, tuple[str, ...]] = {
    "refused": (
        "UnrecognizedClientException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "IncompleteSignature",
        "IncompleteSignatureException",
        "AuthFailure",
        "OptInRequired",
    ),
    "expired": ("ExpiredToken", "ExpiredTokenException", "RequestExpired"),
    "denied": ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation"),
    "throttled": (
        "LimitExceededException",
        "ProvisionedThroughputExceeded",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingError",
        "ThrottlingException",
        "TooManyRequestsException",
    ),
    "busy": ("InternalServerError", "InternalFailure", "ServiceUnavailable", "ServiceUnavailableException"),
    "missing": ("ResourceNotFoundException",),
    "full": ("ItemCollectionSizeLimitExceeded", "ItemCollectionSizeLimitExceededException"),
    "contended": ("TransactionConflict", "TransactionConflictException", "TransactionInProgressException"),
}
_KIND_OF = {code: kind for kind, codes in _KINDS.items() for code in codes}
_THROTTLED = (
    'is throttled, also after all retries ({said}): raise its capacity, use billing_mode="PAY_PER_REQUEST", or spread '
    "the load over more users"
)
_MEANINGS: dict[str, tuple[type[BackendError], str]] = {
    "refused": (BackendAuthenticationError, f"refuses the credentials ({{said}}): {_CREDENTIALS}"),
    "expired": (BackendAuthenticationError, "takes the credentials no longer, they have expired ({said}): renew them"),
    "denied": (
        BackendAuthenticationError,
        "denies a permission ({said}): allow this action on the table and its indexes in these credentials' IAM policy",
    ),
    "throttled": (BackendError, _THROTTLED),
    "busy": (BackendConnectionError, "is not available ({said}): try again"),
    "missing": (
        BackendError,
        "is not there ({said}): correct table_name or the region, or open it with create_if_not_exist=True",
    ),
    "full": (BackendError, "has 10 GB of one user, all that a partition takes ({said}): delete old messages"),
    "contended": (BackendError, "has others who keep changing the same messages ({said}): try again"),
}
_UNREACHABLE = (
    sdk.ConnectionError,
    sdk.HTTPClientError,
    sdk.InvalidEndpointDiscoveryConfigurationError,
    sdk.UnknownEndpointError,
)
_WITHOUT_CREDENTIALS = (
    sdk.NoCredentialsError,
    sdk.CredentialRetrievalError,
    sdk.TokenRetrievalError,
    sdk.SSOError,
)
# An error of the service may show the id of the access key, which is no secret but nobody's business.
_KEY_ID = re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b")
# What of a URL may be secret: user and password, and all behind the path.
_USER = re.compile(r"(?<=://)[^/?#]*@")
_QUERY = re.compile(r"(://[^\s?#\"']*)[?#][^\s\"']*")


def code_of(error: BaseException) -> str:
    """The service's name for an error; empty for one of another kind."""
    if not isinstance(error, ClientError):
        return ""
    return str(error.response.get("Error", {}).get("Code", ""))


def reasons_of(error: ClientError) -> list[dict[str, Any]]:
    """Why a transaction was cancelled, for each of its operations."""
    reasons: list[dict[str, Any]] = error.response.get("CancellationReasons", [])
    return reasons


def without_secrets(text: str) -> str:
    """A text without what in its URLs may be secret."""
    return _QUERY.sub(r"\1", _USER.sub("", text))


def translated(error: Exception, where: str) -> DynamiqMemoryError:
    """Turn an error of the SDK's into one of ours.

    Args:
        error: The SDK's.
        where: The table, without secrets.
    """
    if not isinstance(error, ClientError):
        # Also in the traceback, where the SDK's error is shown as the cause.
        error.args = tuple(without_secrets(each) if isinstance(each, str) else each for each in error.args)
        return _of_the_sdk(error, where)
    code = code_of(error)
    said = _KEY_ID.sub("…", str(error.response.get("Error", {}).get("Message") or error.response.get("message") or ""))
    said = f"{code}: {said}" if said else code
    # Of a transaction that was cancelled, the first reason that means something to us.
    code = next((reason["Code"] for reason in reasons_of(error) if reason.get("Code") in _KIND_OF), code)
    if code in _KIND_OF:
        error_type, meaning = _MEANINGS[_KIND_OF[code]]
        return error_type(f"{where} {meaning.format(said=said)}")
    if code == "ValidationException" and "size" in said and "exceeded" in said:
        return MessageTooLargeError(f"{where}: a message is too large ({said})")
    return BackendError(f"{where}: {said}")


def throttled(where: str) -> BackendError:
    """The error for what the service keeps leaving undone."""
    return BackendError(f"{where} {_THROTTLED.format(said='parts of a batch were never taken')}")


def _of_the_sdk(error: Exception, where: str) -> DynamiqMemoryError:
    if isinstance(error, sdk.NoRegionError):
        return ConfigurationError("no AWS region is known: set AWS_DEFAULT_REGION, or give AWS(region=…)")
    if isinstance(error, sdk.ProfileNotFound):
        return ConfigurationError(f"{error}: correct AWS_DEFAULT_PROFILE or AWS(profile=…), or create the profile")
    if isinstance(error, sdk.PartialCredentialsError):
        return ConfigurationError(f"the AWS credentials are incomplete ({error}): {_CREDENTIALS}")
    if isinstance(error, sdk.InvalidRegionError):
        return ConfigurationError(f"{error}: write a region such as eu-west-1")
    if isinstance(error, _WITHOUT_CREDENTIALS):
        return BackendAuthenticationError(f"{where}: there are no AWS credentials ({error}): {_CREDENTIALS}")
    if isinstance(error, _UNREACHABLE):
        return BackendConnectionError(
            f"{where} cannot be reached ({error}): check the region, endpoint_url and the network"
        )
    if isinstance(error, sdk.WaiterError):
        return BackendError(f"{where} was created but is not ready ({error}): try again in a while")
    return BackendError(f"{where}: {error}")
