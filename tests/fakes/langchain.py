"""A model that answers from a script, and agents made with it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from langchain.agents import create_agent
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolCall
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import PrivateAttr

Script = Sequence[Any] | Callable[[list[BaseMessage]], AIMessage | str]


class ScriptedModel(BaseChatModel):
    """Says what its script says next, and remembers each prompt."""

    script: Any
    _prompts: list[list[BaseMessage]] = PrivateAttr(default_factory=list)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    @property
    def prompts(self) -> list[list[BaseMessage]]:
        return self._prompts

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **kwargs: Any) -> ScriptedModel:
        return self

    def _next(self, messages: list[BaseMessage]) -> AIMessage:
        with self._lock:
            self._prompts.append(list(messages))
            said = self.script(messages) if callable(self.script) else self.script[len(self._prompts) - 1]
        if isinstance(said, Exception):
            raise said
        return AIMessage(said) if isinstance(said, str) else said.model_copy()

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._next(messages))])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        said = self._next(messages)
        if said.tool_calls:
            yield ChatGenerationChunk(message=AIMessageChunk(content=said.content, tool_calls=said.tool_calls))
            return
        for word in str(said.content).split(" "):
            yield ChatGenerationChunk(message=AIMessageChunk(content=word + " "))


def calls(*named: tuple[str, dict[str, Any]], id_: str | None = None) -> AIMessage:
    """An answer that calls tools."""
    made = [
        ToolCall(name=name, args=arguments, id=f"call-{name}-{number}", type="tool_call")
        for number, (name, arguments) in enumerate(named)
    ]
    return AIMessage("", tool_calls=made, id=id_)


class Talker:
    """Talks to an agent synchronously or asynchronously, so that each test covers both."""

    def __init__(self, *, asynchronous: bool) -> None:
        self.asynchronous = asynchronous

    def agent(self, script: Script, middleware: Sequence[Any], tools: Sequence[Any] = (), **options: Any) -> Any:
        model = ScriptedModel(script=script)
        return model, create_agent(model, list(tools), middleware=list(middleware), **options)

    def invoke(self, agent: Any, given: Any, config: Any = None, **options: Any) -> Any:
        if isinstance(given, str):
            given = {"messages": [("user", given)]}
        if self.asynchronous:
            return asyncio.run(agent.ainvoke(given, config, **options))
        return agent.invoke(given, config, **options)


def in_short(messages: Sequence[BaseMessage]) -> list[str]:
    """Messages in short: their type and text."""
    return [f"{message.type}: {message.text}" for message in messages]
