"""Request and response bodies, used for validation and for the OpenAPI description."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, RootModel, Tag, model_validator
from pydantic_core import PydanticCustomError

from dynamiq_memory._wire import EXTENSION
from dynamiq_memory.backends.base import Capabilities, Session
from dynamiq_memory.conversation.placement import Placement
from dynamiq_memory.conversation.strategies import MemoryRetrievalStrategy, Reason
from dynamiq_memory.conversation.windows import Window
from dynamiq_memory.server.partition import MEMORY_ID_PATTERN

FILTERS = (
    'A filter on metadata: {"k": "v"} equals, {"k": ["a", "b"]} one of, {"k": {"gte": 1, "lt": 5}} range (gt, gte, lt, '
    'lte), {"k": null} absent. All keys must match. user_id, session_id, timestamp and message_id are keys too.'
)
INCLUDE_SCOPE = (
    "Without a `session_id`: `user` for messages in no session, and `session` for those in sessions. Both by default."
)
T = TypeVar("T")
# Otherwise there would be an error for each of millions of wrong elements.
ListOf = Annotated[list[T], Field(fail_fast=True)]
# JSON allows larger integers, but stores and other languages do not.
_Count = Annotated[int, Field(ge=0, le=1_000_000)]
Filters = Annotated[dict[str, Any] | None, Field(description=FILTERS)]


class StrictModel(BaseModel):
    """Rejects unknown fields, so that nothing a client sends is dropped silently."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _check_fields(cls, value: Any) -> Any:
        """Report one unknown field rather than each."""
        others = (name for name in value if name not in cls.model_fields) if isinstance(value, dict) else ()
        for name in others:
            raise PydanticCustomError("extra_forbidden", "the field {name} is unknown", {"name": repr(name)[:50]})
        return value


class Data(StrictModel):
    """The role and the content of a message."""

    role: Literal["user", "system", "assistant", "tool"]
    content: str | ListOf[dict[str, Any]] | None = Field("", description="Text, or parts in OpenAI's format.")
    tool_calls: ListOf[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    metadata: dict[str, Any] | None = None


class Extension(StrictModel):
    """The parts of a dynamiq-memory message that do not fit into an item."""

    id: str = Field(min_length=1)
    timestamp: float = Field(description="POSIX seconds.")
    text: bool = Field(False, description="Whether the content is a string, not parts.")
    exact: str | None = Field(None, description="Values that JSON would change, encoded by this package.")


class Item(StrictModel):
    """A message."""

    id: str | None = Field(
        None, min_length=1, description="Unique within the session. Storing the same id again replaces the message."
    )
    user_id: str | None = Field(None, min_length=1)
    session_id: str | None = Field(None, min_length=1)
    type: Literal["message"] = "message"
    data: Data
    metadata: dict[str, Any] | None = None
    created_at: str | float | None = Field(None, description="ISO 8601 with a time zone, or POSIX seconds.")
    updated_at: str | float | None = Field(None, description="Not stored.")
    dynamiq_memory: Extension | None = None


assert EXTENSION in Item.model_fields  # noqa: S101 - the field must have the extension's name


MAX_ITEMS = 20_000
ItemsOfRequest = Annotated[ListOf[Item], Field(max_length=MAX_ITEMS)]


class Items(StrictModel):
    """Several messages. All or none are stored if the store has transactions."""

    items: ItemsOfRequest


class ItemList(RootModel[ItemsOfRequest]):
    """Several messages, as a bare list."""


def _kind_of_body(value: Any) -> str:
    if isinstance(value, list | ItemList):
        return "list"
    return "items" if isinstance(value, Items) or (isinstance(value, dict) and "items" in value) else "item"


OneOrMoreItems = Annotated[
    Annotated[Item, Tag("item")] | Annotated[Items, Tag("items")] | Annotated[ItemList, Tag("list")],
    Discriminator(_kind_of_body),
]
"""A body that is checked as what it is, not as each of what it could be."""


class Anchor(StrictModel):
    """Identifies a stored message."""

    id: str = Field(min_length=1)
    timestamp: float
    user_id: str | None = None
    session_id: str | None = None


class QueryRequest(StrictModel):
    """The messages to read."""

    filters: Filters = None
    limit: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Maximum number of messages. Defaults to the maximum page size."
    )
    before: Anchor | None = Field(None, description="Only messages before this one.")
    after: Anchor | None = Field(None, description="Only messages after this one, earliest first.")


class AroundRequest(StrictModel):
    """The anchors, and the number of neighbours to read."""

    anchors: Annotated[ListOf[Anchor], Field(max_length=100)]
    before: _Count
    after: _Count
    filters: Filters = None
    max_bytes: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Maximum size of all neighbours, in characters. Defaults to the size of a full page."
    )
    anchor_content: bool = Field(True, description="Whether the anchors themselves have their content.")


class OptionalFilterRequest(StrictModel):
    """An optional filter. Without it, all messages match."""

    filters: Filters = None


class FilterRequest(StrictModel):
    """A required filter. If it is empty, all messages match."""

    filters: Annotated[dict[str, Any], Field(description=FILTERS)]


