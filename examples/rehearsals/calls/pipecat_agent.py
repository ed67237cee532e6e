"""A pipecat agent that speaks to its caller word by word, over a WebSocket, as its documentation has it."""

import asyncio

from pipecat.frames.frames import OutputTransportMessageUrgentFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.serializers.protobuf import ProtobufFrameSerializer
from pipecat.transports.websocket.server import (
    SingleClientWebsocketServerParams,
    SingleClientWebsocketServerTransport,
)
from pipecat.workers.runner import WorkerRunner


async def main() -> None:
    params = SingleClientWebsocketServerParams(serializer=ProtobufFrameSerializer())
    transport = SingleClientWebsocketServerTransport(host="localhost", port=8000, params=params)
    worker = PipelineWorker(Pipeline([transport.input(), transport.output()]))

    @transport.event_handler("on_websocket_ready")
    async def ready(*_: object) -> None:
        print("ready", flush=True)

    @transport.event_handler("on_client_connected")
    async def speak(*_: object) -> None:
        for word in ["I", "think", "so", "too."]:
            await worker.queue_frame(OutputTransportMessageUrgentFrame(message={"word": word}))
            await asyncio.sleep(0.5)

    runner = WorkerRunner(handle_sigterm=True)
    await runner.add_workers(worker)
    await runner.run()


asyncio.run(main())
