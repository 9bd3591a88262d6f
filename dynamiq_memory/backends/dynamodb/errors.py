"""Explaining errors of DynamoDB and its SDK."""

from __future__ import annotations

import re
from typing import Any

from botocore import exceptions as sdk
from botocore.exceptions import BotoCoreError, ClientError

from dynamiq_memory.exceptions import (
    BackendAuthenticationError,
    BackendConnectionError,
    BackendError,
    ConfigurationError,
    DynamiqMemoryError,
    MessageTooLargeError,
)

SDK_ERRORS = (BotoCoreError, ClientError)

_CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN for temporary ones), or a profile, or use "
    "a role"
)
_REFUSED = BackendAuthenticationError, f"refuses the credentials ({{reason}}): {_CREDENTIALS}"
_EXPIRED = BackendAuthenticationError, "refuses the credentials because they have expired ({reason}): renew them"
_DENIED = (
    BackendAuthenticationError,
    "denies a permission ({reason}): allow this action on the table and its indexes in the IAM policy",
)
_THROTTLED_TEXT = (
    'is throttled, also after all retries ({reason}): raise its capacity, use billing_mode="PAY_PER_REQUEST", or '
    "spread the load over more users"
)
_THROTTLED = BackendError, _THROTTLED_TEXT
_BUSY = BackendConnectionError, "is not available ({reason}): try again"
_MISSING = (
    BackendError,
    "is not there ({reason}): correct table_name or the region, or open it with create_if_not_exist=True",
)
_FULL = BackendError, "has 10 GB of one user, the maximum of a partition ({reason}): delete old messages"
_CONTENDED = BackendError, "has other writers that keep changing the same messages ({reason}): try again"
_CODES = {
    _REFUSED: """
        AuthFailure IncompleteSignature IncompleteSignatureException InvalidClientTokenId InvalidSignatureException
        MissingAuthenticationToken MissingAuthenticationTokenException OptInRequired SignatureDoesNotMatch
        UnrecognizedClientException
    """,
    _EXPIRED: "ExpiredToken ExpiredTokenException RequestExpired",
    _DENIED: "AccessDenied AccessDeniedException UnauthorizedOperation",
    _THROTTLED: """
        LimitExceededException ProvisionedThroughputExceeded ProvisionedThroughputExceededException
        RequestLimitExceeded Throttling ThrottlingError ThrottlingException TooManyRequestsException
    """,
    _BUSY: "InternalFailure InternalServerError ServiceUnavailable ServiceUnavailableException",
    _MISSING: "ResourceNotFoundException",
    _FULL: "ItemCollectionSizeLimitExceeded ItemCollectionSizeLimitExceededException",
    _CONTENDED: "TransactionConflict TransactionConflictException TransactionInProgressException",
}
_MEANINGS = {code: meaning for meaning, codes in _CODES.items() for code in codes.split()}
# Codes of failures that pass: of a single write, or of all operations of a cancelled transaction.
_CONFLICTS = {"TransactionConflict", "TransactionConflictException"}
_PASSING = _CONFLICTS | {"None", "ThrottlingError", "ProvisionedThroughputExceeded"}
_UNREACHABLE = (
    sdk.ConnectionError,
    sdk.HTTPClientError,
    sdk.InvalidEndpointDiscoveryConfigurationError,
    sdk.UnknownEndpointError,
)
_WITHOUT_CREDENTIALS = sdk.NoCredentialsError, sdk.CredentialRetrievalError, sdk.TokenRetrievalError, sdk.SSOError
# An error of the service may show the id of the access key, which is not a secret but should not spread.
_KEY_ID = re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b")
# The parts of a URL that may be secret: user and password, and everything after the path.
_USER = re.compile(r"(?<=://)[^/?#]*@")
_QUERY = re.compile(r"(://[^\s?#\"']*)[?#][^\s\"']*")


