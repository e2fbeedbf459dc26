"""LeaveGroup (13): members go at once instead of timing out.

Version notes: one member until version 2, a batch with results of their own from 3.
"""

from streamlake.coordinator.classic.api import GroupError, LeavingMember
from streamlake.handlers.context import Context, Exchange
from streamlake.handlers.error_codes import group_code
from streamlake.protocol.messages.leave_group import LeaveGroupRequest, LeaveGroupResponse, MemberResponse


async def handle(ctx: Context, exchange: Exchange) -> LeaveGroupResponse:
    request: LeaveGroupRequest = exchange.body
    if exchange.version < 3:
        leaving: tuple[LeavingMember, ...] = (LeavingMember(request.member_id, None),)
    else:
        leaving = tuple(LeavingMember(m.member_id, m.group_instance_id, m.reason or "") for m in request.members)
    error, results = await ctx.groups.leave(request.group_id, leaving)
    if exchange.version < 3:
        (only,) = results or (GroupError.NONE,)
        return LeaveGroupResponse(error_code=group_code(only if error is GroupError.NONE else error))
    return LeaveGroupResponse(
        error_code=group_code(error),
        members=tuple(
            MemberResponse(member_id=m.member_id, group_instance_id=m.group_instance_id, error_code=group_code(result))
            for m, result in zip(leaving, results, strict=False)
        ),
    )
