"""Opening, configuration, errors, processes."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from dynamiq_memory import connections
from dynamiq_memory.backends import DynamoDB, create_backend
from dynamiq_memory.connections import AWS
from dynamiq_memory.exceptions import (
    BackendAuthenticationError,
    BackendConnectionError,
    BackendError,
    ConfigurationError,
    MissingDependencyError,
)
from dynamiq_memory.testing import contents, say
from dynamiq_memory.testing.concurrency import _run_in_fork
from tests.backends.dynamodb.conftest import NewStore
from tests.fakes.dynamodb.limits import Watched
from tests.fakes.dynamodb.server import ENDPOINT, Handler

QUICK: dict[str, Any] = {"max_attempts": 1, "connect_timeout": 1.0}
only_moto = pytest.mark.skipif(bool(os.environ.get(ENDPOINT)), reason="the test uses names that only moto takes")


def test_the_environment_is_enough(
    credentials: None, endpoint: str, table_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENDPOINT, endpoint)
    with DynamoDB(table_name=table_name) as store:
        store.add(say("hello"))
        url = store.to_url()
    assert url is not None
    with create_backend(url) as again:
        assert isinstance(again, DynamoDB)
        assert contents(again.get_all()) == ["hello"]
        assert again.to_url() == url
    with create_backend(f"dynamodb://{table_name}?ttl=3600&consistent_reads=false") as third:
        assert isinstance(third, DynamoDB)
        assert (third.ttl, third.consistent_reads) == (3600, False)
        assert contents(third.get_all()) == ["hello"]


@pytest.mark.parametrize(
    "url",
    [
        "dynamodb://",
        "dynamodb://key:secret@table",
        "dynamodb://table/path",
        "dynamodb://table?secret_access_key=x",
        "dynamodb://table?ttl=soon",
        "dynamodb://table?create_if_not_exist=maybe",
        "dynamodb://a?region=eu-west-1",
    ],
)
def test_wrong_urls_are_refused(credentials: None, url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        create_backend(url)
    assert "secret@" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"table_name": "no"}, "table_name"),
        ({"table_name": "a b c"}, "table_name"),
        ({"billing_mode": "FREE"}, "billing_mode"),
        ({"ttl": 0}, "ttl"),
        ({"ttl": "1"}, "ttl"),
        ({"ttl": float("nan")}, "ttl"),
        ({"ttl": dt.timedelta(0)}, "ttl"),
        ({"max_attempts": 0}, "max_attempts"),
        ({"read_timeout": 0}, "read_timeout"),
        ({"most_ranked": True}, "most_ranked"),
        ({"connection": "eu-west-1"}, "connection"),
        ({"connection": object()}, "connection"),
    ],
)
def test_wrong_arguments_are_refused(credentials: None, options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        DynamoDB(**options)


def test_a_clients_service_must_be_dynamodb(watched: Watched) -> None:
    client = watched.session.client("sts")
    with pytest.raises(ConfigurationError, match="sts"):
        DynamoDB(client)
    client.close()


def test_no_region(credentials: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.delenv("AWS_REGION", raising=False)
    with pytest.raises(ConfigurationError, match="region"):
        DynamoDB(AWS())


def test_unknown_profile_half_a_pair_and_no_credentials(
    credentials: None, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match="nobody"):
        DynamoDB(AWS(profile="nobody"), endpoint_url=endpoint)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(ConfigurationError, match="secret_access_key"):
        DynamoDB(AWS(), endpoint_url=endpoint)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(BackendAuthenticationError, match="AWS_ACCESS_KEY_ID"):
        DynamoDB(AWS(), endpoint_url=endpoint)


def test_an_endpoint_that_is_not_there(credentials: None) -> None:
    for url in ("http://127.0.0.1:1", "http://no-such-host.invalid"):
        with pytest.raises(BackendConnectionError, match=r"cannot be reached.*endpoint_url") as caught:
            DynamoDB(AWS(), endpoint_url=url, **QUICK)
        assert caught.value.__cause__ is not None
        assert "very-secret" not in str(caught.value)


def test_a_missing_table(new_store: NewStore, table_name: str) -> None:
    with pytest.raises(BackendError, match=f"{table_name}.*create_if_not_exist"):
        new_store(create_if_not_exist=False)
    store = new_store()
    assert new_store(create_if_not_exist=False).is_empty()
    store._client.get().delete_table(TableName=table_name)
    with pytest.raises(BackendError, match="not there"):
        store.add(say("x"))


def test_a_table_of_another_kind(new_store: NewStore, watched: Watched, endpoint: str, table_name: str) -> None:
    client = watched.session.client("dynamodb", endpoint_url=endpoint)
    client.create_table(
        TableName=table_name,
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    client.get_waiter("table_exists").wait(TableName=table_name, WaiterConfig={"Delay": 1})
    client.close()
    with pytest.raises(ConfigurationError, match="another kind"):
        new_store()


def test_time_to_live_must_be_on_our_attribute(new_store: NewStore) -> None:
    store = new_store()
    with pytest.raises(ConfigurationError, match="time to live"):
        new_store(ttl=60, create_if_not_exist=False)
    setting = {"Enabled": True, "AttributeName": "other"}
    store._client.get().update_time_to_live(TableName=store.table_name, TimeToLiveSpecification=setting)
    with pytest.raises(ConfigurationError, match="other"):
        new_store(ttl=60)


def test_provisioned_capacity(new_store: NewStore) -> None:
    store = new_store(billing_mode="PROVISIONED", read_capacity=7, write_capacity=3)
    described = store._client.get().describe_table(TableName=store.table_name)["Table"]["ProvisionedThroughput"]
    assert (described["ReadCapacityUnits"], described["WriteCapacityUnits"]) == (7, 3)


@only_moto
@pytest.mark.parametrize(
    ("code", "kind", "named"),
    [
        ("UnrecognizedClientException", BackendAuthenticationError, "AWS_SECRET_ACCESS_KEY"),
        ("InvalidSignatureException", BackendAuthenticationError, "AWS_SECRET_ACCESS_KEY"),
        ("ExpiredTokenException", BackendAuthenticationError, "renew"),
        ("AccessDeniedException", BackendAuthenticationError, "IAM"),
        ("ProvisionedThroughputExceededException", BackendError, "PAY_PER_REQUEST"),
        ("InternalServerError", BackendConnectionError, "try again"),
        ("ItemCollectionSizeLimitExceededException", BackendError, "10 GB"),
        ("SomethingNew", BackendError, "SomethingNew"),
    ],
)
def test_errors_of_the_service(
    new_store: NewStore, monkeypatch: pytest.MonkeyPatch, code: str, kind: type[BackendError], named: str
) -> None:
    store = new_store(max_attempts=1)
    monkeypatch.setattr(Handler, "fault", staticmethod(lambda operation: code if operation == "Query" else None))
    with pytest.raises(kind, match=named) as caught:
        store.get_all(filters={"user_id": "u"})
    assert type(caught.value) is kind
    assert isinstance(caught.value.__cause__, ClientError)
    assert "AKIA" not in str(caught.value)
    monkeypatch.setattr(Handler, "fault", staticmethod(lambda _: code))
    with pytest.raises(kind, match=named):
        new_store(max_attempts=1)


@only_moto
def test_throttling_is_tried_again_and_then_an_error(new_store: NewStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store = new_store(max_attempts=2)
    store.add(say("registers the user"))
    waits: list[float] = []
    asked: list[str] = []
    throttled = 1
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=waits.append))

    def fault(operation: str) -> str | None:
        asked.append(operation)
        return "ThrottlingException" if len(asked) <= throttled else None

    monkeypatch.setattr(Handler, "fault", staticmethod(fault))
    store.add(say("after all"))
    assert asked == ["PutItem"] * 2
    assert len(waits) == 1
    asked.clear()
    throttled = 10
    with pytest.raises(BackendError, match="throttled, also after all retries"):
        store.add(say("never"))
    assert asked == ["PutItem"] * 2


@pytest.mark.parametrize(
    ("reason", "named"), [("ThrottlingError", "throttled"), ("TransactionConflict", "same messages")]
)
def test_reasons_of_a_cancelled_transaction(
    store: DynamoDB, monkeypatch: pytest.MonkeyPatch, reason: str, named: str
) -> None:
    def fail(**_: Any) -> None:
        response: Any = {
            "Error": {"Code": "TransactionCanceledException", "Message": "cancelled"},
            "CancellationReasons": [{"Code": "None"}, {"Code": reason}],
        }
        raise ClientError(response, "TransactWriteItems")

    monkeypatch.setattr("dynamiq_memory.backends.dynamodb.table.wait", lambda _: None)
    monkeypatch.setattr(store._client.get(), "transact_write_items", fail)
    with pytest.raises(BackendError, match=named):
        store.add_many([say("1"), say("2")])


def test_secrets_do_not_show(
    credentials: None, endpoint: str, table_name: str, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "very-secret-token")
    connection = AWS(access_key_id="test", secret_access_key="very-secret")
    assert connection.secret_access_key is not None
    assert connection.secret_access_key.get_secret_value() == "very-secret"
    with DynamoDB(connection, table_name, endpoint_url=endpoint) as store:
        shown = [repr(connection), repr(store), json.dumps(store.to_dict()), str(store.to_url()), str(connection)]
        assert not any("very-secret" in each for each in shown)


@only_moto
def test_what_signs_the_requests(
    credentials: None, endpoint: str, table_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also dynamiq's objects, which have plain strings as keys and make sessions."""

    def signed_by(connection: Any) -> tuple[str, str | None, str]:
        with DynamoDB(connection, table_name, endpoint_url=endpoint) as store:
            used = store._client.get()._request_signer._credentials
            return used.access_key, used.token, store.region

    class LikeDynamiq(SimpleNamespace):
        def get_boto3_session(self) -> boto3.Session:
            return boto3.Session(self.access_key_id, "s", "t of its own", region_name=self.region)

    plain = {"access_key_id": "theirs", "secret_access_key": "s", "region": "us-east-2", "profile": None}
    assert signed_by(SimpleNamespace(**plain, session_token="t")) == ("theirs", "t", "us-east-2")
    assert signed_by(LikeDynamiq(**plain)) == ("theirs", "t of its own", "us-east-2")
    assert signed_by(AWS()) == ("test", None, "eu-west-1")
    file = tmp_path / "credentials"
    file.write_text("[named]\naws_access_key_id = named\naws_secret_access_key = s\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_DEFAULT_PROFILE", "named")
    assert signed_by(AWS()) == ("named", None, "eu-west-1")
    given = AWS(access_key_id="given", secret_access_key="s", region="us-west-2")
    assert signed_by(given) == ("given", None, "us-west-2")
    assert signed_by(AWS(access_key_id="given", secret_access_key="s", profile="named"))[0] == "named"
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    assert connections.AWS().region == "eu-north-1"


