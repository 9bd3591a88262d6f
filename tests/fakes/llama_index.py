"""A model and a retriever that answer from a script, and messages for the tests."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    LLMMetadata,
    ToolCallBlock,
)
from llama_index.core.chat_engine import CondensePlusContextChatEngine, ContextChatEngine, SimpleChatEngine
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from pydantic import PrivateAttr

Script = Sequence[Any] | Callable[[list[ChatMessage]], Any]


class ScriptedLLM(FunctionCallingLLM):
    """Says what its script says next (a text, a message, or an error that it raises), and remembers each prompt."""

    script: Any
    function_calling: bool = True
    window: int = 100_000
    _prompts: list[list[ChatMessage]] = PrivateAttr(default_factory=list)

    def __init__(self, script: Script, **options: Any) -> None:
        super().__init__(script=script, **options)

    @property
    def prompts(self) -> list[list[ChatMessage]]:
        return self._prompts

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(
            is_chat_model=True,
            is_function_calling_model=self.function_calling,
            context_window=self.window,
            model_name="scripted",
        )

    def _next(self, messages: Sequence[ChatMessage]) -> ChatMessage:
        self._prompts.append([copy.deepcopy(message) for message in messages])
        said = self.script(list(messages)) if callable(self.script) else self.script[len(self._prompts) - 1]
        if isinstance(said, Exception):
            raise said
        return ChatMessage(role="assistant", content=said) if isinstance(said, str) else copy.deepcopy(said)

    def _pieces(self, messages: Sequence[ChatMessage]) -> Iterator[ChatResponse]:
        said = self._next(messages)
        text = said.content or ""
        if any(not isinstance(block.model_dump().get("text"), str) for block in said.blocks):
            yield ChatResponse(message=said, delta=text)
            return
        half = len(text) // 2
        yield ChatResponse(message=ChatMessage(role="assistant", content=text[:half]), delta=text[:half])
        yield ChatResponse(message=said, delta=text[half:])

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return ChatResponse(message=self._next(messages))

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
        return self._pieces(messages)

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return ChatResponse(message=self._next(messages))

    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Any:
        async def pieces() -> AsyncIterator[ChatResponse]:
            for piece in self._pieces(messages):
                yield piece

        return pieces()

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text=self._next([ChatMessage(prompt)]).content or "")

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise NotImplementedError

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return self.complete(prompt)

    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        raise NotImplementedError

    def _prepare_chat_with_tools(
        self,
        tools: Any,
        user_msg: Any = None,
        chat_history: Any = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        return {"messages": list(chat_history or [])}

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        return [
            ToolSelection(
                tool_id=block.tool_call_id or "",
                tool_name=block.tool_name,
                tool_kwargs=block.tool_kwargs if isinstance(block.tool_kwargs, dict) else {},
            )
            for block in response.message.blocks
            if isinstance(block, ToolCallBlock)
        ]


class FixedRetriever(BaseRetriever):
    """Finds the same text whatever is asked, and remembers what was."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.asked: list[str] = []

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        self.asked.append(query_bundle.query_str)
        return [NodeWithScore(node=TextNode(text=self.text, id_="node"), score=1.0)]


def user(text: str) -> ChatMessage:
    return ChatMessage(role="user", content=text)


def assistant(text: str) -> ChatMessage:
    return ChatMessage(role="assistant", content=text)


def calls(*named: tuple[str, str, dict[str, Any]]) -> ChatMessage:
    """An answer that calls tools, each given by the id of the call, the tool's name and its arguments."""
    return ChatMessage(
        role="assistant",
        blocks=[ToolCallBlock(tool_call_id=id_, tool_name=name, tool_kwargs=given) for id_, name, given in named],
    )


def result(id_: str, text: str) -> ChatMessage:
    return ChatMessage(role="tool", content=text, additional_kwargs={"tool_call_id": id_})


def in_short(messages: Sequence[ChatMessage]) -> list[str]:
    """Messages in short: their role and text, or the ids of the calls that they make."""
    return [f"{message.role.value}: {message.content or ' '.join(_called(message))}" for message in messages]


def texts(messages: Sequence[ChatMessage]) -> list[str]:
    return [message.content or "" for message in messages]


def _called(message: ChatMessage) -> list[str]:
    return [str(block.tool_call_id) for block in message.blocks if isinstance(block, ToolCallBlock)]


def assert_valid(messages: Sequence[ChatMessage]) -> None:
    """A conversation that every provider accepts: a user's message first, and calls with just their results."""
    spoken = [message for message in messages if message.role.value != "system"]
    assert not spoken or spoken[0].role.value == "user"
    missing: list[str] = []
    for message in spoken:
        if message.role.value == "tool":
            missing.remove(str(message.additional_kwargs["tool_call_id"]))
            continue
        assert missing == []
        missing = _called(message)
    assert missing == []


ENGINES = ("simple", "context", "condense")
WAYS = ("chat", "achat", "stream_chat", "astream_chat")


def engine_of(kind: str, llm: ScriptedLLM, memory: Any) -> Any:
    """A chat engine of one of the three kinds."""
    if kind == "simple":
        return SimpleChatEngine.from_defaults(llm=llm, memory=memory, system_prompt="Be brief.")
    made = ContextChatEngine if kind == "context" else CondensePlusContextChatEngine
    retriever = FixedRetriever("The sky is green.")
    return made.from_defaults(retriever=retriever, llm=llm, memory=memory, system_prompt="Be brief.")


def ask(engine: Any, way: str, question: str) -> str:
    """Talk to a chat engine by one of its four methods, and read the answer to its end."""

    async def asynchronously() -> str:
        response = await getattr(engine, way)(question)
        if way == "achat":
            return str(response)
        return "".join([piece async for piece in response.async_response_gen()])

    if way in {"achat", "astream_chat"}:
        return asyncio.run(asynchronously())
    response = getattr(engine, way)(question)
    return str(response) if way == "chat" else "".join(response.response_gen)


def echo(messages: list[ChatMessage]) -> str:
    """Answer with the last line of the prompt."""
    last = (messages[-1].content or "").strip().splitlines()[-1]
    return f"answer to: {last}"
