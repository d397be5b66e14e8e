// Which fields objects and events have in JSON: the table of `../fields.json`, which both SDKs' tests read.
//
// A row names fields; `a.b` is a field of a field. `a:row` is itself as that row says, `a[]:row` each of its items, and a
// `*` in it is the `type` of what is found. What may be null ends in `?`; it is there all the same.
'use strict';

const assert = require('node:assert/strict');
const table = require('../fields.json');

/** What the row names and the value lacks. */
function missing(value, name) {
  const row = name.replace('*', value?.type);
  if (!(row in table)) return [`no row \`${row}\``];
  return table[row].split(' ').flatMap((field) => lacks(value, field)).map((fault) => `${row}: ${fault}`);
}

function lacks(value, field) {
  const [path, row] = field.split(':');
  let found = value;
  for (const name of path.replace('?', '').replace('[]', '').split('.')) {
    if (found === null || typeof found !== 'object' || !(name in found)) return [path];
    found = found[name];
  }
  if (found === null) return path.endsWith('?') ? [] : [`${path} is null`];
  if (!row) return [];
  const items = path.endsWith('[]') ? found : [found];
  return items.flatMap((item) => missing(item, row)).map((fault) => `${path} > ${fault}`);
}

function hasAll(found, row) {
  assert.deepEqual(missing(found, row), [], JSON.stringify(found));
  return found;
}

module.exports = { hasAll, table };