def test_a_callers_client_stays_open(store: DynamoDB, watched: Watched, endpoint: str, table_name: str) -> None:
    client = watched.session.client("dynamodb", endpoint_url=endpoint)
    with DynamoDB(client, table_name) as own:
        own.add(say("hello"))
        assert own.to_url() is None
    assert client.describe_table(TableName=table_name)
    client.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_callers_client_is_refused_in_a_child(
    store: DynamoDB, watched: Watched, endpoint: str, table_name: str
) -> None:
    client = watched.session.client("dynamodb", endpoint_url=endpoint)
    with DynamoDB(client, table_name) as own:

        def in_child() -> None:
            with pytest.raises(BackendError, match="forked"):
                own.count()

        assert _run_in_fork(in_child) == 0
        assert own.count() == 0
    client.close()


def test_many_open_it_for_the_first_time_at_once(new_store: NewStore) -> None:
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(lambda _: new_store(ttl=600), range(4)))
    for number, store in enumerate(stores):
        store.add(say(f"{number}"))
    assert stores[0].count() == 4


def test_processes_share_a_table(
    new_store: NewStore, endpoint: str, table_name: str, child_environment: dict[str, str]
) -> None:
    code = f"""
from dynamiq_memory.backends import DynamoDB
from dynamiq_memory.testing import say
import sys
with DynamoDB(table_name={table_name!r}, endpoint_url={endpoint!r}) as store:
    for number in range(5):
        store.add(say(f"{{sys.argv[1]}}:{{number}}"))
"""
    environment = child_environment | {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    children = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", code, f"{n}"], env=environment) for n in range(2)
    ]
    assert [child.wait(60) for child in children] == [0, 0]
    found = contents(new_store().get_all(filters={"session_id": "session-1"}))
    for child in ("0", "1"):
        assert [each for each in found if each[0] == child] == [f"{child}:{n}" for n in range(5)]