class ReplaceRequest(FilterRequest):
    """The messages to replace, and their replacements."""

    items: ItemsOfRequest


class UpdateRequest(Items):
    """New versions of stored messages."""

    filters: Filters = None


class SearchRequest(StrictModel):
    """A search."""

    query: str | None = None
    user_id: str | None = Field(None, min_length=1)
    session_id: str | None = Field(None, min_length=1)
    filters: Filters = None
    limit: Annotated[int, Field(ge=1)] | None = None
    strategy: MemoryRetrievalStrategy | None = Field(
        None,
        description="Return the messages that an agent would be given with this strategy, oldest first, each with its "
        "reason. Without a strategy, return the matching messages, best first.",
    )
    max_tokens: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Maximum number of tokens. Requires a strategy."
    )
    window: Window | None = Field(
        None, description="Where the most recent turns begin when not all of them fit. Requires a strategy."
    )
    placement: Placement | None = Field(
        None,
        description="Where messages that match are placed. With `before_question`, all but the recent ones are part of "
        "`recalled_block`. Requires a strategy.",
    )
    compare: bool = Field(
        False, description="Whether to return `unchanged`, which takes twice as long. Requires a strategy."
    )


class StoredItem(BaseModel):
    """A stored message."""

    id: str
    user_id: str | None
    session_id: str | None
    type: Literal["message"]
    data: Data
    metadata: dict[str, Any]
    created_at: str
    updated_at: str
    dynamiq_memory: Extension
    score: float | None = None
    score_parts: dict[str, float] | None = Field(
        None, description="What the score is made of: words, meaning, neighbours, session, date, or reranker."
    )
    reason: Reason | None = None


class ItemResponse(BaseModel):
    """A message."""

    data: StoredItem


class ItemsResponse(BaseModel):
    """Messages, in order."""

    data: list[StoredItem]


class Pagination(BaseModel):
    """The size of a list that is read by page numbers."""

    page_count: int
    total_count: int


def pagination(total: int, page_size: int) -> dict[str, int]:
    """Return the pagination of a list."""
    return Pagination(page_count=-(-total // page_size), total_count=total).model_dump()


class ItemPage(ItemsResponse):
    """A page of messages."""

    page_size: int
    has_more: bool
    next_cursor: str | None
    pagination: Pagination | None = Field(None, description="With `page` or `include_scope`, but no cursor.")


class SearchResponse(ItemsResponse):
    """The results of a search."""

    has_more: bool
    recalled_block: str | None = Field(
        None, description="The messages with another reason than `recent`, as text in front of the last question."
    )
    unchanged: float | None = Field(
        None,
        description="The share of tokens at the beginning that an agent was given for the question before, too; null "
        "unless asked for, and for the first question.",
    )


class WindowsResponse(BaseModel):
    """The neighbours of each anchor, including the anchor itself.

    Windows end where the answer is full; `more` says of each whether there may be more messages before and after it.
    """

    data: list[list[StoredItem]]
    more: list[tuple[bool, bool]]


class CountResponse(BaseModel):
    """The number of matching messages."""

    count: int


class DeleteResponse(BaseModel):
    """The number of deleted messages."""

    deleted: int


class ErasureOfStore(BaseModel):
    """What was found and deleted."""

    store: str
    found: int | None
    sessions: list[str | None]
    deleted: int
    left: int | None
    problem: str | None
    traces: str = Field(description="What may still hold deleted data.")


class ReceiptResponse(BaseModel):
    """What was done to forget a user."""

    user_id: str
    at: str
    dry_run: bool
    is_complete: bool
    stores: list[ErasureOfStore]
    digest: str = Field(description="SHA-256 of the rest, as JSON with sorted keys and no spaces.")


class SessionsResponse(BaseModel):
    """Sessions, most recently used first."""

    data: list[Session]


class RequestLimits(BaseModel):
    """The limits for requests."""

    max_body_bytes: int
    max_page_size: int
    max_results: int


class NewMemory(StrictModel):
    """A memory to begin."""

    name: Annotated[str, Field(pattern=MEMORY_ID_PATTERN, description="It becomes the id of the memory.")]
    project_id: str | None = Field(None, description="Not used: the platform's clients send it.")


class MemoryItem(BaseModel):
    """A memory."""

    id: str
    name: str


class MemoryResponse(BaseModel):
    """A memory."""

    data: MemoryItem


class MemoriesResponse(BaseModel):
    """A page of memories."""

    data: list[MemoryItem]
    pagination: Pagination


class MemoryDescription(MemoryResponse):
    """The service, its version, its store's capabilities and its limits."""

    service: Literal["dynamiq-memory"]
    version: str
    memory_id: str
    user_id: str | None = Field(description="The only user that the key may access; null for all users.")
    capabilities: Capabilities
    limits: RequestLimits


class Health(BaseModel):
    """Whether the store responds."""

    status: Literal["ok", "failing"]


class Problem(BaseModel):
    """The reason why a request failed."""

    type: str
    detail: str
