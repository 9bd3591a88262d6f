"""One session of a dynamiq-memory `Memory` as the memory of a chat engine or an agent."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import replace
from typing import Any, Self

from llama_index.core.base.llms.types import ChatMessage, TextBlock
from llama_index.core.memory.types import BaseMemory
from pydantic import ConfigDict, Field, PrivateAttr

from dynamiq_memory import (
    ConfigurationError,
    Explanation,
    InvalidArgumentError,
    Memory,
    MemoryRetrievalStrategy,
    Message,
    MessageRole,
    Placement,
    Window,
    select_to_save,
)
from dynamiq_memory.integrations.arguments import check_limit, check_placement, check_strategy, check_window
from dynamiq_memory.integrations.interruptions import interrupt_open_calls
from dynamiq_memory.integrations.messages import TIMESTAMP_KEY, parts_of
from dynamiq_memory.integrations.ordering import earlier_than, move_after
from dynamiq_memory.integrations.plans import (
    AddMany,
    ExplainAgentConversation,
    GetAll,
    Plan,
    arun,
    computed,
    get_conversation,
    get_latest,
    run,
)
from dynamiq_memory.integrations.references import reference_to
from dynamiq_memory.integrations.turns import (
    Budget,
    arrange,
    begins_turn,
    calls_of,
    last_question,
    latest_turns,
    split_turns,
)
from llama_index.memory.dynamiq._by_reference import MemoryByReference, find_memory
from llama_index.memory.dynamiq._messages import from_message, from_messages, in_groups, to_batch, to_message
from llama_index.memory.dynamiq._replacing import set_messages

# Number of messages that are read first to find the last question; more if they do not contain it.
_PAGE = 32
# The share of a model's context window that LlamaIndex's own memories give to the conversation.
_SHARE_OF_CONTEXT = 0.75


class DynamiqMemory(MemoryByReference, BaseMemory):
    """The memory of a chat engine or an agent: one session of a `dynamiq_memory.Memory`.

    `put` stores at once; `get` returns a conversation that every provider accepts, chosen by the strategy within the
    limits. Messages that are returned are copies. A copy of this object, deep or not, shares its store. As JSON
    (`to_dict`, or the context of a workflow), it contains a reference to the store and no secret.

    Args:
        memory: Where the messages are stored. Its save mode decides which of the messages that are put are kept.
        store: Instead of `memory`, a reference to one, as in the result of `to_dict`.
        session_id: The session, a non-empty string.
        user_id: The user it belongs to. Defaults to the user in the memory's default filters, else to no user.
        strategy: How `get` chooses messages; RELEVANT and BOTH rank by its input, else by the last question.
        limit: Maximum number of messages. Defaults to the memory's `message_limit`.
        token_limit: Maximum number of tokens, less `initial_token_count`. Defaults to the memory's `max_tokens`.
        tokenizer_fn: Splits a text into tokens for `token_limit`; attachments count as in
            `dynamiq_memory.count_tokens_approximately`. Defaults to the memory's `token_counter`.
        window: Where the most recent turns begin when not all of them fit. Defaults to the memory's `window`.
        placement: Where RELEVANT and BOTH place messages that match. Defaults to the memory's `placement`.

    Raises:
        ConfigurationError: An argument is missing or wrong.
        MessageError: session_id or user_id is not a non-empty string.
    """

    model_config = ConfigDict(frozen=True)

    session_id: str = Field(description="The session.")
    user_id: str | None = Field(default=None, description="The user it belongs to.")
    strategy: MemoryRetrievalStrategy = Field(default=MemoryRetrievalStrategy.ALL, description="How to choose.")
    limit: int | None = Field(default=None, description="Maximum number of messages.")
    token_limit: int | None = Field(default=None, description="Maximum number of tokens.")
    window: Window | None = Field(default=None, description="Where the most recent turns begin.")
    placement: Placement | None = Field(default=None, description="Where messages that match are placed.")

    _session: Memory = PrivateAttr()
    _tokenizer_fn: Callable[[str], Sequence[Any]] | None = PrivateAttr(default=None)
    _warned: bool = PrivateAttr(default=False)

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
        class_name: str | None = None,  # noqa: ARG002 - LlamaIndex writes it into its JSON
        window: Window | str | None = None,
        placement: Placement | str | None = None,
    ) -> None:
        """Bind the session; no I/O."""
        memory = find_memory(memory, store)
        check_limit("limit", limit)
        check_limit("token_limit", token_limit)
        strategy = check_strategy(strategy)
        if tokenizer_fn is not None and not callable(tokenizer_fn):
            raise ConfigurationError(f"tokenizer_fn must be a function of a text, not {tokenizer_fn!r}")
        session = memory.scoped(session_id, user_id)
        super().__init__(
            session_id=session.filters["session_id"],
            user_id=session.filters["user_id"],
            strategy=strategy,
            limit=limit,
            token_limit=token_limit,
            window=check_window(window),
            placement=check_placement(placement),
            store=reference_to(memory),
        )
        session.window = self.window or session.window
        session.placement = self.placement or session.placement
        if tokenizer_fn is not None:
            session.token_counter = _counter(tokenizer_fn)
        self._memory = memory
        self._session = session
        self._tokenizer_fn = tokenizer_fn

    @property
    def tokenizer_fn(self) -> Callable[[str], Sequence[Any]]:
        """The function that splits a text into tokens; chat engines count the tokens of their prompts with it."""
        count = self._session.token_counter
        return self._tokenizer_fn or (lambda text: range(count(Message(role=MessageRole.USER, content=text))))

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
        window: Window | str | None = None,
        placement: Placement | str | None = None,
    ) -> Self:
        """Make a memory from the arguments of the class, and two that LlamaIndex passes.

        Args:
            memory: As for the class.
            session_id: As for the class.
            user_id: As for the class.
            strategy: As for the class.
            limit: As for the class.
            token_limit: As for the class; with an `llm`, three quarters of its context window by default.
            tokenizer_fn: As for the class.
            chat_history: Messages that replace those of the session; None leaves the session unchanged.
            llm: The model; its context window limits the tokens.
            window: As for the class.
            placement: As for the class.
        """
        if token_limit is None and llm is not None:
            if not hasattr(llm, "metadata"):
                raise ConfigurationError(f"llm must be a LlamaIndex model, not {llm!r}")
            token_limit = int(llm.metadata.context_window * _SHARE_OF_CONTEXT)
        made = cls(
            memory,
            session_id,
            user_id,
            strategy,
            limit,
            token_limit,
            tokenizer_fn,
            window=window,
            placement=placement,
        )
        if chat_history is not None:
            made.set(chat_history)  # type: ignore[arg-type]
        return made

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> Self:
        """Make the memory that `to_dict` describes, with its store.

        Raises:
            ConfigurationError: The store cannot be found in this process; see `dynamiq_memory.register_memory`.
        """
        return cls(**{**data, **kwargs})

    # --- reading ---------------------------------------------------------------------------------------------

    def get(self, input: Any = None, initial_token_count: int = 0, **_: Any) -> list[ChatMessage]:  # noqa: A002
        """Choose the conversation for the model; see `aget`."""
        return run(self._session, self._pick(input, initial_token_count))

    async def aget(self, input: Any = None, initial_token_count: int = 0, **_: Any) -> list[ChatMessage]:  # noqa: A002
        """Choose the conversation for the model.

        Args:
            input: The question: a text, a message or a QueryBundle. Defaults to the last question.
            initial_token_count: The number of tokens in the rest of the prompt, taken from `token_limit`. If they are
                equal, only a question that has no answer yet is returned.

        Returns:
            The messages, oldest first. A question that has no answer yet is always the last one, followed only by
            unfinished work on it.

        Raises:
            InvalidArgumentError: initial_token_count exceeds token_limit.
            BackendError: The store failed.
        """
        return await arun(self._session, self._pick(input, initial_token_count), input)

    def get_all(self) -> list[ChatMessage]:
        """Read all messages of the session, without superseded ones."""
        return from_messages(run(self._session, get_conversation()))

    async def aget_all(self) -> list[ChatMessage]:
        """Read all messages of the session."""
        return await computed(from_messages, await arun(self._session, get_conversation()))

    # --- storing ---------------------------------------------------------------------------------------------

    def put(self, message: ChatMessage) -> None:
        """Store a message, if the memory's save mode keeps it; the first system message that it does not warns."""
        run(self._session, _add(self._kept([message])))

    async def aput(self, message: ChatMessage) -> None:
        """Store a message, if the memory's save mode keeps it; see `put`."""
        await arun(self._session, _add(await computed(self._kept, [message])))

    def put_messages(self, messages: list[ChatMessage]) -> None:
        """Store the messages that the memory's save mode keeps, as one batch; see `put`."""
        run(self._session, _add(self._kept(messages)))

    async def aput_messages(self, messages: list[ChatMessage]) -> None:
        """Store the messages that the memory's save mode keeps, as one batch; see `put`."""
        await arun(self._session, _add(await computed(self._kept, messages)))

    def set(self, messages: list[ChatMessage]) -> None:
        """Make the session contain exactly these messages; those that are stored keep their times and ids."""
        run(self._session, set_messages(self._session, messages))

    async def aset(self, messages: list[ChatMessage]) -> None:
        """Make the session contain exactly these messages; see `set`."""
        await arun(self._session, set_messages(self._session, messages), messages)

    def reset(self) -> None:
        """Delete the session's messages."""
        self._session.clear()

    async def areset(self) -> None:
        """Delete the session's messages."""
        await self._session.aclear()

    # --- copies ----------------------------------------------------------------------------------------------

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:  # noqa: ARG002
        """Share the store; values in the update count as if they had been given to the class."""
        changed = update or {}
        names = ("session_id", "user_id", "strategy", "limit", "token_limit", "window", "placement")
        unchanged: dict[str, Any] = {name: getattr(self, name) for name in names} | {"tokenizer_fn": self._tokenizer_fn}
        if "store" not in changed:
            unchanged["memory"] = self._memory
        return type(self)(**{**unchanged, **changed})

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the reference to the store, as `to_dict` does."""
        return (type(self).from_dict, (self.to_dict(),))

    # --- plans -----------------------------------------------------------------------------------------------

    def _pick(self, given: Any, initial_token_count: int) -> Plan[list[ChatMessage]]:
        tokens = None if self.token_limit is None else self.token_limit - initial_token_count
        if tokens is not None and tokens < 0:
            raise InvalidArgumentError(
                f"initial_token_count={initial_token_count} exceeds token_limit={self.token_limit}: raise token_limit, "
                "or shorten the rest of the prompt"
            )
        limit = self.limit or self._session.message_limit
        asked, tied = yield from self._unanswered()
        if tokens == 0:
            return from_messages(asked[:1])
        query = _query(given) or (asked[0].text if asked else None)
        count = self._session.token_counter
        left = None if tokens is None else tokens - sum(map(count, asked))
        conversation = ExplainAgentConversation(query, limit, strategy=self.strategy, max_tokens=tokens)
        fits = len(asked) <= limit and (left is None or left >= 0)
        if not asked or (fits and self.strategy is MemoryRetrievalStrategy.ALL):
            return _given((yield from conversation), [])
        if not fits or len(asked) == limit or left == 0:
            # The question and the latest work on it; at least the question.
            return from_messages(split_turns(asked)[0].cut(Budget(limit, tokens, count)) or asked[:1])
        if tied:
            # A filter on the time cannot separate the question from the message before it.
            ids = {message.id for message in asked}
            found = yield from replace(conversation, placement=Placement.CHRONOLOGICAL)
            rest = [message for message in found.recent if message.id not in ids]
            picked, _ = latest_turns(split_turns(arrange(rest)), Budget(limit - len(asked), left, count))
            return from_messages([*picked, *asked])
        earlier = earlier_than(asked[0].timestamp or 0.0, self._session.filters.get(TIMESTAMP_KEY))
        before = yield from replace(conversation, limit=limit - len(asked), max_tokens=left, filters=earlier)
        return _given(before, asked)

    def _unanswered(self) -> Plan[tuple[list[Message], bool]]:
        """Read the last question, if only unfinished work follows it: the model must always be given it.

        Returns:
            The question and the work on it, and whether the message before the question has the same time.
        """
        size = _PAGE
        while True:
            latest = yield from get_latest(size)
            if not latest or _is_answer(latest[-1]):
                return [], False
            places = [place for place, message in enumerate(latest) if begins_turn(message)]
            if places:
                start = places[-1]
                tied = start > 0 and latest[start - 1].timestamp == latest[start].timestamp
                return arrange(latest[start:]), tied
            if len(latest) < size:
                return [], False
            size *= 4

    def _kept(self, messages: Sequence[ChatMessage]) -> list[Message]:
        """Convert the messages that the save mode keeps; warn of the first system message that it does not."""
        batch = to_batch(messages)
        kept = select_to_save(batch, self._session.save_mode)
        if not self._warned and _has_instructions(batch) and not _has_instructions(kept):
            self._warned = True
            warnings.warn(
                f"a system message was not stored: the save mode {str(self._session.save_mode)!r} keeps none. Give "
                "instructions to the agent or engine (system_prompt=…), or store them with set(…)",
                stacklevel=3,
            )
        return kept


def _add(messages: list[Message]) -> Plan[None]:
    if messages:
        latest = yield from GetAll(1)
        if begins_turn(messages[0]):
            yield from interrupt_open_calls(latest)
        move_after(messages, latest)
        yield from AddMany(messages)


def _has_instructions(messages: Sequence[Message]) -> bool:
    return any(message.role is MessageRole.SYSTEM for message in messages)


def _given(explanation: Explanation, asked: Sequence[Message]) -> list[ChatMessage]:
    """Convert what was picked and the question, with the block of what was found in front of the last question.

    LlamaIndex's own message is changed, since it may have blocks that our message does not have.
    """
    messages = [*explanation.recent, *asked]
    place = last_question(messages)
    if not explanation.recalled:
        return from_messages(messages)
    if place is None:
        return from_messages([*explanation.conversation, *asked])
    groups = in_groups(messages)
    given = [from_message(part) for group in groups for part in group]
    place = sum(map(len, groups[:place]))
    block = TextBlock(text=f"{explanation.recalled_block}\n\n")
    question = given[place]
    given[place] = question.model_copy(update={"blocks": [block, *question.blocks]})
    return given


def _is_answer(message: Message) -> bool:
    return message.role is MessageRole.ASSISTANT and not calls_of(message)


def _query(given: Any) -> str | None:
    """The text of a question as LlamaIndex passes it: a text, a QueryBundle or a message."""
    if isinstance(given, ChatMessage):
        return to_message(given).text
    text = getattr(given, "query_str", given)
    return text if isinstance(text, str) and text.strip() else None


def _counter(tokenizer_fn: Callable[[str], Sequence[Any]]) -> Callable[[Message], int]:
    def count(message: Message) -> int:
        texts, attachments = parts_of(message)
        tokens = tokenizer_fn("\n".join(texts))
        if not isinstance(tokens, Sized):
            raise ConfigurationError(f"tokenizer_fn must return a list of tokens, not {tokens!r}")
        return len(tokens) + attachments

    return count
