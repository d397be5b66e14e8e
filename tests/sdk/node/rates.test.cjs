// Who calls too often is told when to come back, and the SDK does.
'use strict';

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { Anthropic, all, client } = require('./common.cjs');
const { house } = require('./house.cjs');

test('who calls too often is told when to come back, and the SDK does', { timeout: 60_000 }, async (t) => {
  const baseURL = await house(t, '[limits]\nrequests_per_second = 1\nrequests_burst = 2\n');
  const hasty = client({ baseURL, maxRetries: 0 });
  const many = async () => {
    for (let n = 0; n < 50; n += 1) await hasty.beta.agents.list();
  };
  await assert.rejects(many, (refused) => {
    assert.ok(refused instanceof Anthropic.RateLimitError, String(refused));
    assert.equal(refused.headers.get('retry-after'), '1');
    // Nothing keeps it from trying again, as it does after any 429.
    assert.notEqual(refused.headers.get('x-should-retry'), 'false');
    assert.equal(refused.type, 'rate_limit_error');
    return true;
  });
  // As it is made: it waits as it was told, and its caller notices nothing.
  const tries = [];
  const fetch = async (address, init) => {
    const began = performance.now();
    const response = await globalThis.fetch(address, init);
    const retry = new Headers(init.headers).get('x-stainless-retry-count');
    tries.push({ retry, status: response.status, began, ended: performance.now() });
    return response;
  };
  const patient = client({ baseURL, maxRetries: 5, fetch });
  const agents = [];
  for (const n of [0, 1, 2, 3]) agents.push((await patient.beta.agents.create({ name: `a${n}`, model: 'builtin/shell' })).id);
  assert.equal(new Set(agents).size, 4);
  assert.equal((await all(patient.beta.agents.list())).length, 4, 'what was refused was not done');
  const refused = tries.flatMap((one, n) => (one.status === 429 ? [n] : []));
  assert.ok(refused.length > 0, JSON.stringify(tries));
  for (const n of refused) {
    assert.equal(tries[n + 1].retry, String(Number(tries[n].retry) + 1));
    // Of its own accord it would come back after half a second at first.
    const waited = tries[n + 1].began - tries[n].ended;
    assert.ok(waited > 950 && waited < 5_000, `came back after ${waited} ms`);
  }
});
