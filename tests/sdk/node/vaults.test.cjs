// Vaults and credentials through the real SDK: secrets go in, and nothing brings them out again.
'use strict';

const assert = require('node:assert/strict');
const { test } = require('node:test');
const { Anthropic, agent, beta } = require('./common.cjs');

const secret = 's3cr3t-0123456789-of-the-sdk';
const variable = (name) => ({
  type: 'environment_variable', secret_name: name, secret_value: secret, networking: { type: 'unrestricted' },
});
const all = async (pages) => {
  const found = [];
  for await (const one of pages) found.push(one.id);
  return found;
};

test('a vault is made, changed, listed, archived and deleted', async () => {
  const vault = await beta.vaults.create({ display_name: 'of a test', metadata: { team: 'a' } });
  assert.deepEqual(await beta.vaults.retrieve(vault.id), vault);
  const changed = await beta.vaults.update(vault.id, { display_name: 'other' });
  assert.equal(changed.display_name, 'other');
  assert.ok((await all(beta.vaults.list({ limit: 2 }))).includes(vault.id));
  assert.ok((await beta.vaults.archive(vault.id)).archived_at);
  assert.ok(!(await all(beta.vaults.list())).includes(vault.id));
  assert.equal((await beta.vaults.delete(vault.id)).type, 'vault_deleted');
  await assert.rejects(() => beta.vaults.retrieve(vault.id), Anthropic.NotFoundError);
});

test('a credential lives without its secret being seen', async () => {
  const vault = await beta.vaults.create({ display_name: 'of a test' });
  const made = await beta.vaults.credentials.create(vault.id, { auth: variable('API_TOKEN') });
  assert.equal(made.auth.secret_name, 'API_TOKEN');
  const of = { vault_id: vault.id };
  const rotated = await beta.vaults.credentials.update(made.id, {
    ...of, auth: { type: 'environment_variable', secret_value: `${secret}-2` },
  });
  assert.ok(!JSON.stringify([made, rotated]).includes(secret));
  await assert.rejects(
    () => beta.vaults.credentials.create(vault.id, { auth: variable('API_TOKEN') }), Anthropic.ConflictError,
  );
  assert.deepEqual(await all(beta.vaults.credentials.list(vault.id)), [made.id]);
  assert.ok((await beta.vaults.credentials.archive(made.id, of)).archived_at);
  assert.equal((await beta.vaults.credentials.delete(made.id, of)).type, 'vault_credential_deleted');
});

test('a session is given vaults', async () => {
  const vault = await beta.vaults.create({ display_name: 'of a test' });
  const { id } = await agent([{ text: 'hi' }]);
  const environment = await beta.environments.create({ name: 'tests' });
  const session = await beta.sessions.create({ agent: id, environment_id: environment.id, vault_ids: [vault.id] });
  assert.deepEqual(session.vault_ids, [vault.id]);
});
