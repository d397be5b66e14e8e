// Every field of every object and event is in the JSON that the SDK is given, by the table of `fields.json`.
'use strict';

const assert = require('node:assert/strict');
const http = require('node:http');
const { test } = require('node:test');
const { Anthropic, all, beta, client, idle, lookup, session, textMessage, toolset } = require('./common.cjs');
const { hasAll, table } = require('./fields.cjs');

const ask = { permission_policy: { type: 'always_ask' } };
const allow = { permission_policy: { type: 'always_allow' } };
// Types of events that the wire format names, previews among them.
const events = Object.keys(table).filter((row) => /^((user|system|agent|session|span)\.|event_)/.test(row));
const variable = (name, networking) => ({
  type: 'environment_variable', secret_name: name, secret_value: '0123456789', networking,
});

/** The JSON of an answer, as it came. */
const json = async (asked) => (await asked.asResponse()).json();

/** An MCP server with one tool, on a port of this machine. */
async function toolServer(t) {
  const results = {
    initialize: { protocolVersion: '2025-06-18', capabilities: { tools: {} }, serverInfo: { name: 'tests', version: '1' } },
    'tools/list': { tools: [{ name: 'echo', description: 'Says it again.', inputSchema: { type: 'object' } }] },
    'tools/call': { content: [{ type: 'text', text: 'echo' }] },
  };
  const server = http.createServer(async (request, response) => {
    let text = '';
    for await (const chunk of request) text += chunk;
    const { id, method } = JSON.parse(text || '{}');
    if (id === undefined) return response.writeHead(202).end();
    response.writeHead(200, { 'content-type': 'application/json' });
    return response.end(JSON.stringify({ jsonrpc: '2.0', id, result: results[method] }));
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  return `http://127.0.0.1:${server.address().port}/mcp`;
}

const call = (name, input = {}) => ({ name, input });
// One answer of the model each: tools of every kind, one of which fails; an answer after a provider that was busy once;
// a call that is interrupted; a refusal; and a provider that will not.
const steps = [
  {
    thinking: 'hm',
    text: 'I do it.',
    tools: [
      call('bash', { command: 'echo hi' }), call('read', { file_path: '/no/such' }), call('mcp__tests__echo'),
      call('write', { file_path: 'a', content: 'a' }), call('write', { file_path: 'b', content: 'b' }),
      call('lookup', { order: '7' }),
    ],
  },
  { text: 'done', fault: { class: 'overloaded', status: 529, retry_after_ms: 10, message: 'busy', times: 1 } },
  { tools: [call('lookup', { order: '8' })] },
  { text: 'I will not.', stop: 'refusal' },
  { fault: { class: 'authentication', status: 401, message: 'no such key' } },
];

/** A session that has seen every event, and its stream as the SDK read it. */
async function tour(t) {
  const servers = Object.entries({ tests: await toolServer(t), absent: 'http://127.0.0.1:9/mcp' });
  const ofServers = servers.map(([name]) => ({
    type: 'mcp_toolset', mcp_server_name: name, default_config: allow, configs: [{ name: 'echo' }],
  }));
  const agent = await beta.agents.create({
    name: 'scripted',
    model: 'builtin/script',
    system: JSON.stringify({ steps }),
    tools: [{ ...toolset, configs: [{ name: 'write', ...ask }] }, lookup, ...ofServers],
    mcp_servers: servers.map(([name, url]) => ({ type: 'url', name, url })),
  });
  const environment = await beta.environments.create({ name: 'tests' });
  const { id } = await beta.sessions.create({ agent: agent.id, environment_id: environment.id });
  const stream = await beta.sessions.events.stream(id, { event_deltas: ['agent.message'] });
  const frames = stream[Symbol.asyncIterator]();
  const seen = [];
  /** The events up to the next rest, after these. */
  const send = async (...sent) => {
    for (const event of (await json(beta.sessions.events.send(id, { events: sent }))).data) {
      // What waits has no time yet; it says so.
      hasAll({ ...event, processed_at: event.processed_at === null ? 'later' : event.processed_at }, event.type);
    }
    const turn = [];
    do turn.push((await frames.next()).value); while (!idle(turn.at(-1)));
    seen.push(...turn);
    return turn;
  };
  const confirm = (use, result, rest) => send({ type: 'user.tool_confirmation', tool_use_id: use.id, result, ...rest });

  const turn = await send(textMessage('go'), { type: 'system.message', content: [{ type: 'text', text: 'note' }] });
  const [yes, no] = turn.filter((e) => e.evaluated_permission === 'ask');
  const order = turn.find((e) => e.type === 'agent.custom_tool_use');
  await confirm(yes, 'allow');
  await confirm(no, 'deny', { deny_message: 'not that' });
  const answer = { type: 'user.custom_tool_result', custom_tool_use_id: order.id, content: [{ type: 'text', text: 'x' }] };
  assert.equal((await send(answer)).at(-1).stop_reason.type, 'end_turn');
  await send(textMessage('wait'));
  await send({ type: 'user.interrupt' });
  const rest = (await send(textMessage('worse'))).at(-1);
  assert.deepEqual([rest.stop_reason.type, rest.stop_details.type], ['refusal', 'refusal']);
  assert.equal((await send(textMessage('more'))).at(-1).stop_reason.type, 'retries_exhausted');
  stream.controller.abort();
  await beta.sessions.update(id, { title: 'named', metadata: { k: 'v' }, agent: { tools: [toolset], mcp_servers: [] } });
  await beta.sessions.archive(id);
  return { id, seen };
}

test('every field of every event', async (t) => {
  const { id, seen } = await tour(t);
  const { data } = hasAll(await json(beta.sessions.events.list(id, { limit: 1000 })), 'page');
  for (const event of [...seen, ...data]) if (!event.type.startsWith('loopd.')) hasAll(event, event.type);
  const found = new Set([...seen, ...data].map((event) => event.type));
  assert.deepEqual(events.filter((type) => !found.has(type)), ['session.deleted']);
  const faults = data.filter((event) => event.type === 'agent.tool_result').map((event) => event.is_error);
  assert.deepEqual(faults.sort(), [false, false, true, true, true], 'no file, denied, interrupted');
  assert.equal(data.find((event) => event.result === 'deny').deny_message, 'not that');
  const errors = data.filter((event) => event.error).map(({ error }) => `${error.type} ${error.retry_status.type}`);
  for (const error of ['model_overloaded_error retrying', 'model_request_failed_error exhausted']) {
    assert.ok(errors.includes(error), String(errors));
  }

  const threads = hasAll(await json(beta.sessions.threads.list(id)), 'page').data;
  const of = { session_id: id };
  const thread = await json(beta.sessions.threads.retrieve(threads[0].id, of));
  for (const one of [...threads, thread]) hasAll(one, 'session_thread');
  hasAll(await json(beta.sessions.threads.events.list(thread.id, of)), 'page');
  hasAll(await json(beta.sessions.retrieve(id)), 'session');
});

test('every field of the last event', async () => {
  const { id } = await session([{ text: 'never' }]);
  const stream = await beta.sessions.events.stream(id);
  await beta.sessions.delete(id);
  const last = (await all(stream)).at(-1);
  assert.equal(hasAll(last, 'session.deleted').type, 'session.deleted');
});

/** What making, retrieving and listing show. */
async function rows(resource, row, made, { page = 'page', own = [], of } = {}) {
  const found = await json(resource.retrieve(made.id, of));
  const { data } = hasAll(await json(resource.list(...own)), page);
  assert.ok(data.length > 0);
  for (const each of [made, found, ...data]) hasAll(each, row);
}

test('every field of every object', async () => {
  const { agents, environments, sessions, vaults } = beta;
  const ofServer = { type: 'mcp_toolset', mcp_server_name: 'm', configs: [{ name: 'echo', enabled: false }] };
  const agent = await json(agents.create({
    name: 'full',
    model: 'builtin/shell',
    tools: [toolset, lookup, ofServer],
    mcp_servers: [{ type: 'url', name: 'm', url: 'http://127.0.0.1:9/mcp' }],
  }));
  assert.deepEqual([agent.tools.length, agent.mcp_servers.length], [3, 1]);
  await rows(agents, 'agent', agent);
  hasAll(await json(agents.update(agent.id, { version: 1, name: 'new' })), 'agent');
  for (const version of hasAll(await json(agents.versions.list(agent.id)), 'page').data) hasAll(version, 'agent');

  const limited = { type: 'cloud', networking: { type: 'limited', allowed_hosts: ['example.com'] } };
  await rows(environments, 'environment', await json(environments.create({ name: 'tests' })));
  const place = await json(environments.create({ name: 'tests', config: limited }));
  await rows(environments, 'environment', place);

  const session = await json(sessions.create({ agent: agent.id, environment_id: place.id }));
  await rows(sessions, 'session', session, { page: 'page.sessions' });
  assert.deepEqual([session.resources, session.vault_ids, session.outcome_evaluations], [[], [], []]);
  hasAll(await json(sessions.update(session.id, { title: 't' })), 'session');

  const vault = await json(vaults.create({ display_name: 'of a test' }));
  await rows(vaults, 'vault', vault);
  const of = { vault_id: vault.id };
  let credential;
  for (const auth of [
    variable('A', { type: 'unrestricted' }),
    variable('B', { type: 'limited', allowed_hosts: ['api.example.com'] }),
    { type: 'static_bearer', mcp_server_url: 'https://mcp.example.com/', token: '0123456789' },
  ]) {
    credential = await json(vaults.credentials.create(vault.id, { auth }));
    await rows(vaults.credentials, 'vault_credential', credential, { own: [vault.id], of });
  }

  for (const [row, archive] of [
    ['vault_credential', () => vaults.credentials.archive(credential.id, of)],
    ['vault', () => vaults.archive(vault.id)],
    ['session', () => sessions.archive(session.id)],
    ['environment', () => environments.archive(place.id)],
    ['agent', () => agents.archive(agent.id)],
  ]) assert.ok(hasAll(await json(archive()), row).archived_at, row);
});

test('every field of a model', async () => {
  const { models } = client();
  const [first] = (await json(models.list())).data;
  await rows(models, 'model', first, { page: 'page.models' });
});

test('every field of a refusal', async () => {
  await assert.rejects(() => beta.agents.retrieve('agent_0'), (refused) => {
    assert.ok(refused instanceof Anthropic.NotFoundError, String(refused));
    hasAll(refused.error, 'refusal');
    return true;
  });
});
