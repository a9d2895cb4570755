// The TypeScript SDK's client with @modelcontextprotocol/ext-tasks: one call per argument, every dialog accepted.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [modules, python, ...calls] = process.argv.slice(2);
const require = createRequire(`${modules}/`);
const load = (name) => import(pathToFileURL(require.resolve(name)));
const { Client } = await load("@modelcontextprotocol/client");
const { StdioClientTransport } = await load("@modelcontextprotocol/client/stdio");
const { createTaskSessionFromClient, resultFromTaskOutcome } = await import(
  pathToFileURL(`${modules}/@modelcontextprotocol/ext-tasks/dist/client/index.js`)
);

const clientInfo = { name: "ext-tasks", version: "1" };
const clientCapabilities = { extensions: { "io.modelcontextprotocol/tasks": {} }, elicitation: { form: {} } };
const transport = new StdioClientTransport({ command: python, args: ["-m", "agent_jobs"], env: process.env });
const client = new Client(clientInfo, { capabilities: clientCapabilities, versionNegotiation: { mode: "modern" } });
await client.connect(transport);

// The SDK's client refuses results of the type "task", so these requests go past it.
const waiting = new Map();
const receive = transport.onmessage;
transport.onmessage = (message, extra) => {
  const resolve = waiting.get(message.id);
  if (resolve === undefined) return receive?.(message, extra);
  waiting.delete(message.id);
  resolve(message);
};
let sent = 0;
const rawDispatch = (request) =>
  new Promise((resolve, reject) => {
    const id = `raw-${++sent}`;
    waiting.set(id, resolve);
    transport.send({ ...request, jsonrpc: "2.0", id }).catch(reject);
  });

const session = createTaskSessionFromClient(client, {
  endpointId: "agent-jobs",
  rawDispatch,
  v2RequestFraming: { protocolVersion: "2026-07-28", clientInfo, clientCapabilities },
  onInputRequest: async () => ({ action: "accept", content: {} }),
});
for (const call of calls) {
  const [tool, args] = JSON.parse(call);
  const { outcome } = await (await session.callTool(tool, args)).settle();
  console.log(resultFromTaskOutcome(outcome).content[0].text);
}
await session.close();
await client.close();
