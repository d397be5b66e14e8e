// Whole programs, as the SDK's own examples are written.
'use strict';

const assert = require('node:assert/strict');
const { test } = require('node:test');
const {
  Anthropic, agent, all, bash, beta, client, ended, idle, lookup, said, say, session, textMessage, toolset, until, untilIdle,
} = require('./common.cjs');

test('agent, environment, session, send, stream', async () => {
  const made = await beta.agents.create({ name: 'shell', model: 'builtin/shell', tools: [toolset] });
  const environment = await beta.environments.create({ name: 'simple' });
  const { id } = await beta.sessions.create({ agent: { type: 'agent', id: made.id }, environment_id: environment.id });
  await say(id, '```sh\necho $((6 * 7))\n```');
  const events = await untilIdle(id);
  assert.match(events.find((e) => e.type === 'agent.tool_result').content[0].text, /42/);
  assert.match(said(events), /42/);
  assert.equal(events.at(-1).stop_reason.type, 'end_turn');
});

test('previews add up to the message', async () => {
  const { id } = await session([{ text: 'one two three four', chunk_delay_ms: 5 }]);
  const events = await untilIdle(id, { event_deltas: ['agent.message'], opened: () => say(id, 'speak') });
  const deltas = events.filter((e) => e.type === 'event_delta');
  const message = events.find((e) => e.type === 'agent.message');
  assert.ok(deltas.length > 1);
  assert.equal(deltas.map((e) => e.delta.content.text).join(''), message.content[0].text);
  assert.ok(deltas.every((e) => e.event_id === message.id));
  assert.equal(events.find((e) => e.type === 'event_start').event.id, message.id);
});

test('how far a room is breaks no stream', async () => {
  // No index has it, so there is no room in the end.
  const config = { type: 'cloud', packages: { type: 'packages', pip: ['absent-of-the-typescript-sdk'] } };
  const environment = await beta.environments.create({ name: 'slow', config });
  const { id } = await beta.sessions.create({ agent: (await agent([{ text: 'never' }])).id, environment_id: environment.id });
  const params = { event_deltas: ['agent.message', 'loopd.room_progress'], opened: () => say(id, 'go') };
  const events = await untilIdle(id, params);
  const told = events.filter((e) => e.type === 'loopd.room_progress');
  assert.ok(told.length > 0 && told.every((e) => e.stage === 'install' && e.what === 'packages by pip'), JSON.stringify(told));
  assert.ok(events.some((e) => e.type === 'session.error'));
  assert.equal(events.at(-1).stop_reason.type, 'retries_exhausted');
});

test('a custom tool is run by the client', async () => {
  const call = { tools: [{ name: 'lookup', input: { order: '7' } }] };
  const { id } = await session([call, { text: 'It is {{last_result}}.' }], { tools: [lookup] });
  await say(id, 'where is order 7?');
  const events = await untilIdle(id);
  const use = events.find((e) => e.type === 'agent.custom_tool_use');
  assert.deepEqual([use.name, use.input], ['lookup', { order: '7' }]);
  assert.deepEqual(events.at(-1).stop_reason, { type: 'requires_action', event_ids: [use.id] });
  const answer = { type: 'user.custom_tool_result', custom_tool_use_id: use.id, content: [{ type: 'text', text: 'on its way' }] };
  const after = await until(id, ended, { opened: () => beta.sessions.events.send(id, { events: [answer] }) });
  assert.match(said(after), /It is on its way\./);
  await assert.rejects(() => beta.sessions.events.send(id, { events: [answer] }), Anthropic.BadRequestError);
});

test("the SDK's tool runner", async () => {
  const call = { tools: [{ name: 'lookup', input: { order: '7' } }] };
  const steps = [call, { text: 'It is {{last_result}}.' }];
  const { id } = await session(steps, { tools: [lookup], initial: [textMessage('where is order 7?')] });
  const tool = { ...lookup, run: async ({ order }) => `order ${order} is packed`, parse: (input) => input };
  const calls = await all(client().beta.sessions.events.toolRunner(id, { tools: [tool], maxIdleMs: 1_000 }));
  assert.deepEqual(calls.map((c) => c.name), ['lookup']);
  const { data } = await beta.sessions.events.list(id, { types: ['agent.message'] });
  assert.equal(said(data), 'It is order 7 is packed.');
});

