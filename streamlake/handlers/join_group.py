"""JoinGroup (11): become a member; the answer comes when the rebalance ends.

Behavior: the leader's answer lists all members and their subscriptions, the others' do not.
Version notes: no rebalance timeout in version 0 (it is the session timeout); static members from 5; from 4 on a new
member first learns its id and joins again with it (KIP-394); skip_assignment from 9 (KIP-814).
"""

from streamlake.coordinator.classic.api import GroupError, JoinRequest
from streamlake.handlers.context import Context, Exchange
from streamlake.handlers.error_codes import group_code
from streamlake.protocol.messages.join_group import JoinGroupRequest, JoinGroupResponse, JoinGroupResponseMember


async def handle(ctx: Context, exchange: Exchange) -> JoinGroupResponse:
    request: JoinGroupRequest = exchange.body
    timeout_ms = request.rebalance_timeout_ms if exchange.version >= 1 else request.session_timeout_ms
    answer = await ctx.groups.join(
        JoinRequest(
            group_id=request.group_id,
            member_id=request.member_id,
            group_instance_id=request.group_instance_id,
            client_id=exchange.client_id or "",
            client_host=exchange.client_host,
            session_timeout_ms=request.session_timeout_ms,
            rebalance_timeout_ms=timeout_ms,
            protocol_type=request.protocol_type,
            protocols=tuple((p.name, bytes(p.metadata)) for p in request.protocols),
            require_known_member_id=exchange.version >= 4,
            supports_skip_assignment=exchange.version >= 9,
            reason=request.reason or "",
        )
    )
    # Before version 7 the protocol's name may not be null.
    no_protocol = None if exchange.version >= 7 else ""
    return JoinGroupResponse(
        error_code=group_code(answer.error),
        generation_id=answer.generation,
        protocol_type=answer.protocol_type,
        protocol_name=no_protocol if answer.error is not GroupError.NONE else answer.protocol or no_protocol,
        leader=answer.leader,
        skip_assignment=answer.skip_assignment,
        member_id=answer.member_id,
        members=tuple(
            JoinGroupResponseMember(member_id=m.member_id, group_instance_id=m.group_instance_id, metadata=m.metadata)
            for m in answer.members
        ),
    )
