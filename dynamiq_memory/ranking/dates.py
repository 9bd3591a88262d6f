"""Dates that a question names, to prefer messages of that time.

English and ISO dates are known: "on 5 May 2023", "in March", "2023-05", "in 2022", "yesterday", "last Friday", "on
Friday", "last week", "three months ago".
"""

from __future__ import annotations

import calendar
import datetime as dt
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dynamiq_memory.messages import Message
from dynamiq_memory.ranking.scores import DATE, Score, parts_of

_MONTHS = {name.lower(): number for number, name in enumerate(calendar.month_name) if name}
_MONTHS |= {name.lower(): number for number, name in enumerate(calendar.month_abbr) if name} | {"sept": 9}
_DAYS = {name.lower(): number for number, name in enumerate(calendar.day_name)}
_NUMBERS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "a couple of": 2}
_UNITS = {"day": 1, "week": 7, "month": 30, "year": 365}

_MONTH = rf"(?P<month>{'|'.join(sorted(_MONTHS, key=len, reverse=True))})\.?"
_DAY = r"(?P<day>[0-3]?\d)(?:st|nd|rd|th)?"
_YEAR = r"(?P<year>(?:19|20)\d\d)"
_NAMED = [
    re.compile(rf"\b{_YEAR}-(?P<number>[01]\d)(?:-(?P<day>[0-3]\d))?\b"),
    re.compile(rf"\b{_DAY}(?: of)? {_MONTH}(?:,? {_YEAR})?\b", re.IGNORECASE),
    re.compile(rf"\b{_MONTH} {_DAY}\b(?:,? {_YEAR}\b)?", re.IGNORECASE),
    re.compile(rf"\b{_MONTH},? (?:of )?{_YEAR}\b", re.IGNORECASE),
    # "may" and "march" alone are rather verbs.
    re.compile(rf"\b(?:in|of|during|since|until|by|last|this) (?:early |mid-?|late )?{_MONTH}(?=\W|$)", re.IGNORECASE),
    re.compile(rf"\b(?:in|of|during|since|until|by) {_YEAR}\b", re.IGNORECASE),
]
_AGO = re.compile(rf"\b(?P<number>\d{{1,3}}|{'|'.join(_NUMBERS)}) (?P<unit>{'|'.join(_UNITS)})s? ago\b", re.IGNORECASE)
_LAST = re.compile(
    rf"\b(?:last|past|(?:on|this|since)(?= (?:{'|'.join(_DAYS)})\b)) "
    rf"(?P<what>{'|'.join([*_DAYS, 'week', 'weekend', 'month', 'year'])})\b",
    re.IGNORECASE,
)
_NEAR = re.compile(
    r"\b(day before yesterday|yesterday|last night|today|tonight|this (?:morning|week|month|year))\b", re.IGNORECASE
)
# How many of the messages that fit best are looked at for their dates.
LOOKED_AT = 200
# How much the score of a message of that time counts. Fused scores are closer to each other.
WORDS_FACTOR, FUSED_FACTOR = 1.5, 1.25


@dataclass(frozen=True, slots=True)
class Period:
    """Some days: from one to another, or those of a year, a month or a day that are named, in any year if that is not.

    Attributes:
        first: The first day; None where days are named.
        last: The last day, included.
        year: The year.
        month: The month, from 1 to 12.
        day: The day of the month.
    """

    first: dt.date | None = None
    last: dt.date | None = None
    year: int | None = None
    month: int | None = None
    day: int | None = None

    def has(self, date: dt.date) -> bool:
        """Whether a day is one of them."""
        if self.first is not None and self.last is not None:
            return self.first <= date <= self.last
        parts = ((self.year, date.year), (self.month, date.month), (self.day, date.day))
        return all(named is None or named == part for named, part in parts)


def with_dates(messages: Sequence[Message], periods: Sequence[Period], zone: dt.tzinfo, factor: float) -> list[Message]:
    """Raise the scores of messages of the time that a question names, and order them again.

    Args:
        messages: Messages with scores, best first.
        periods: The time.
        zone: The user's time zone.
        factor: The factor of their scores.
    """
    for message in messages:
        date = date_of(message.timestamp or 0.0, zone)
        if date is not None and any(period.has(date) for period in periods):
            score = message.score or 0.0
            message.score = Score(score * factor, {**parts_of(score), DATE: score * (factor - 1)})
    return sorted(messages, key=lambda message: message.score or 0.0, reverse=True)


def date_of(timestamp: float, zone: dt.tzinfo) -> dt.date | None:
    """Return the day of a timestamp; None if no calendar has it."""
    try:
        return dt.datetime.fromtimestamp(timestamp, zone).date()
    except (OverflowError, OSError, ValueError):
        return None


def periods_of(question: str, today: dt.date) -> list[Period]:
    """Find the dates that a question names.

    Args:
        question: The question.
        today: The day on which it is asked.
    """
    return [*_named(question), *_relative(question, today)]


def _named(question: str) -> Iterator[Period]:
    for pattern in _NAMED:
        for match in pattern.finditer(question):
            parts = match.groupdict()
            month = _MONTHS[parts["month"].lower()] if parts.get("month") else int(parts.get("number") or 0)
            year, day = (int(parts[name]) if parts.get(name) else None for name in ("year", "day"))
            if month <= 12 and (day is None or 1 <= day <= 31):
                yield Period(year=year, month=month or None, day=day)
        question = pattern.sub(" ", question)  # a part of a date is not a date


def _relative(question: str, today: dt.date) -> Iterator[Period]:
    for match in _AGO.finditer(question):
        number, unit = match["number"].lower(), _UNITS[match["unit"].lower()]
        days = unit * (_NUMBERS.get(number) or int(number))
        if days < today.toordinal():
            yield _around(today - dt.timedelta(days=days), unit // 2)
    for match in _LAST.finditer(question):
        what = match["what"].lower()
        if what in _DAYS:
            back = (today.weekday() - _DAYS[what] - 1) % 7 + 1
            yield _around(today - dt.timedelta(days=back), 0)
        elif what == "year":
            yield Period(year=today.year - 1)
        elif what == "month":
            before = today.replace(day=1) - dt.timedelta(days=1)
            yield Period(year=before.year, month=before.month)
        else:
            monday = today - dt.timedelta(days=today.weekday() + 7)
            yield Period(monday + dt.timedelta(days=5 if what == "weekend" else 0), monday + dt.timedelta(days=6))
    for match in _NEAR.finditer(question):
        what = match[0].lower().removeprefix("this ")
        since = {"week": today.weekday(), "month": today.day - 1, "year": today.timetuple().tm_yday - 1}
        since |= {"day before yesterday": 2, "yesterday": 1, "last night": 1}
        first = today - dt.timedelta(days=since.get(what, 0))
        yield Period(first, first if "yesterday" in what else today)


def _around(date: dt.date, days: int) -> Period:
    return Period(date - dt.timedelta(days=days), date + dt.timedelta(days=days))
