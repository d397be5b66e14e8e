// What every test of the TypeScript SDK needs: a client, and agents whose model plays a script.
// The server is given by the environment: LOOPD_URL, and the key that it wants in LOOPD_API_KEY.
'use strict';

const Anthropic = require('@anthropic-ai/sdk');

const url = process.env.LOOPD_URL;
const key = process.env.LOOPD_API_KEY;
if (!url || !key) throw new Error('LOOPD_URL and LOOPD_API_KEY name the server to test');

const client = (options = {}) => new Anthropic({ baseURL: url, apiKey: key, timeout: 60_000, ...options });

/** Sends requests as the SDK made them and keeps them; the first `lose` answers are dropped on their way back. */
function spied(lose = 0) {
  const sent = [];
  const fetch = async (address, init) => {
    sent.push({ url: String(address), headers: new Headers(init?.headers), method: init?.method });
    const response = await globalThis.fetch(address, init);
    if (lose > 0) {
      lose -= 1;
      await response.arrayBuffer();
      throw new TypeError('the connection was lost before the answer came');
    }
    return response;
  };
  return { client: client({ fetch }), sent };
}

const raw = (path, options = {}) =>
  fetch(url + path, { ...options, headers: { authorization: `Bearer ${key}`, ...options.headers } });

const toolset = { type: 'agent_toolset_20260401' };
const lookup = {
  type: 'custom',
  name: 'lookup',
  description: 'Looks an order up.',
  input_schema: { type: 'object', properties: { order: { type: 'string' } }, required: ['order'] },
};
const textMessage = (text) => ({ type: 'user.message', content: [{ type: 'text', text }] });
const bash = (command) => ({ text: 'I run it.', tools: [{ name: 'bash', input: { command } }] });

const { beta } = client();

async function agent(steps, { tools = [toolset], ...rest } = {}) {
  return beta.agents.create({ name: 'scripted', model: 'builtin/script', system: JSON.stringify({ steps, ...rest }), tools });
}

async function session(steps, { initial = [], ...rest } = {}) {
  const made = await agent(steps, rest);
  const environment = await beta.environments.create({ name: 'tests' });
  return beta.sessions.create({ agent: made.id, environment_id: environment.id, initial_events: initial });
}

const say = (id, text) => beta.sessions.events.send(id, { events: [textMessage(text)] });

/** The stream's events until one for which `done` holds; `opened` runs once the stream is open. */
async function until(id, done, { opened, onEvent, ...params } = {}) {
  const stream = await beta.sessions.events.stream(id, params);
  const seen = [];
  await opened?.();
  for await (const event of stream) {
    seen.push(event);
    await onEvent?.(event);
    if (done(event)) return seen;
  }
  throw new Error(`the stream ended before that: ${seen.map((event) => event.type)}`);
}

const idle = (event) => event.type === 'session.status_idle';
const ended = (event) => idle(event) && event.stop_reason.type === 'end_turn';
const untilIdle = (id, params) => until(id, idle, params);

async function all(pages) {
  const rows = [];
  for await (const row of pages) rows.push(row);
  return rows;
}

const kinds = (events) => events.map((event) => event.type);
const said = (events) =>
  events.filter((e) => e.type === 'agent.message').flatMap((e) => e.content).map((block) => block.text).join('');

module.exports = {
  Anthropic, all, agent, bash, beta, client, ended, idle, key, kinds, lookup, raw, said, say, session, spied, textMessage,
  toolset, until, untilIdle, url,
};
