"""Heartbeat (12): a member is alive, and learns of a rebalance.

Version notes: static members from version 3.
"""

from streamlake.handlers.context import Context, Exchange
from streamlake.handlers.error_codes import group_code
from streamlake.protocol.messages.heartbeat import HeartbeatRequest, HeartbeatResponse


async def handle(ctx: Context, exchange: Exchange) -> HeartbeatResponse:
    request: HeartbeatRequest = exchange.body
    error = ctx.groups.heartbeat(request.group_id, request.member_id, request.group_instance_id, request.generation_id)
    return HeartbeatResponse(error_code=group_code(error))
