"""Functions whose annotations are text: some name what is imported for type checkers only, or defined further down."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chicory import TaskContext as Ours

if TYPE_CHECKING:
    from decimal import Decimal as OnlyForCheckers

    from chicory import TaskContext


def imported(ctx: Ours, x: int) -> int: ...


def imported_for_checkers_only(ctx: TaskContext, x: int) -> int: ...


def quoted(ctx: TaskContext, x: int) -> int: ...


def without_context(x: int) -> int: ...


def context_in_second_place(x: int, ctx: Ours) -> int: ...


def named_like_a_context(ctx: int) -> int: ...


def takes_what_is_defined_later(order: Later) -> list[Later]: ...


def takes_what_is_never_defined(order: Never) -> None: ...


def takes_what_only_checkers_import(price: OnlyForCheckers) -> None: ...


def register_early(app):
    """Two tasks of *app*: one with a type that is defined in here later, one with a type that never is."""

    @app.task(name="early")
    def early(order: Local) -> Local: ...

    @app.task(name="hopeless")
    def hopeless(order: Nowhere) -> None: ...

    return early, hopeless


from pydantic import BaseModel  # noqa: E402


class Later(BaseModel):
    number: int
