// The AI SDK subscribes to events and takes them in with its own receiver, which verifies challenge and signatures.
import { createServer } from "node:http";
import { pathToFileURL } from "node:url";
const path = pathToFileURL(`${process.env.MODULES}/@ai-sdk/mcp/dist/index.js`);
const { createMCPClient, experimental_createMCPEventWebhook } = await import(path);

const kept = new Map();
const store = {
  get: async (key) => kept.get(key),
  getById: async (id) => [...kept.values()].find((each) => each.id === id),
  set: async (subscription) => void kept.set(subscription.key, subscription),
  update: async (key, patch) => void kept.set(key, { ...kept.get(key), ...patch }),
  delete: async (key) => void kept.delete(key),
};
let arrived;
const event = new Promise((resolve) => (arrived = resolve));
const receive = experimental_createMCPEventWebhook({ store, onEvent: async ({ event }) => arrived(event) });
const origin = `http://127.0.0.1:${process.env.EVENTS_PORT}`;
const server = createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const { method, headers, url } = request;
  const answer = await receive(new Request(`${origin}${url}`, { method, headers, body: Buffer.concat(chunks) }));
  response.writeHead(answer.status, Object.fromEntries(answer.headers)).end(await answer.text());
});
server.listen(Number(process.env.EVENTS_PORT), "127.0.0.1");

const headers = { Authorization: `Bearer ${process.env.TOKEN}` };
const client = await createMCPClient({
  transport: { type: "http", url: process.env.MCP_URL, headers },
  experimental_events: { store },
});
const events = client.experimental_events;
const delivery = { mode: "webhook", url: `${origin}/hook`, allowInsecureLocalhost: true };
const made = await events.subscribe({ name: "job.finished", delivery, ttlMs: null });
const tools = await client.tools();
const prompt = `ai-sdk ${Date.now()} [emulate {"duration_s": 5}]`;
const started = await tools.agent_start.execute({ prompt, wait_s: 0 }, { toolCallId: "1", messages: [] });
const jobId = JSON.parse(started.content[0].text).job_id;
const { data } = await event;
await events.refresh({ id: made.id });
await events.unsubscribe({ id: made.id });
console.log(data.job_id === jobId ? data.status : JSON.stringify(data));
await client.close();
server.close();
process.exit(0);
