"""Commands that take every option once: a second value would replace the first without a word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

F = TypeVar("F", bound=Callable[..., Any])
_UsageError: Any = typer.BadParameter.__base__  # of click, or of the click within typer


class StrictCommand(TyperCommand):
    """A command that refuses an option's second value, unless the option may be repeated. Its errors show the value that came."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words after the command's name.

        Raises:
            UsageError: If an option is given twice that takes one value, or a value is not allowed.
        """
        parser: Any = self.make_parser(ctx)  # of click, or of the click within typer
        given, _, order = parser.parse_args(args=list(args))
        for param, times in Counter(order).items():
            one_value = param.param_type_name == "option" and not param.multiple and (not param.is_flag or param.secondary_opts)
            if one_value and times > 1 and not ctx.resilient_parsing:
                ctx.fail(f"{' / '.join([*param.opts, *param.secondary_opts])} is given {times} times: leave one")
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            came = given.get(getattr(error.param, "name", None))
            if isinstance(came, str) and repr(came) not in error.message:
                error.message = f"{error.message} (got {came!r})"
            raise


class TwoWords(TyperGroup):
    """A group in which a command's name may be two words: ``scenarios new`` beside ``scenarios``. Wrong words give one line."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The context of the words before the command's name.

        Raises:
            ValueError: If they are wrong.
        """
        with _in_one_line():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Run the command.

        Raises:
            ValueError: If there is no such command, an option lacks, or there is no such option.
        """
        with _in_one_line():
            return super().invoke(ctx)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command's name, the command, and the words after it."""
        name = " ".join(args[:2])
        if name in self.commands:
            return name, self.commands[name], args[2:]
        return super().resolve_command(ctx, args)


@contextmanager
def _in_one_line() -> Iterator[None]:
    """Raise wrong words as ``ValueError``, as all that is wrong is, in place of a box with the command's usage.

    Help that was asked for, by giving no words, stays help.
    """
    try:
        yield
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            raise
        ctx: Any = getattr(error, "ctx", None)
        words = [] if ctx is None else ctx.command_path.removeprefix(ctx.find_root().command_path).split()
        message = " ".join(error.format_message().split()).removesuffix(".")
        raise ValueError(f"{message}{'' if message.endswith('?') else ';'} see '{' '.join(['proxycoop', *words])} --help'") from None


class App(typer.Typer):
    """Commands that are all of :class:`StrictCommand`."""

    def command(self, name: str | None = None, *, epilog: str | None = None, **kwargs: Any) -> Callable[[F], F]:
        """Register a command, as ``typer.Typer.command`` does."""
        return super().command(name, epilog=epilog, **{"cls": StrictCommand, **kwargs})
