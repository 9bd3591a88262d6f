"""The bodies of requests and answers, for checking and for the OpenAPI description."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from dynamiq_memory.retrieval import MemoryRetrievalStrategy, Reason
from dynamiq_memory.wire import EXTENSION

FILTERS = (
    'A filter on metadata: {"k": "v"} equals, {"k": ["a", "b"]} one of, {"k": {"gte": 1, "lt": 5}} range (gt, gte, lt, '
    'lte), {"k": null} absent. All keys must match; user_id, session_id, timestamp and message_id are keys too.'
)
# JSON has larger integers; neither a store nor another language does.
_Count = Annotated[int, Field(ge=0, le=1_000_000)]
Filters = Annotated[dict[str, Any] | None, Field(description=FILTERS)]


class Strict(BaseModel):
    """Refuses what it does not know: nothing that is sent is dropped."""

    model_config = ConfigDict(extra="forbid")


class Data(Strict):
    """What is said, and by whom."""

    role: Literal["user", "system", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = Field("", description="Text, or parts in OpenAI's shape.")
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    metadata: dict[str, Any] | None = None


class Extension(Strict):
    """What an item cannot hold of a message of dynamiq-memory."""

    id: str = Field(min_length=1)
    timestamp: float = Field(description="POSIX seconds.")
    text: bool = Field(False, description="Whether the content is a string, not parts.")
    exact: str | None = Field(None, description="Values that JSON cannot carry unchanged, as text of this package.")


class Item(Strict):
    """A message."""

    id: str | None = Field(None, min_length=1, description="Unique in its session; the same again replaces.")
    user_id: str | None = Field(None, min_length=1)
    session_id: str | None = Field(None, min_length=1)
    type: Literal["message"] = "message"
    data: Data
    metadata: dict[str, Any] | None = None
    created_at: str | float | None = Field(None, description="ISO 8601 with a time zone, or POSIX seconds.")
    updated_at: str | float | None = Field(None, description="Not stored.")
    dynamiq_memory: Extension | None = None


assert EXTENSION in Item.model_fields  # noqa: S101 - the two names are one


class Items(Strict):
    """Several messages, stored all or none where the store can."""

    items: list[Item]


class ItemList(RootModel[list[Item]]):
    """Several messages, as a bare list."""


class Anchor(Strict):
    """Names a stored message."""

    id: str = Field(min_length=1)
    timestamp: float
    user_id: str | None = None
    session_id: str | None = None


class Query(Strict):
    """What to read."""

    filters: Filters = None
    limit: Annotated[int, Field(ge=1)] | None = Field(None, description="At most so many; a page by default.")
    before: Anchor | None = Field(None, description="Only before this one.")
    after: Anchor | None = Field(None, description="Only behind this one; then the earliest come first.")


class Around(Strict):
    """Whose neighbours to read."""

    anchors: Annotated[list[Anchor], Field(max_length=100)]
    before: _Count
    after: _Count
    filters: Filters = None


class Some(Strict):
    """Which messages."""

    filters: Filters = None


class Exactly(Strict):
    """Which messages; an empty filter is all of them."""

    filters: Annotated[dict[str, Any], Field(description=FILTERS)]


class Replace(Strict):
    """What to put in the place of what."""

    filters: Annotated[dict[str, Any], Field(description=FILTERS)]
    items: list[Item]


class Update(Strict):
    """New versions of stored messages."""

    items: list[Item]
    filters: Filters = None


class Search(Strict):
    """What to look for, and how."""

    query: str | None = None
    user_id: str | None = Field(None, min_length=1)
    session_id: str | None = Field(None, min_length=1)
    filters: Filters = None
    limit: Annotated[int, Field(ge=1)] | None = None
    strategy: MemoryRetrievalStrategy | None = Field(
        None,
        description="What an agent would be given by it, oldest first, each with its reason. Without: the messages "
        "that match, best first.",
    )
    max_tokens: Annotated[int, Field(ge=1)] | None = Field(None, description="With a strategy: at most so many tokens.")


class ShownItem(BaseModel):
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
    reason: Reason | None = None


class One(BaseModel):
    """A message."""

    data: ShownItem


class Several(BaseModel):
    """Messages, in order."""

    data: list[ShownItem]


class Page(Several):
    """A page of messages."""

    page_size: int
    has_more: bool
    next_cursor: str | None


class Found(Several):
    """What a search found."""

    has_more: bool


class Windows(BaseModel):
    """For each anchor, its neighbours and itself."""

    data: list[list[ShownItem]]


class Counted(BaseModel):
    """How many messages."""

    count: int


class Deleted(BaseModel):
    """How many messages were deleted."""

    deleted: int


class ShownSession(BaseModel):
    """A conversation."""

    user_id: str | None
    session_id: str | None
    messages: int
    first: float = Field(description="POSIX seconds.")
    last: float = Field(description="POSIX seconds.")


class Sessions(BaseModel):
    """Conversations, the most recently used first."""

    data: list[ShownSession]


class ShownCapabilities(BaseModel):
    """What the store can do."""

    keyword: bool
    vector: bool
    ttl: bool
    transactions: bool
    max_message_bytes: int | None


class ShownLimits(BaseModel):
    """What a request may ask for."""

    max_body_bytes: int
    max_page_size: int
    max_results: int


class Description(BaseModel):
    """What serves this memory."""

    service: Literal["dynamiq-memory"]
    version: str
    memory_id: str
    user_id: str | None = Field(description="The one user whom the key is for.")
    capabilities: ShownCapabilities
    limits: ShownLimits


class Health(BaseModel):
    """Whether the store answers."""

    status: Literal["ok", "failing"]


class Problem(BaseModel):
    """Why a request was refused."""

    type: str
    detail: str
