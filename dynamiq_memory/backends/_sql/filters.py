"""Filters in SQL, always with bound parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import sqlalchemy as sa

from dynamiq_memory.filters import Absent, Condition, Filter, OneOf, Range
from dynamiq_memory.messages import MESSAGE_ID_KEY, SESSION_KEY, TIMESTAMP_KEY, USER_KEY, Message

# More values are passed as one parameter: SQLite takes 32,766 parameters, PostgreSQL 65,535.
_MANY = 500
_MOST_PARAMETERS = 30_000


class SQLFilters(ABC):
    """Translates filters for one store.

    Args:
        messages: The table of messages.
    """

    concatenate: ClassVar[str]
    """The store's aggregate function that joins texts with a separator."""

    def __init__(self, messages: sa.Table) -> None:
        """Keep the table."""
        self._messages = messages

    @abstractmethod
    def metadata(self, conditions: Sequence[Condition]) -> sa.ColumnElement[bool]:
        """Translate conditions on other metadata keys than those with a column of their own."""

    @abstractmethod
    def among(
        self, column: sa.ColumnElement[Any], values: Sequence[Any] = (), name: str | None = None
    ) -> sa.ColumnElement[bool]:
        """Whether a column is one of many values, which are a single parameter.

        Args:
            column: The column.
            values: The values, if they are known already.
            name: The parameter's name, if `packed` values are given to it later.
        """

    def owned(self, owner: str) -> list[sa.ColumnElement[bool]]:  # noqa: ARG002
        """Translate a filter's owner. By default, nothing, since the conditions are enough."""
        return []

    @abstractmethod
    def listed(self, name: str) -> sa.FromClause:
        """The whole numbers that are `packed` in a parameter.

        Returns:
            Rows of `value` and its `place`.
        """

    @abstractmethod
    def packed(self, values: Sequence[Any]) -> Any:
        """Make many values a single parameter."""

    @abstractmethod
    def anchors(self) -> sa.FromClause:
        """The anchors in the parameters of `packed_anchors`.

        Returns:
            Rows of `number` (from 0), `user_id`, `session_id`, `id` and `timestamp`.
        """

    @abstractmethod
    def packed_anchors(self, anchors: Sequence[Message]) -> dict[str, Any]:
        """Make messages the parameters of `anchors`."""

    @abstractmethod
    def each(self, rows: sa.FromClause, numbers: sa.Select[Any]) -> tuple[sa.FromClause, sa.ColumnElement[int]]:
        """Run a query of numbers of arrival for each of some rows.

        Args:
            rows: The rows.
            numbers: The query, which may use their columns.

        Returns:
            The rows joined with the numbers, and the column of these.
        """

    def clauses(self, filter: Filter) -> list[sa.ColumnElement[bool]]:
        """Translate a filter for the table of messages into clauses, all of which must hold."""
        result = self.scope(filter, self._messages)
        if not result and filter.owner is not None:
            result += self.owned(filter.owner)
        others: list[Condition] = []
        for condition in filter.beyond_scope:
            if condition.key == TIMESTAMP_KEY:
                result.append(self._timestamp(condition))
            elif condition.key == MESSAGE_ID_KEY:
                ids = condition.values if isinstance(condition, OneOf) else ()
                result.append(self._one_of(self._messages.c.id, ids))
            else:
                others.append(condition)
        if others:
            result.append(self.metadata(others))
        return result

    def scope(self, filter: Filter, table: sa.Table) -> list[sa.ColumnElement[bool]]:
        """Translate the part of a filter that is about user_id and session_id, for a table with these columns."""
        result: list[sa.ColumnElement[bool]] = []
        for key in (USER_KEY, SESSION_KEY):
            allowed = filter.scope(key)
            if allowed is not None:
                result.append(self._one_of(table.c[key], [value or "" for value in allowed]))
        return result

    def _one_of(self, column: sa.ColumnElement[Any], values: Sequence[Any]) -> sa.ColumnElement[bool]:
        if len(values) == 1:
            equal: sa.ColumnElement[bool] = column == values[0]
            return equal  # prepared faster than IN
        return self.among(column, values) if len(values) > _MANY else column.in_(values)

    def _timestamp(self, condition: Condition) -> sa.ColumnElement[bool]:
        column = self._messages.c.timestamp
        if isinstance(condition, Range):
            return within(column, condition.bounds)
        if isinstance(condition, Absent):
            return sa.false()
        numbers = [value for value in condition.values if not isinstance(value, str | bool)]
        # Not packed into one parameter: a store may read its fractions inexactly.
        return column.in_(numbers) if len(numbers) <= _MOST_PARAMETERS else self._one_of(column, numbers)


def within(column: sa.ColumnElement[Any], bounds: Sequence[tuple[str, Any]]) -> sa.ColumnElement[bool]:
    """Whether a column is within the bounds of a `Range`."""
    compare = {"gt": column.__gt__, "gte": column.__ge__, "lt": column.__lt__, "lte": column.__le__}
    return sa.and_(*(compare[operator](bound) for operator, bound in bounds))


def single_scope(filter: Filter) -> dict[str, str] | None:
    """Return the one user and the one session that a filter fixes, if it says nothing else; None if it does."""
    scope = {key: allowed for key in (USER_KEY, SESSION_KEY) if (allowed := filter.scope(key)) is not None}
    if filter.beyond_scope or any(len(allowed) != 1 for allowed in scope.values()):
        return None
    return {key: allowed[0] or "" for key, allowed in scope.items()}
