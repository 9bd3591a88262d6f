"""Creating the table, and checking that one which is there is of our kind."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError

from dynamiq_memory.backends.dynamodb.errors import code_of
from dynamiq_memory.backends.dynamodb.filters import EXPIRES
from dynamiq_memory.backends.dynamodb.keys import AT_SESSION, AT_USER, BY_SESSION, BY_USER, PK, SK
from dynamiq_memory.exceptions import BackendError, ConfigurationError

# Seconds between looks at a table that is being created, and how many.
_DELAY = 1
_LOOKS = 120


def _schema(sort_key: str) -> list[dict[str, str]]:
    return [{"AttributeName": PK, "KeyType": "HASH"}, {"AttributeName": sort_key, "KeyType": "RANGE"}]


# The keys of a table of the dynamiq package.
_OF_DYNAMIQ = [("HASH", "message_id"), ("RANGE", "timestamp")]
_INDEXES = {BY_SESSION: AT_SESSION, BY_USER: AT_USER}


def open_table(client: Any, table: str, where: str, *, create: bool, billing: dict[str, Any], expiring: bool) -> None:
    """Make sure that the table is there and ready, and that time to live is on if messages expire.

    Several processes may do so at once.

    Args:
        client: A client of DynamoDB.
        table: The table's name.
        where: What to call it in an error.
        create: Whether to create what is missing.
        billing: The arguments of the table's billing mode.
        expiring: Whether messages expire.

    Raises:
        BackendError: It is missing, and not to be created.
        ConfigurationError: The table is of another kind.
    """
    described = _described(client, table)
    if described is None:
        if not create:
            raise BackendError(
                f"{where} is not there: correct table_name or the region, or open it with create_if_not_exist=True"
            )
        described = _create(client, table, billing)
    _check(described, where)
    if described["TableStatus"] not in ("ACTIVE", "UPDATING"):
        client.get_waiter("table_exists").wait(TableName=table, WaiterConfig={"Delay": _DELAY, "MaxAttempts": _LOOKS})
    if expiring:
        _expire(client, table, where, enable=create)


def check_is_of_dynamiq(client: Any, table: str) -> None:
    """Check that a table is one of the dynamiq package's.

    Raises:
        ConfigurationError: It is of another kind.
        BackendError: It is not there.
    """
    described = _described(client, table)
    if described is None:
        raise BackendError(f"the table {table!r} of the dynamiq package is not there: correct its name or the region")
    keys = _sorted(described["KeySchema"])
    if keys != _OF_DYNAMIQ:
        raise ConfigurationError(
            f"{table!r} is no table of the dynamiq package: its keys are {keys}, not {_OF_DYNAMIQ}"
        )


def _described(client: Any, table: str) -> dict[str, Any] | None:
    try:
        described: dict[str, Any] = client.describe_table(TableName=table)["Table"]
    except ClientError as error:
        if code_of(error) != "ResourceNotFoundException":
            raise
        return None
    return described


def _create(client: Any, table: str, billing: dict[str, Any]) -> dict[str, Any]:
    try:
        created: dict[str, Any] | None = client.create_table(
            TableName=table,
            AttributeDefinitions=[
                {"AttributeName": name, "AttributeType": "S"} for name in (PK, SK, *_INDEXES.values())
            ],
            KeySchema=_schema(SK),
            LocalSecondaryIndexes=[
                {"IndexName": name, "KeySchema": _schema(sort_key), "Projection": {"ProjectionType": "ALL"}}
                for name, sort_key in _INDEXES.items()
            ],
            **billing,
        )["TableDescription"]
    except ClientError as error:
        if code_of(error) != "ResourceInUseException":  # another process was first
            raise
        created = None
    client.get_waiter("table_exists").wait(TableName=table, WaiterConfig={"Delay": _DELAY, "MaxAttempts": _LOOKS})
    return {**created, "TableStatus": "ACTIVE"} if created else client.describe_table(TableName=table)["Table"]


def _check(described: dict[str, Any], where: str) -> None:
    types = {each["AttributeName"]: each["AttributeType"] for each in described["AttributeDefinitions"]}
    indexes = {
        each["IndexName"]: (_sorted(each["KeySchema"]), each["Projection"]["ProjectionType"])
        for each in described.get("LocalSecondaryIndexes", ())
    }
    wanted = {name: (_sorted(_schema(sort_key)), "ALL") for name, sort_key in _INDEXES.items()}
    if _sorted(described["KeySchema"]) == _OF_DYNAMIQ:
        raise ConfigurationError(
            f"{where} is one of the dynamiq package, whose keys find no user's or session's messages, and cannot be "
            "changed: open another table_name, and call copy_from_dynamiq with this table's name on it"
        )
    ours = _sorted(described["KeySchema"]) == _sorted(_schema(SK))
    if not ours or any(indexes.get(name) != each for name, each in wanted.items()) or set(types.values()) != {"S"}:
        raise ConfigurationError(
            f"{where} is of another kind: it was not made by this package, and its keys cannot be changed. Choose "
            "another table_name"
        )


def _sorted(schema: list[dict[str, str]]) -> list[tuple[str, str]]:
    return sorted((each["KeyType"], each["AttributeName"]) for each in schema)


def _expire(client: Any, table: str, where: str, *, enable: bool) -> None:
    status, attribute = _time_to_live(client, table)
    if status not in ("ENABLED", "ENABLING"):
        if not enable:
            raise ConfigurationError(
                f"{where} does not let messages expire: enable its time to live with the attribute {EXPIRES!r}, or "
                "open it once with create_if_not_exist=True"
            )
        try:
            client.update_time_to_live(
                TableName=table, TimeToLiveSpecification={"Enabled": True, "AttributeName": EXPIRES}
            )
        except ClientError as error:
            # Another process may have been first; else it was really refused.
            status, attribute = _time_to_live(client, table)
            if code_of(error) != "ValidationException" or status not in ("ENABLED", "ENABLING"):
                raise
        else:
            return
    if attribute != EXPIRES:
        raise ConfigurationError(
            f"{where} lets items expire by the attribute {attribute!r}, not {EXPIRES!r}: choose another table_name"
        )


def _time_to_live(client: Any, table: str) -> tuple[str, str | None]:
    found = client.describe_time_to_live(TableName=table)["TimeToLiveDescription"]
    return found["TimeToLiveStatus"], found.get("AttributeName")
