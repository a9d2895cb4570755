// The second generation of the TypeScript SDK, in the era that its argument names.
import { pathToFileURL } from "node:url";
const path = pathToFileURL(`${process.env.MODULES}/@modelcontextprotocol/client/dist/index.mjs`);
const { Client, StreamableHTTPClientTransport } = await import(path);

const headers = { Authorization: `Bearer ${process.env.TOKEN}` };
const transport = new StreamableHTTPClientTransport(new URL(process.env.MCP_URL), { requestInit: { headers } });
const options = process.argv[2] ? { versionNegotiation: { mode: process.argv[2] } } : {};
const client = new Client({ name: "typescript-client", version: "1" }, options);
await client.connect(transport);
const text = (result) => JSON.parse(result.content[0].text);
const prompt = `typescript-client ${Date.now()} [emulate {"duration_s": 60}]`;
const started = text(await client.callTool({ name: "agent_start", arguments: { prompt, wait_s: 0 } }));
console.log("started");
const poll = { name: "agent_poll", arguments: { job_id: started.job_id, wait_s: 40 } };
console.log(text(await client.callTool(poll, { timeout: 60000 })).status);
await client.close();