test('a call that needs a yes', async () => {
  const ask = { ...toolset, default_config: { permission_policy: { type: 'always_ask' } } };
  const { id } = await session([bash('echo yes'), { text: '{{last_result}}' }], { tools: [ask] });
  await say(id, 'do it');
  const use = (await untilIdle(id)).find((e) => e.type === 'agent.tool_use');
  assert.equal(use.evaluated_permission, 'ask');
  const allow = { type: 'user.tool_confirmation', tool_use_id: use.id, result: 'allow' };
  const after = await until(id, ended, { opened: () => beta.sessions.events.send(id, { events: [allow] }) });
  assert.match(said(after), /yes/);
});

test('an interrupt ends the turn and not the session', async () => {
  const { id } = await session([bash('sleep 300')], { then: 'still here' });
  const events = await untilIdle(id, {
    opened: () => say(id, 'wait'),
    onEvent: async (event) => {
      if (event.type === 'agent.tool_use') await beta.sessions.events.send(id, { events: [{ type: 'user.interrupt' }] });
    },
  });
  assert.equal(events.at(-1).stop_reason.type, 'end_turn');
  assert.equal(events.find((e) => e.type === 'agent.tool_result').is_error, true);
  await say(id, 'again');
  assert.match(said(await untilIdle(id)), /still here/);
});

test('lists are paged', async () => {
  const made = [];
  for (const n of [0, 1, 2, 3, 4]) made.unshift((await beta.environments.create({ name: `page ${n}` })).id);
  const first = await beta.environments.list({ limit: 2 });
  assert.equal(first.data.length, 2);
  const listed = [];
  for await (const environment of first) {
    listed.push(environment.id);
    if (listed.length === 5) break;
  }
  assert.deepEqual(listed, made);
  const { id } = await session([{ text: 'x' }], { initial: [textMessage('hi')] });
  await untilIdle(id);
  const ids = (rows) => rows.map((row) => row.id);
  const whole = ids(await all(beta.sessions.events.list(id, { limit: 1000 })));
  assert.deepEqual(ids(await all(beta.sessions.events.list(id, { limit: 2 }))), whole);
  assert.deepEqual(ids(await all(beta.sessions.events.list(id, { limit: 3, order: 'desc' }))), whole.reverse());
});

test('versions of an agent', async () => {
  const made = await agent([{ text: 'x' }]);
  const renamed = await beta.agents.update(made.id, { version: 1, name: 'renamed' });
  assert.deepEqual([renamed.version, renamed.name], [2, 'renamed']);
  assert.equal((await beta.agents.update(made.id, { version: 2, name: 'renamed' })).version, 2);
  assert.equal((await beta.agents.retrieve(made.id, { version: 1 })).name, 'scripted');
  assert.deepEqual((await all(beta.agents.versions.list(made.id))).map((a) => a.version), [2, 1]);
});

test('deleting and archiving', async () => {
  const { id } = await session([{ text: 'x' }], { initial: [textMessage('hi')] });
  await untilIdle(id);
  assert.equal((await beta.sessions.update(id, { title: 'named' })).title, 'named');
  assert.equal((await beta.sessions.archive(id)).status, 'terminated');
  await assert.rejects(() => say(id, 'hello?'), Anthropic.BadRequestError);
  assert.equal((await beta.sessions.delete(id)).type, 'session_deleted');
  await assert.rejects(() => beta.sessions.retrieve(id), Anthropic.NotFoundError);
});

test('what a provider refuses is an event', async () => {
  const fault = { fault: { class: 'authentication', status: 401, message: 'no such key' } };
  const { id } = await session([fault], { initial: [textMessage('hi')] });
  const events = await until(id, idle);
  assert.match(events.find((e) => e.type === 'session.error').error.message, /no such key/);
  assert.equal(events.at(-1).stop_reason.type, 'retries_exhausted');
});
