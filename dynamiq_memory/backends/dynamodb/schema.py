"""Creating the table, and checking that an existing one is of our kind."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError

from dynamiq_memory.backends.dynamodb.errors import code_of
from dynamiq_memory.backends.dynamodb.keys import AT_SESSION, AT_USER, BY_SESSION, BY_USER, PK, SK
from dynamiq_memory.backends.dynamodb.records import EXPIRES
from dynamiq_memory.exceptions import BackendError, ConfigurationError, StoreNotFoundError

# While a table is being created: two minutes.
_WAITING = {"Delay": 1, "MaxAttempts": 120}


def _key_schema(sort_key: str) -> list[dict[str, str]]:
    return [{"AttributeName": PK, "KeyType": "HASH"}, {"AttributeName": sort_key, "KeyType": "RANGE"}]


_TABLE = {
    "AttributeDefinitions": [{"AttributeName": each, "AttributeType": "S"} for each in (PK, SK, AT_SESSION, AT_USER)],
    "KeySchema": _key_schema(SK),
    "LocalSecondaryIndexes": [
        {"IndexName": name, "KeySchema": _key_schema(sort_key), "Projection": {"ProjectionType": "ALL"}}
        for name, sort_key in ((BY_SESSION, AT_SESSION), (BY_USER, AT_USER))
    ],
}
# The keys of a table of the dynamiq package.
_LEGACY_KEYS = [("HASH", "message_id"), ("RANGE", "timestamp")]


def open_table(
    client: Any, table: str, location: str, billing: dict[str, Any], *, create: bool, expiring: bool
) -> None:
    """Make sure that the table exists and is ready, and that time to live is on if messages expire.

    Several processes may open it at the same time.

    Args:
        client: A client of DynamoDB.
        table: The table's name.
        location: Its name in errors.
        billing: The arguments of the table's billing mode.
        create: Whether to create what is missing.
        expiring: Whether messages expire.

    Raises:
        StoreNotFoundError: It is missing, and not to be created.
        ConfigurationError: The table is of another kind.
    """
    description = _description(client, table)
    if description is None:
        if not create:
            raise StoreNotFoundError(
                f"{location} is not there: correct table_name or the region, or open it with create_if_not_exist=True"
            )
        _create(client, table, billing)
    if description is None or description["TableStatus"] not in ("ACTIVE", "UPDATING"):
        client.get_waiter("table_exists").wait(TableName=table, WaiterConfig=_WAITING)
        description = client.describe_table(TableName=table)["Table"]
    _check(description, location)
    if expiring:
        _enable_expiry(client, table, location, enable=create)


def check_legacy_table(client: Any, table: str) -> None:
    """Check that a table was made by the dynamiq package.

    Raises:
        ConfigurationError: It was not.
        BackendError: It does not exist.
    """
    description = _description(client, table)
    if description is None:
        raise BackendError(f"the table {table!r} of the dynamiq package is not there: correct its name or the region")
    keys = _keys(description)
    if keys != _LEGACY_KEYS:
        raise ConfigurationError(
            f"{table!r} is not a table of the dynamiq package: its keys are {keys}, not {_LEGACY_KEYS}"
        )


def _description(client: Any, table: str) -> dict[str, Any] | None:
    try:
        description: dict[str, Any] = client.describe_table(TableName=table)["Table"]
    except ClientError as error:
        if code_of(error) != "ResourceNotFoundException":
            raise
        return None
    return description


def _create(client: Any, table: str, billing: dict[str, Any]) -> None:
    try:
        client.create_table(TableName=table, **_TABLE, **billing)
    except ClientError as error:
        if code_of(error) != "ResourceInUseException":  # another process was first
            raise


def _check(description: dict[str, Any], location: str) -> None:
    if _keys(description) == _LEGACY_KEYS:
        raise ConfigurationError(
            f"{location} was made by the dynamiq package: its keys do not find the messages of a user or session, and "
            "cannot be changed. Open another table_name, and call copy_from_dynamiq with the name of this table"
        )
    types = {each["AttributeType"] for each in description["AttributeDefinitions"]}
    has_indexes = _indexes(_TABLE).items() <= _indexes(description).items()
    if _keys(description) != _keys(_TABLE) or not has_indexes or types != {"S"}:
        raise ConfigurationError(
            f"{location} is of another kind: it was not made by this package, and its keys cannot be changed. Choose "
            "another table_name"
        )


def _keys(description: dict[str, Any]) -> list[tuple[str, str]]:
    return sorted((each["KeyType"], each["AttributeName"]) for each in description["KeySchema"])


def _indexes(description: dict[str, Any]) -> dict[str, Any]:
    indexes = description.get("LocalSecondaryIndexes", ())
    return {each["IndexName"]: (_keys(each), each["Projection"]["ProjectionType"]) for each in indexes}


def _enable_expiry(client: Any, table: str, location: str, *, enable: bool) -> None:
    attribute = _time_to_live(client, table)
    if attribute is None:
        if not enable:
            raise ConfigurationError(
                f"{location} does not let messages expire: enable its time to live with the attribute {EXPIRES!r}, or "
                "open it once with create_if_not_exist=True"
            )
        try:
            client.update_time_to_live(
                TableName=table, TimeToLiveSpecification={"Enabled": True, "AttributeName": EXPIRES}
            )
        except ClientError as error:
            # Another process may have been first; otherwise the request was really refused.
            attribute = _time_to_live(client, table)
            if code_of(error) != "ValidationException" or attribute is None:
                raise
        else:
            return
    if attribute != EXPIRES:
        raise ConfigurationError(
            f"{location} lets items expire by the attribute {attribute!r}, not {EXPIRES!r}: choose another table_name"
        )


def _time_to_live(client: Any, table: str) -> str | None:
    """Return the attribute by which items expire; None if they do not."""
    description = client.describe_time_to_live(TableName=table)["TimeToLiveDescription"]
    return description.get("AttributeName") if description["TimeToLiveStatus"] in ("ENABLED", "ENABLING") else None