def test_without_boto3(run_script: Callable[..., Any]) -> None:
    run_script(
        f"""
import sys
sys.modules["boto3"] = sys.modules["botocore"] = None
from dynamiq_memory.exceptions import {MissingDependencyError.__name__}
import dynamiq_memory.backends
try:
    dynamiq_memory.backends.DynamoDB
except MissingDependencyError as error:
    assert "dynamiq-memory[dynamodb]" in str(error)
else:
    raise AssertionError
"""
    )


def test_ranking_is_bounded(new_store: NewStore) -> None:
    store = new_store(most_ranked=10)
    store.add_many([say(f"apple {n}") for n in range(30)])
    assert sorted(contents(store.search("apple"))) == [f"apple {n}" for n in range(20, 30)]


def test_a_session_is_found_by_its_name_again(store: DynamoDB, new_store: NewStore) -> None:
    """A writer that has registered its session once relies on it, even if others delete messages."""
    other = new_store()
    store.add(say("one", user="u", session="s"))
    assert other.delete(session_id="s") == 1
    assert other.clear() == 0
    store.add(say("two", user="u", session="s"))
    assert contents(other.get_all(filters={"session_id": "s"})) == ["two"]


def test_what_says_that_a_user_has_a_session_goes_when_it_is_old(
    store: DynamoDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    def left() -> int:
        return int(store._client.get().scan(TableName=store.table_name, Select="COUNT")["Count"])

    store.add(say("one", user="u", session="s"))
    assert left() == 2
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 25 * 3600)
    assert store.delete(user_id="u") == 1
    assert left() == 0


def test_a_session_is_found_by_its_name_as_long_as_any_message_of_it_lasts(new_store: NewStore) -> None:
    """One process lets messages expire, and another does not."""

    def expires(user: str) -> str | None:
        key = {"pk": {"S": "session/s"}, "sk": {"S": f"@{user}"}}
        item = lasting._client.get().get_item(TableName=lasting.table_name, Key=key)["Item"]
        return item["expires"]["N"] if "expires" in item else None

    lasting, short, shorter = new_store(), new_store(ttl=1000), new_store(ttl=10)
    lasting.add(say("1", user="u", session="s"))
    short.add(say("2", user="u", session="s"))
    assert expires("u") is None
    short.add(say("3", user="v", session="s"))
    until = expires("v")
    shorter.add(say("4", user="v", session="s"))
    assert expires("v") == until is not None
    lasting.add(say("5", user="v", session="s"))
    assert expires("v") is None
