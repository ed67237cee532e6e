"""A minimal LiveKit server: as much as one call needs.

It uses the real protocols. A worker registers at `/agent` and is assigned a call. The call's process joins the room at
`/rtc`, with a WebRTC connection that aiortc answers, and finds one caller there, who leaves on `POST /hangup`. With the
argument `idle` there is no call.

Prints its port when it listens, then one line per event.
"""

# mypy: disable-error-code="import-not-found"
# Its imports are installed only in its own environment.

import asyncio
import json
import sys
import time

from aiohttp import WSMsgType, web
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.sdp import candidate_from_sdp
from livekit.protocol import agent, models, rtc

ROOM = models.Room(sid="RM_1", name="call")
JOB = agent.Job(id="AJ_1", type=agent.JobType.JT_ROOM, room=ROOM)
CALLER = models.ParticipantInfo(sid="PA_1", identity="caller", state=models.ParticipantInfo.State.ACTIVE)
AGENT = models.ParticipantInfo(sid="PA_2", identity="agent", state=models.ParticipantInfo.State.JOINED)
SERVER = models.ServerInfo(version="1.9.0", protocol=15)
SUBSCRIBER = 1  # target of a trickle message: the connection over which the server sends

hung_up = asyncio.Event()


def log(event: str) -> None:
    print(event, flush=True)


def now() -> int:
    return int(time.time() * 1000)


async def worker(request: web.Request) -> web.WebSocketResponse:
    """Workers register here and get their jobs."""
    socket = web.WebSocketResponse()
    await socket.prepare(request)

    async def send(**message: object) -> None:
        await socket.send_bytes(agent.ServerMessage(**message).SerializeToString())

    async for frame in socket:
        if frame.type != WSMsgType.BINARY:
            continue
        message = agent.WorkerMessage.FromString(frame.data)
        match message.WhichOneof("message"):
            case "register":
                log("worker registered")
                await send(register=agent.RegisterWorkerResponse(worker_id="AW_1", server_info=SERVER))
                if "idle" not in sys.argv[1:]:
                    await send(availability=agent.AvailabilityRequest(job=JOB))
            case "availability":
                log(f"worker available: {message.availability.available}")
                await send(assignment=agent.JobAssignment(job=JOB, token="token"))
            case "update_job":
                log(f"job {agent.JobStatus.Name(message.update_job.status)}")
            case "update_worker":
                log(f"worker {agent.WorkerStatus.Name(message.update_worker.status)}")
            case "ping":
                await send(pong=agent.WorkerPong(last_timestamp=message.ping.timestamp, timestamp=now()))
    log("worker gone")
    return socket


async def room(request: web.Request) -> web.WebSocketResponse:
    """The agent of a call joins its room here."""
    socket = web.WebSocketResponse()
    await socket.prepare(request)

    async def send(**message: object) -> None:
        await socket.send_bytes(rtc.SignalResponse(**message).SerializeToString())

    await send(
        join=rtc.JoinResponse(
            room=ROOM,
            participant=AGENT,
            other_participants=[CALLER],
            server_version=SERVER.version,
            server_info=SERVER,
            subscriber_primary=True,
            ping_interval=10,
            ping_timeout=60,
        )
    )
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    peer.createDataChannel("_reliable")
    await peer.setLocalDescription(await peer.createOffer())
    await send(offer=rtc.SessionDescription(type="offer", sdp=peer.localDescription.sdp))

    async def leave() -> None:
        await hung_up.wait()
        gone = models.ParticipantInfo()
        gone.CopyFrom(CALLER)
        gone.state = models.ParticipantInfo.State.DISCONNECTED
        gone.disconnect_reason = models.DisconnectReason.CLIENT_INITIATED
        await send(update=rtc.ParticipantUpdate(participants=[gone]))
        log("caller gone")

    leaving = asyncio.create_task(leave())
    async for frame in socket:
        if frame.type != WSMsgType.BINARY:
            continue
        message = rtc.SignalRequest.FromString(frame.data)
        match message.WhichOneof("message"):
            case "answer":
                await peer.setRemoteDescription(RTCSessionDescription(message.answer.sdp, "answer"))
            case "trickle" if message.trickle.target == SUBSCRIBER:
                fields = json.loads(message.trickle.candidateInit)
                candidate = candidate_from_sdp(fields["candidate"].removeprefix("candidate:"))
                candidate.sdpMid, candidate.sdpMLineIndex = fields["sdpMid"], fields["sdpMLineIndex"]
                await peer.addIceCandidate(candidate)
            case "ping":
                await send(pong=now())
            case "ping_req":
                await send(pong_resp=rtc.Pong(last_ping_timestamp=message.ping_req.timestamp, timestamp=now()))
            case "leave":
                log("agent left the room")
    leaving.cancel()
    await peer.close()
    return socket


async def hangup(request: web.Request) -> web.Response:
    hung_up.set()
    return web.Response()


async def main() -> None:
    app = web.Application()
    app.router.add_get("/agent", worker)
    app.router.add_get("/rtc", room)
    app.router.add_post("/hangup", hangup)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    log(str(runner.addresses[0][1]))
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