def code_of(error: ClientError) -> str:
    """Return the service's code for an error."""
    return str(error.response.get("Error", {}).get("Code", ""))


def is_conflict(error: ClientError) -> bool:
    """Whether a write failed only because of other writes of the same items at that moment, or of throttling."""
    codes = {reason.get("Code") or "None" for reason in _reasons(error)} or {code_of(error)}
    return codes <= _PASSING


def failed_conditions(error: ClientError) -> dict[int, dict[str, Any] | None]:
    """Return the stored items, if known, by the numbers of a write's operations with failed conditions."""
    if code_of(error) == "ConditionalCheckFailedException":
        return {0: error.response.get("Item")}
    return {
        number: reason.get("Item") or None
        for number, reason in enumerate(_reasons(error))
        if reason.get("Code") == "ConditionalCheckFailed"
    }


def _reasons(error: ClientError) -> list[dict[str, Any]]:
    """Return the reasons for cancelling a transaction, one for each of its operations."""
    reasons: list[dict[str, Any]] = error.response.get("CancellationReasons", [])
    return reasons


def without_secrets(text: str) -> str:
    """Remove the parts of the URLs in a text that may be secret."""
    return _QUERY.sub(r"\1", _USER.sub("", text))


def translated(error: Exception, location: str) -> DynamiqMemoryError:
    """Turn an error of the SDK into our error; our errors stay as they are.

    Args:
        error: The error.
        location: The table, without secrets.
    """
    if isinstance(error, DynamiqMemoryError):
        return error
    if not isinstance(error, ClientError):
        # Also in the traceback, which shows the SDK's error as the cause.
        error.args = tuple(without_secrets(each) if isinstance(each, str) else each for each in error.args)
        return _of_the_sdk(error, location)
    code = code_of(error)
    text = str(error.response.get("Error", {}).get("Message") or error.response.get("message") or "")
    reason = f"{code}: {_KEY_ID.sub('…', text)}" if text else code
    # For a cancelled transaction, the first reason that is known here.
    code = next((each["Code"] for each in _reasons(error) if each.get("Code") in _MEANINGS), code)
    if code in _MEANINGS:
        kind, meaning = _MEANINGS[code]
        return kind(f"{location} {meaning.format(reason=reason)}")
    if code == "ValidationException" and "size" in reason and "exceeded" in reason:
        return MessageTooLargeError(f"{location}: a message is too large ({reason})")
    return BackendError(f"{location}: {reason}")


def throttled(location: str) -> BackendError:
    """Return the error for a batch that the service keeps leaving unprocessed."""
    return BackendError(f"{location} {_THROTTLED_TEXT.format(reason='parts of a batch were never processed')}")


def _of_the_sdk(error: Exception, location: str) -> DynamiqMemoryError:
    if isinstance(error, sdk.NoRegionError):
        return ConfigurationError("no AWS region is set: set AWS_DEFAULT_REGION, or pass AWS(region=…)")
    if isinstance(error, sdk.ProfileNotFound):
        return ConfigurationError(f"{error}: correct AWS_DEFAULT_PROFILE or AWS(profile=…), or create the profile")
    if isinstance(error, sdk.PartialCredentialsError):
        return ConfigurationError(f"the AWS credentials are incomplete ({error}): {_CREDENTIALS}")
    if isinstance(error, sdk.InvalidRegionError):
        return ConfigurationError(f"{error}: use a region such as eu-west-1")
    if isinstance(error, _WITHOUT_CREDENTIALS):
        return BackendAuthenticationError(f"{location}: there are no AWS credentials ({error}): {_CREDENTIALS}")
    if isinstance(error, _UNREACHABLE):
        return BackendConnectionError(
            f"{location} cannot be reached ({error}): check the region, endpoint_url and the network"
        )
    if isinstance(error, sdk.WaiterError):
        return BackendError(f"{location} was created but is not ready ({error}): try again in a while")
    return BackendError(f"{location}: {error}")
