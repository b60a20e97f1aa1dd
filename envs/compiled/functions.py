"""A function of records, traced once and compiled by :func:`torch.compile`.

Tracing runs the function's own code on real tensors and writes down the operations (:func:`torch.fx.experimental.proxy_tensor.make_fx`).
So whatever runs can be compiled, ``nn.Module`` models among it, as long as its course does not depend on the data: see
:mod:`~proxycoop.envs.compiled.assumptions`. Tensors that the function does not get as arguments are constants of the compiled code.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from .assumptions import all_of, assuming
from .trees import Shape


class CompiledFunction:
    """A function of a list of tensors to a tree, compiled.

    Args:
        function: From tensors to a tree of tensors; see :mod:`~proxycoop.envs.compiled.trees`. It must not write into the tensors.
        cautious: Whether it takes nothing for granted.
        example: Tensors like those that it will be called with: the same shapes, types and device.

    Raises:
        ValueError: If the function's course depends on the data, so that it cannot be traced.
    """

    def __init__(self, function: Callable[[Sequence[Tensor]], Any], example: Sequence[Tensor], *, cautious: bool = False) -> None:
        device = example[0].device
        # what is one tensor now may be two at another call, and lie otherwise in memory
        example = [tensor.detach().clone(memory_format=torch.contiguous_format) for tensor in example]
        shape: list[Shape] = []

        def flat(*tensors: Tensor) -> list[Tensor]:
            found: list[Tensor] = []
            with assuming(cautious) as assumed:
                shape[:] = [Shape.of(function(tensors), found)]
            return [all_of(assumed, device), *(tensor.contiguous() for tensor in found)]

        try:
            traced = make_fx(flat)(*example)
        except (RuntimeError, TypeError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise ValueError(f"its course depends on the data, or cannot be traced ({reason})") from error
        (self._shape,) = shape
        self._on_cuda = device.type == "cuda"
        inputs = [node for node in traced.graph.nodes if node.op == "placeholder"]
        (output,) = (node for node in traced.graph.nodes if node.op == "output")
        answers = list(output.args[0])
        computed = list(dict.fromkeys(node for node in answers if node.op != "placeholder"))
        # what goes in as it comes out needs no function: (whether it is an input, its place)
        self._from = [(node.op == "placeholder", (inputs if node.op == "placeholder" else computed).index(node)) for node in answers[1:]]
        output.args = (computed,)
        _for_compiler(traced.graph)
        traced.graph.eliminate_dead_code()
        self._used = [place for place, node in enumerate(inputs) if node.users]
        for node in inputs:
            if not node.users:
                traced.graph.erase_node(node)
        traced.recompile()
        self._run = _compiled(traced, self._on_cuda)
        with _silent():
            self._run(*[example[place] for place in self._used])  # compiles

    def __call__(self, tensors: Sequence[Tensor]) -> Any:
        """The function's answer, or ``None`` where something that it takes for granted did not hold."""
        if self._on_cuda:
            torch.compiler.cudagraph_mark_step_begin()
        given = [tensors[place] for place in self._used]
        computed = self._run(*[tensor if tensor.is_contiguous() else tensor.contiguous() for tensor in given])
        if not computed[0]:
            return None
        if self._on_cuda:  # a graph's next run writes over what it answered
            computed = [tensor.clone() for tensor in computed]
        return self._shape.filled([tensors[place] if is_input else computed[place] for is_input, place in self._from])


def _for_compiler(graph: fx.Graph) -> None:
    """Write what depends on how tensors lie in memory so that it does not: the compiler lays them out otherwise.

    A view becomes a reshape, and what an operation was told to write into a view (``out=``) is copied there.
    """
    for node in list(graph.nodes):
        if node.op == "call_function" and "out" in node.kwargs:
            others = {name: part for name, part in node.kwargs.items() if name != "out"}
            with graph.inserting_before(node):
                made = graph.call_function(node.target.overloadpacket, node.args, others)
                copied = graph.call_function(torch.ops.aten.copy_.default, (node.kwargs["out"], made))
            node.replace_all_uses_with(copied)
            graph.erase_node(node)
        elif node.target in (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default):
            node.target = torch.ops.aten.reshape.default


def _compiled(traced: fx.GraphModule, on_cuda: bool) -> Callable[..., Sequence[Tensor]]:
    """The traced function, compiled when it is first called. What it is called with is known, so nothing guards it."""
    options: dict[str, Any] = {"triton.cudagraphs": True} if on_cuda else {"cpp_wrapper": True}
    if hasattr(torch.compiler, "skip_all_guards_unsafe"):
        options["guard_filter_fn"] = torch.compiler.skip_all_guards_unsafe
    compiled: Callable[..., Sequence[Tensor]] = torch.compile(traced.forward, fullgraph=True, dynamic=False, options=options)
    return compiled


@contextmanager
def _silent() -> Iterator[None]:
    """Without what torch says while it compiles."""
    loggers = [logging.getLogger(name) for name in ("torch._dynamo", "torch._inductor", "torch._functorch")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
