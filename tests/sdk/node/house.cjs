// Servers of a test's own, with a configuration of its own: the executable is the one that LOOPD_BINARY names.
'use strict';

const { spawn } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const readline = require('node:readline');

/** No setting of whoever runs the tests takes part in them. */
function clean() {
  const kept = Object.entries(process.env).filter(([name]) => !/^(LOOPD|ANTHROPIC)_/.test(name));
  return { ...Object.fromEntries(kept), LOOPD_LOG: 'warn', NO_COLOR: '1' };
}

/** The address of a server that ends with the test. */
async function house(t, config = '') {
  const place = fs.mkdtempSync(path.join(os.tmpdir(), 'loopd-sdk-'));
  fs.writeFileSync(path.join(place, 'loopd.toml'), config);
  const options = { cwd: place, env: clean(), stdio: ['ignore', 'pipe', 'inherit'] };
  const server = spawn(process.env.LOOPD_BINARY, ['serve', '--listen', '127.0.0.1:0', '--data', 'data'], options);
  const ended = new Promise((resolve) => server.once('close', resolve));
  t.after(async () => {
    server.kill();
    await ended;
    fs.rmSync(place, { recursive: true, force: true });
  });
  const lines = readline.createInterface({ input: server.stdout });
  const line = await new Promise((resolve, reject) => {
    lines.once('line', resolve);
    lines.once('close', () => reject(new Error('loopd ended before it said where it serves')));
    server.once('error', reject);
  });
  const said = /^loopd serves (http:\/\/\S+)$/.exec(line.trim());
  if (!said) throw new Error(`loopd said \`${line}\` and not where it serves`);
  return said[1];
}

module.exports = { house };
