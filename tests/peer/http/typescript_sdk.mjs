// The first generation of the TypeScript SDK.
import { createRequire } from "node:module";
const require = createRequire(process.env.MODULES + "/");
const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
const { StreamableHTTPClientTransport } = require("@modelcontextprotocol/sdk/client/streamableHttp.js");

const headers = { Authorization: `Bearer ${process.env.TOKEN}` };
const transport = new StreamableHTTPClientTransport(new URL(process.env.MCP_URL), { requestInit: { headers } });
const client = new Client({ name: "typescript-sdk", version: "1" });
await client.connect(transport);
const text = (result) => JSON.parse(result.content[0].text);
const prompt = `typescript-sdk ${Date.now()} [emulate {"duration_s": 60}]`;
const started = text(await client.callTool({ name: "agent_start", arguments: { prompt, wait_s: 0 } }));
console.log("started");
const poll = { name: "agent_poll", arguments: { job_id: started.job_id, wait_s: 40 } };
console.log(text(await client.callTool(poll, undefined, { timeout: 60000 })).status);
await client.close();
