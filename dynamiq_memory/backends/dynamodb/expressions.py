"""Expressions of DynamoDB. Names and values become placeholders: no text from outside becomes part of an expression."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self


class Expression:
    """Conditions that must all hold, and what their placeholders stand for."""

    def __init__(self) -> None:
        """Begin without conditions."""
        self._conditions: list[str] = []
        self._names: dict[str, str] = {}
        self._values: dict[str, Any] = {}

    def name(self, attribute: str) -> str:
        """Return the placeholder for the name of an attribute."""
        return self._names.setdefault(attribute, f"#n{len(self._names)}")

    def value(self, value: Mapping[str, Any]) -> str:
        """Return a placeholder for a value of the service's types."""
        placeholder = f":v{len(self._values)}"
        self._values[placeholder] = dict(value)
        return placeholder

    def require(self, condition: str) -> Self:
        """Add a condition made of placeholders."""
        self._conditions.append(condition)
        return self

    def exists(self, attribute: str) -> Self:
        """Require that an attribute exists."""
        return self.require(f"attribute_exists({self.name(attribute)})")

    def missing(self, attribute: str) -> Self:
        """Require that an attribute does not exist."""
        return self.require(f"attribute_not_exists({self.name(attribute)})")

    def compare(self, attribute: str, operator: str, value: Mapping[str, Any]) -> Self:
        """Require that an attribute compares with a value."""
        return self.require(f"{self.name(attribute)} {operator} {self.value(value)}")

    def or_exists(self, attribute: str) -> Self:
        """Also allow each item that has an attribute. No condition can be added after this."""
        if self._conditions:
            # AND binds more tightly than OR, and the service refuses parentheses that change nothing.
            everything = " AND ".join(self._conditions)
            self._conditions = [f"{everything} OR attribute_exists({self.name(attribute)})"]
        return self

    def arguments(self, argument: str) -> dict[str, Any]:
        """Return the arguments of a request.

        Args:
            argument: The name of the argument for the conditions.
        """
        arguments: dict[str, Any] = {}
        if self._conditions:
            arguments[argument] = " AND ".join(self._conditions)
        if self._names:
            arguments["ExpressionAttributeNames"] = {placeholder: name for name, placeholder in self._names.items()}
        if self._values:
            arguments["ExpressionAttributeValues"] = self._values
        return arguments
