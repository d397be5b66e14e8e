// A durable agent loop on Restate: one `ctx.run` for every model call and one for every tool call.
//
// `node restate.mjs <port>` serves the handler `agent/turn`, which takes `{tool, steps}` and answers `{calls}`. The
// provider is named by OPENAI_BASE_URL and reads tool and steps from the model's name.

import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { promisify } from "node:util";
import * as restate from "@restatedev/restate-sdk";
import OpenAI from "openai";

// The SDK needs this since 1.14; Node has it from version 22 on.
Promise.withResolvers ??= function () {
  const parts = {};
  parts.promise = new this((resolve, reject) => Object.assign(parts, { resolve, reject }));
  return parts;
};

const run = promisify(execFile);
const client = new OpenAI();

const TOOLS = {
  read: ({ file_path }) => readFile(file_path, "utf8"),
  bash: async ({ command }) => (await run("bash", ["-c", command])).stdout,
};
const ARGUMENT = { read: "file_path", bash: "command" };

function schema(name) {
  const argument = ARGUMENT[name];
  const parameters = { type: "object", properties: { [argument]: { type: "string" } }, required: [argument] };
  return { type: "function", function: { name, description: name, parameters } };
}

async function ask(request) {
  const completion = await client.chat.completions.create(request);
  return completion.choices[0].message;
}

async function turn(ctx, { tool, steps }) {
  const messages = [
    { role: "system", content: "You are a benchmark." },
    { role: "user", content: "go" },
  ];
  let calls = 0;
  for (;;) {
    const request = { model: `${tool}-${steps}`, messages, tools: [schema(tool)] };
    const answer = await ctx.run("model", () => ask(request));
    messages.push(answer);
    if (!answer.tool_calls?.length) {
      return { calls };
    }
    for (const call of answer.tool_calls) {
      const { name, arguments: text } = call.function;
      const content = await ctx.run("tool", () => TOOLS[name](JSON.parse(text)));
      messages.push({ role: "tool", tool_call_id: call.id, content });
      calls += 1;
    }
  }
}

const agent = restate.service({ name: "agent", handlers: { turn } });
await restate.serve({ services: [agent], port: Number(process.argv[2]) });
