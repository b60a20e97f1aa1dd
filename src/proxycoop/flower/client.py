"""A member's side of a federation: a ``ClientApp`` that answers for a :class:`~proxycoop.flower.site.Site`."""

from __future__ import annotations

from collections.abc import Callable
from logging import ERROR

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.common.logger import log

from ..traversal.flower import number_of
from .messages import ACTION, Refusal, Reply, from_records, to_records
from .site import Site


def serve(app: ClientApp, site: Callable[[Context], Site], id_key: str = "partition-id") -> None:
    """Let a ``ClientApp`` answer the server of a federation; it may answer other messages too.

    What goes wrong at the site, such as a policy that was trained in another scenario, is logged there in one line, and the server is told.

    Args:
        app: The app. Its actions ``query.proxycoop`` and ``train.proxycoop`` are taken.
        site: Makes the site, from the node's context. It is called once in a process and principal.
        id_key: Where ``Context.node_config`` has the principal's number.
    """
    sites: dict[tuple[int, int], Site] = {}

    def answered(message: Message, context: Context) -> Message:
        reply: Reply
        place = -1
        try:
            place = number_of(context, id_key)
            request = from_records(message.content)
            if (place, context.run_id) not in sites:
                sites[place, context.run_id] = site(context)
            reply = sites[place, context.run_id].answer(request)  # type: ignore[arg-type]  # a site refuses replies
        except (ValueError, OSError) as error:
            reply = Refusal(place, " ".join(str(error).split()))
        if isinstance(reply, Refusal):
            log(ERROR, "%s", reply.reason)
        return Message(to_records(reply), reply_to=message)

    app.query(ACTION)(answered)
    app.train(ACTION)(answered)
