// An agent on Node: it answers over HTTP, word by word, and finishes its answers when it is stopped.
import { createServer } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

const server = createServer(async (request, response) => {
  for (const word of ["I\n", "think\n", "so\n", "too.\n"]) {
    response.write(word);
    await sleep(500);
  }
  response.end();
});
server.listen(8000);
for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => server.close());
