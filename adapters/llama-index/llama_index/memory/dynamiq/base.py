"""One session of a dynamiq-memory `Memory` as the memory of a chat engine or an agent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Sized
from typing import Any, Self, cast

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.memory.types import BaseMemory
from pydantic import ConfigDict, Field, PrivateAttr, field_serializer

from dynamiq_memory import (
    ConfigurationError,
    InvalidArgumentError,
    Memory,
    MemoryRetrievalStrategy,
    Message,
    MessageRole,
    select_to_save,
)
from dynamiq_memory.filters import earlier_than
from dynamiq_memory.messages import TIMESTAMP_KEY, put_behind
from dynamiq_memory.plans import Call, Plan, arun, run
from dynamiq_memory.references import reference_to, resolve
from dynamiq_memory.turns import Budget, arrange, latest_turns, split_turns
from llama_index.memory.dynamiq._messages import from_message, to_message, to_messages, unplaced
from llama_index.memory.dynamiq._rewrite import rewritten, scope_of

# A turn that has begun is read back so far at first, further each time.
_PAGE = 32
# The part of a model's context window that LlamaIndex's own memories give to the conversation.
_SHARE_OF_CONTEXT = 0.75


class DynamiqMemory(BaseMemory):
    """The memory of a chat engine or an agent: one session of a `dynamiq_memory.Memory`.

    What is put is stored at once; what is got is a conversation that every provider accepts, chosen by the strategy
    within the limits. Messages that are handed out are copies. A copy of this object, deep or not, shares its store. As
    JSON (`to_dict`, or the context of a workflow), it holds a reference to the store and no secret.

    Args:
        memory: Where the messages live. Its save mode says which of the messages put are kept.
        store: Instead of `memory`, the reference to one, as `to_dict` holds it.
        session_id: The session, a non-empty string.
        user_id: Whose session it is; by default the user whom the memory's default filters fix, else nobody.
        strategy: Which messages `get` picks; RELEVANT and BOTH rank by its input, else by the last question.
        limit: At most so many messages; the memory's `message_limit` by default.
        token_limit: At most so many tokens, less `initial_token_count`; None for any number.
        tokenizer_fn: Splits a text into tokens for `token_limit`; the memory's `token_counter` by default.

    Raises:
        ConfigurationError: An argument is missing or wrong.
        MessageError: session_id or user_id is no non-empty string.
    """

    model_config = ConfigDict(frozen=True)

    session_id: str = Field(description="The session.")
    user_id: str | None = Field(default=None, description="Whose session it is.")
    strategy: MemoryRetrievalStrategy = Field(default=MemoryRetrievalStrategy.ALL, description="What is picked.")
    limit: int | None = Field(default=None, description="At most so many messages.")
    token_limit: int | None = Field(default=None, description="At most so many tokens.")
    store: dict[str, Any] = Field(description="The reference to the store.")

    _memory: Memory = PrivateAttr()
    _session: Memory = PrivateAttr()
    _tokenizer_fn: Callable[[str], Sequence[Any]] | None = PrivateAttr(default=None)

    def __init__(
        self,
        memory: Memory | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        strategy: MemoryRetrievalStrategy | str = MemoryRetrievalStrategy.ALL,
        limit: int | None = None,
        token_limit: int | None = None,
        tokenizer_fn: Callable[[str], Sequence[Any]] | None = None,
        store: Mapping[str, Any] | None = None,
        class_name: str | None = None,  # noqa: ARG002 - what LlamaIndex writes into its JSON
    ) -> None:
        """Bind the session; no I/O."""
        if memory is None and store is not None:
            memory = resolve(store)
        if not isinstance(memory, Memory):
            raise ConfigurationError(
                f"memory must be a dynamiq_memory.Memory, not a {type(memory).__name__}: give Memory(backend=…)"
            )
        for name, value in (("limit", limit), ("token_limit", token_limit)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ConfigurationError(f"{name} must be a whole number of 1 or more, or None; not {value!r}")
        try:
            strategy = MemoryRetrievalStrategy(strategy)
        except ValueError:
            known = ", ".join(MemoryRetrievalStrategy)
            raise ConfigurationError(f"strategy {strategy!r} is unknown: use one of {known}") from None
        if tokenizer_fn is not None and not callable(tokenizer_fn):
            raise ConfigurationError(f"tokenizer_fn must be a function of a text, not {tokenizer_fn!r}")
        session = memory.scoped(session_id, user_id)
        super().__init__(
            session_id=session.filters["session_id"],
            user_id=session.filters["user_id"],
            strategy=strategy,
            limit=limit,
            token_limit=token_limit,
            store=reference_to(memory),
        )
        if tokenizer_fn is not None:
            session.token_counter = _counter(tokenizer_fn)
        self._memory = memory
        self._session = session
        self._tokenizer_fn = tokenizer_fn

    @property
    def tokenizer_fn(self) -> Callable[[str], Sequence[Any]]:
        """Splits a text into tokens: chat engines count the tokens of their prompts by it."""
        count = self._session.token_counter
        return self._tokenizer_fn or (lambda text: range(count(Message(role=MessageRole.USER, content=text))))

    @field_serializer("store")
    def _describe_store(self, _: dict[str, Any]) -> dict[str, Any]:
        # Made anew: the memory may have been given a name since.
        return reference_to(self._memory)

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex knows the class."""
        return "DynamiqMemory"

    @classmethod
    def from_defaults(  # type: ignore[override]
        cls,
        memory: Memory | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        strategy: MemoryRetrievalStrategy | str = MemoryRetrievalStrategy.ALL,
        limit: int | None = None,
        token_limit: int | None = None,
        tokenizer_fn: Callable[[str], Sequence[Any]] | None = None,
        chat_history: Sequence[ChatMessage] | None = None,
        llm: Any = None,
    ) -> Self:
        """Make a memory; the arguments are those of the class, and two that LlamaIndex passes.

        Args:
            memory: As for the class.
            session_id: As for the class.
            user_id: As for the class.
            strategy: As for the class.
            limit: As for the class.
            token_limit: As for the class; with an `llm`, three quarters of its context window by default.
            tokenizer_fn: As for the class.
            chat_history: What the session is set to; None leaves it as it is stored.
            llm: The model whose context window limits the tokens.
        """
        if token_limit is None and llm is not None:
            if not hasattr(llm, "metadata"):
                raise ConfigurationError(f"llm must be a model of LlamaIndex's, not {llm!r}")
            token_limit = int(llm.metadata.context_window * _SHARE_OF_CONTEXT)
        made = cls(memory, session_id, user_id, strategy, limit, token_limit, tokenizer_fn)
        if chat_history is not None:
            made.set(chat_history)  # type: ignore[arg-type]
        return made

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> Self:
        """Make the memory that `to_dict` describes, bound to its store.

        Raises:
            ConfigurationError: The store cannot be found in this process, see `dynamiq_memory.register_memory`.
        """
        return cls(**{**data, **kwargs})

    # --- reading ---------------------------------------------------------------------------------------------

    def get(self, input: Any = None, initial_token_count: int = 0, **_: Any) -> list[ChatMessage]:  # noqa: A002
        """Pick the conversation that the model is given; see `aget`."""
        return _told(run(self._session, self._pick(input, initial_token_count)))

    async def aget(self, input: Any = None, initial_token_count: int = 0, **_: Any) -> list[ChatMessage]:  # noqa: A002
        """Pick the conversation that the model is given.

        Args:
            input: What the model is asked: a text, a message or a QueryBundle. Without it, the last question.
            initial_token_count: The tokens of the prompt besides, taken from `token_limit`.

        Returns:
            The messages, oldest first. A question that has no answer yet is always among them, the last.

        Raises:
            InvalidArgumentError: initial_token_count leaves nothing of token_limit.
            BackendError: The store failed.
        """
        return _told(await arun(self._session, self._pick(input, initial_token_count)))

    def get_all(self) -> list[ChatMessage]:
        """Read all messages of the session."""
        return _told(self._session.backend.get_all(None, self._session.filters))

    async def aget_all(self) -> list[ChatMessage]:
        """Read all messages of the session."""
        return _told(await self._session.backend.aget_all(None, self._session.filters))

    # --- storing ---------------------------------------------------------------------------------------------

    def put(self, message: ChatMessage) -> None:
        """Store a message, if the memory's save mode keeps it."""
        run(self._session, self._add([message]))

    async def aput(self, message: ChatMessage) -> None:
        """Store a message, if the memory's save mode keeps it."""
        await arun(self._session, self._add([message]))

    def put_messages(self, messages: list[ChatMessage]) -> None:
        """Store what the memory's save mode keeps of messages, as one batch."""
        run(self._session, self._add(messages))

    async def aput_messages(self, messages: list[ChatMessage]) -> None:
        """Store what the memory's save mode keeps of messages, as one batch."""
        await arun(self._session, self._add(messages))

    def set(self, messages: list[ChatMessage]) -> None:
        """Make the session hold just these messages; those that it holds already keep their time and id."""
        new = unplaced(messages)
        session = self._session
        stored = session.backend.get_all(None, session.filters)
        session.replace_messages(scope_of(session), rewritten(stored, new))

    async def aset(self, messages: list[ChatMessage]) -> None:
        """Make the session hold just these messages; see `set`."""
        new = unplaced(messages)
        session = self._session
        stored = await session.backend.aget_all(None, session.filters)
        await session.areplace_messages(scope_of(session), rewritten(stored, new))

    def reset(self) -> None:
        """Delete the session's messages."""
        self._session.clear()

    async def areset(self) -> None:
        """Delete the session's messages."""
        await self._session.aclear()

    # --- copies ----------------------------------------------------------------------------------------------

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:  # noqa: ARG002
        """Share the store; what the update names is as if it had been given to the class."""
        given = update or {}
        names = ("session_id", "user_id", "strategy", "limit", "token_limit")
        own: dict[str, Any] = {name: getattr(self, name) for name in names} | {"tokenizer_fn": self._tokenizer_fn}
        if "store" not in given:
            own["memory"] = self._memory
        return type(self)(**{**own, **given})

    def __copy__(self) -> Self:
        """Share the store."""
        return self.model_copy()

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Share the store."""
        return self.model_copy()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the reference to the store, as `to_dict` does."""
        return (type(self).from_dict, (self.to_dict(),))

    # --- plans -----------------------------------------------------------------------------------------------

    def _pick(self, given: Any, initial_token_count: int) -> Plan[list[Message]]:
        tokens = None if self.token_limit is None else self.token_limit - initial_token_count
        if tokens is not None and tokens < 1:
            raise InvalidArgumentError(
                f"initial_token_count={initial_token_count} leaves nothing of token_limit={self.token_limit}"
            )
        limit = self.limit or self._session.message_limit
        asked, tied = yield from self._unanswered()
        query = _query(given) or (asked[0].text if asked else None)
        count = self._session.token_counter
        left = None if tokens is None else tokens - sum(map(count, asked))
        arguments: dict[str, Any] = {"query": query, "limit": limit, "strategy": self.strategy, "max_tokens": tokens}
        fits = len(asked) <= limit and (left is None or left >= 0)
        if not asked or (fits and self.strategy is MemoryRetrievalStrategy.ALL):
            return cast("list[Message]", (yield Call("get_agent_conversation", arguments)))
        if not fits or len(asked) == limit or left == 0:
            # The question and the latest of what has been done for it; at least the question.
            return split_turns(asked)[0].cut(Budget(limit, tokens, count)) or asked[:1]
        if tied:
            # A filter on the time cannot tell the question from what came before it.
            ids = {message.id for message in asked}
            rest = [message for message in (yield Call("get_agent_conversation", arguments)) if message.id not in ids]
            picked, _ = latest_turns(split_turns(arrange(rest)), Budget(limit - len(asked), left, count))
            return [*picked, *asked]
        before = earlier_than(asked[0].timestamp or 0.0, self._session.filters.get(TIMESTAMP_KEY))
        arguments |= {"limit": limit - len(asked), "max_tokens": left, "filters": before}
        return [*(yield Call("get_agent_conversation", arguments)), *asked]

    def _unanswered(self) -> Plan[tuple[list[Message], bool]]:
        """The last question, if nothing but unfinished work stands behind it: the model must always be given it.

        Also tells whether a message before it has its time.
        """
        size = _PAGE
        while True:
            latest = cast("list[Message]", (yield Call("get_all", {"limit": size})))
            if not latest or _is_answer(latest[-1]):
                return [], False
            places = [place for place, message in enumerate(latest) if message.role is MessageRole.USER]
            if places or len(latest) < size:
                if not places:
                    return [], False
                tied = places[-1] > 0 and latest[places[-1] - 1].timestamp == latest[places[-1]].timestamp
                return arrange(latest[places[-1] :]), tied
            size *= 4

    def _add(self, messages: Sequence[ChatMessage]) -> Plan[None]:
        chosen = select_to_save(to_messages(messages), self._session.save_mode)
        if chosen:
            latest = cast("list[Message]", (yield Call("get_all", {"limit": 1})))
            put_behind(chosen, latest)
            yield Call("add_many", {"messages": chosen})


def _told(messages: Sequence[Message]) -> list[ChatMessage]:
    return [from_message(message) for message in messages]


def _is_answer(message: Message) -> bool:
    return message.role is MessageRole.ASSISTANT and not message.tool_calls


def _query(given: Any) -> str | None:
    """The text of a question as LlamaIndex hands it over: a text, a QueryBundle or a message."""
    if isinstance(given, ChatMessage):
        return to_message(given).text
    text = getattr(given, "query_str", given)
    return text if isinstance(text, str) and text.strip() else None


def _counter(tokenizer_fn: Callable[[str], Sequence[Any]]) -> Callable[[Message], int]:
    def count(message: Message) -> int:
        calls = "".join(str(call.get("function")) for call in message.tool_calls or ())
        tokens = tokenizer_fn(message.text + calls)
        if not isinstance(tokens, Sized):
            raise ConfigurationError(f"tokenizer_fn must return a list of tokens, not {tokens!r}")
        return len(tokens)

    return count
