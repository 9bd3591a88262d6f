"""Random operations on all stores at once give the same answers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import hypothesis
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from dynamiq_memory import MemoryBackend
from dynamiq_memory.backends.operations import Operation, Search, Sessions
from dynamiq_memory.messages import key_of
from dynamiq_memory.testing.stateful import BackendMachine
from tests.trust.stores import STORES, opened
from tests.trust.tally import Checks, Opened, Tally

T = TypeVar("T")
STEPS = 20


class Together(MemoryBackend):
    """Performs each operation on several stores, and requires the same answer of all.

    Args:
        stores: The stores by their names.
    """

    def __init__(self, stores: dict[str, MemoryBackend]) -> None:
        super().__init__()
        self.stores = stores
        self.performed = 0

    def _perform(self, operation: Operation[T]) -> T:
        answers = {name: store.execute(operation) for name, store in self.stores.items()}
        compared = {name: _comparable(operation, answer) for name, answer in answers.items()}
        self.performed += len(answers)
        first, *others = compared
        for name in others:
            assert compared[name] == compared[first], f"{operation}: {name} answers {answers[name]}, {first} otherwise"
        return answers[first]


def _comparable(operation: Operation[Any], answer: Any) -> Any:
    """What must be the same: not the scores, by which stores may order equal matches differently."""
    if isinstance(operation, Search):
        return len(answer) if operation.limit else sorted(map(str, map(key_of, answer)))
    if isinstance(operation, Sessions):
        return sorted(map(repr, answer))
    return answer


@contextmanager
def together(folder: Path, names: Sequence[str] = STORES) -> Opened:
    """A check of several stores."""
    with ExitStack() as stack:
        backend = Together({name: stack.enter_context(opened(name, folder)) for name in names})

        def check(random: Random, examples: int = 1) -> Tally:
            before = backend.performed
            machine = hypothesis.seed(random.getrandbits(32))(type("Machine", (BackendMachine,), {"backend": backend}))
            chosen = settings(
                max_examples=examples,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                print_blob=False,
                suppress_health_check=list(HealthCheck),
            )
            run_state_machine_as_test(machine, settings=chosen)
            return Tally(runs=examples, operations=backend.performed - before)

        yield check


CHECKS: Checks = {"all stores at once": together}
