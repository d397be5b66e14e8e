// Ten things that break an unmodified client silently, each through the real SDK.
'use strict';

const assert = require('node:assert/strict');
const { test } = require('node:test');
const {
  Anthropic, agent, beta, idle, key, kinds, raw, said, say, session, spied, textMessage, untilIdle, url,
} = require('./common.cjs');
const { hasAll } = require('./fields.cjs');

const hello = () => session([{ text: 'hello' }], { initial: [textMessage('hi')] });
const rfc3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/;

test('1: every frame has an event line that is its type', async () => {
  const { id } = await hello();
  await untilIdle(id);
  const response = await raw(`/v1/sessions/${id}/events/stream`, { headers: { 'last-event-id': '0' } });
  let text = '';
  const decoder = new TextDecoder();
  for await (const chunk of response.body) {
    text += decoder.decode(chunk, { stream: true });
    if (text.includes('event: session.status_idle')) break;
  }
  const frames = text.split('\n\n').filter((frame) => frame.includes('data: ')).slice(0, -1);
  assert.ok(frames.length > 3, text);
  for (const frame of frames) {
    const line = (name) => frame.split('\n').find((l) => l.startsWith(`${name}: `))?.slice(name.length + 2);
    assert.equal(line('event'), JSON.parse(line('data')).type);
  }
});

test('2: the stream is one whatever accept says', async () => {
  const { id } = await hello();
  const { client, sent } = spied();
  const { response } = await client.beta.sessions.events.stream(id).withResponse();
  assert.equal(sent.at(-1).headers.get('accept'), 'application/json');
  assert.equal(response.headers.get('content-type').split(';')[0], 'text/event-stream');
  await response.body?.cancel().catch(() => {});
});

test('3: both ways of showing a key', async () => {
  const { client, sent } = spied();
  await client.beta.agents.list();
  assert.equal(sent.at(-1).headers.get('authorization'), `Bearer ${key}`);
  await client.beta.agents.list({}, { headers: { 'x-api-key': key, authorization: null } });
  assert.equal(sent.at(-1).headers.get('authorization'), null);
  const stranger = new Anthropic({ baseURL: url, apiKey: 'sk-nobody', maxRetries: 0 });
  await assert.rejects(() => stranger.beta.agents.list(), (error) => {
    assert.ok(error instanceof Anthropic.AuthenticationError, String(error));
    assert.equal(error.type, 'authentication_error');
    return true;
  });
});

test('4: any version date', async () => {
  for (const version of ['2026-10-21', '2023-06-01', '2031-01-01']) {
    await beta.agents.list({}, { headers: { 'anthropic-version': version } });
  }
});

test('5: arrays in queries, with brackets and without', async () => {
  const { id, agent: its } = await hello();
  await untilIdle(id);
  const { client, sent } = spied();
  const types = ['user.message', 'agent.message'];
  const page = await client.beta.sessions.events.list(id, { types });
  assert.match(decodeURIComponent(sent.at(-1).url), /types\[\]=user\.message/);
  assert.deepEqual(kinds(page.data), types);
  const rows = async (path) => {
    const response = await raw(path);
    assert.equal(response.status, 200, path);
    return (await response.json()).data;
  };
  for (const query of [
    'types[]=user.message&types[]=agent.message',
    'types%5B%5D=user.message&types%5B%5D=agent.message',
    'types=user.message&types=agent.message&beta=true',
  ]) assert.deepEqual(kinds(await rows(`/v1/sessions/${id}/events?${query}`)), types, query);

  const mine = { agent_id: its.id };
  const ids = (found) => found.map((one) => one.id);
  assert.deepEqual(ids((await client.beta.sessions.list({ ...mine, statuses: ['idle', 'running'] })).data), [id]);
  assert.match(decodeURIComponent(sent.at(-1).url), /statuses\[\]=idle&statuses\[\]=running/);
  assert.deepEqual((await client.beta.sessions.list({ ...mine, statuses: ['running'] })).data, []);
  for (const name of ['statuses[]', 'statuses%5B%5D', 'statuses']) {
    const list = (...statuses) => rows(`/v1/sessions?agent_id=${its.id}&${statuses.map((s) => `${name}=${s}`).join('&')}`);
    assert.deepEqual(ids(await list('running', 'idle')), [id], name);
    assert.deepEqual(await list('running', 'terminated'), [], name);
  }
  const later = new Date(Date.now() + 3_600_000).toISOString();
  assert.deepEqual((await client.beta.sessions.events.list(id, { 'created_at[gte]': later })).data, []);
  assert.deepEqual(await rows(`/v1/sessions/${id}/events?created_at[gte]=${later}`), []);
});

test('6: every field of every object is there', async () => {
  const made = await agent([{ text: 'hello' }]);
  const environment = await beta.environments.create({ name: 'tests' });
  const found = await beta.sessions.create({ agent: made.id, environment_id: environment.id });
  // More of them, with their events and as they come, in `fields.test.cjs`.
  hasAll(made, 'agent');
  hasAll(environment, 'environment');
  hasAll(found, 'session');
  assert.deepEqual([found.resources, found.vault_ids, found.outcome_evaluations], [[], [], []]);
});

test('7: a retry of the SDK has one effect', async () => {
  const { id } = await session([{ text: 'one' }, { text: 'two' }]);
  const unlucky = spied(1);
  const sent = await unlucky.client.beta.sessions.events.send(id, { events: [textMessage('only once')] });
  assert.deepEqual(unlucky.sent.map((r) => r.headers.get('x-stainless-retry-count')), ['0', '1']);
  await untilIdle(id);
  const { data } = await beta.sessions.events.list(id, { types: ['user.message'] });
  assert.deepEqual(data.map((event) => event.id), [sent.data[0].id]);

  const made = await agent([{ text: 'x' }]);
  const careful = spied();
  await assert.rejects(() => careful.client.beta.agents.update(made.id, { version: 7, name: 'late' }), (refused) => {
    assert.ok(refused instanceof Anthropic.ConflictError, String(refused));
    assert.equal(refused.headers.get('x-should-retry'), 'false');
    return true;
  });
  assert.equal(careful.sent.length, 1, 'a conflict that time does not mend is not tried again');
});

test('8: a quiet stream is kept alive', { timeout: 40_000 }, async () => {
  const { id } = await session([{ text: 'hello' }]);
  const started = Date.now();
  const response = await raw(`/v1/sessions/${id}/events/stream`);
  let text = '';
  for await (const chunk of response.body) {
    text += Buffer.from(chunk).toString();
    if (/^(event: ping|:)/m.test(text)) break;
  }
  assert.match(text, /^(event: ping|:)/m);
  assert.ok(Date.now() - started < 30_000);
});

test('9: times are RFC 3339', async () => {
  const environment = await beta.environments.create({ name: 'tests' });
  assert.match(environment.created_at, rfc3339);
  const made = await hello();
  assert.match(made.created_at, rfc3339);
  for (const event of await untilIdle(made.id)) assert.match(event.processed_at, rfc3339, event.type);
});

test('10: who sends first and looks later sees that turn', async () => {
  const { id } = await session([{ text: 'first' }, { text: 'second' }]);
  for (const expected of ['first', 'second']) {
    const sent = await say(id, 'go on');
    const deadline = Date.now() + 30_000;
    while ((await beta.sessions.retrieve(id)).status !== 'idle') {
      assert.ok(Date.now() < deadline);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    const events = await untilIdle(id);
    assert.equal(said(events), expected, 'the turn of this message, and no older one');
    assert.ok(events.some((event) => event.id === sent.data[0].id));
    assert.ok(idle(events.at(-1)));
  }
});
