// The scenario of a generated client (see python/scenario.py) with a client by @hey-api/openapi-ts.
import assert from 'node:assert';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { getMessage, issueToken, listMessages, registerApp, sendMessage, type SubscribeMessage } from './generated/index.ts';
import { client } from './generated/client.gen.ts';

const MESSAGES = 5;
const PAGE = 2;

const { values } = parseArgs({
  options: {
    gateway: { type: 'string', default: 'http://127.0.0.1:8080' },
    keys: { type: 'string', default: 'wxgate-data/dev.json' },
  },
});
const key: { client_id: string; client_secret: string } = JSON.parse(readFileSync(values.keys, 'utf8')).tenant;

function message(touser: string, value = '保温杯'): SubscribeMessage {
  return {
    channel: 'subscribe',
    touser,
    template_id: '8-VxnRzHxkMVwBSkPGXFUNkRDfMlAqV0P1nVTW4Zx9k',
    data: { thing1: { value } },
  };
}

client.setConfig({ baseUrl: values.gateway });
const token = await issueToken({ body: { grant_type: 'client_credentials', ...key }, throwOnError: true });
client.setConfig({ auth: token.data.access_token });

const appid = `wx${randomBytes(8).toString('hex')}`;
const app = await registerApp({ body: { appid, secret: '0f1e2d3c4b5a69788796a5b4c3d2e1f0' }, throwOnError: true });
assert.equal(app.data.appid, appid);
console.log('registered:', appid);

const path = { appid };
const sent: string[] = [];
for (let number = 0; number < MESSAGES; number += 1) {
  const body = message(`o${number}`);
  const one = await sendMessage({ path, body, headers: { Prefer: 'wait=20' }, throwOnError: true });
  assert.equal(one.data.status, 'sent');
  sent.push(one.data.id);
}
console.log('sent:', sent.length);

const read = await getMessage({ path: { id: sent[0]! }, throwOnError: true });
assert.deepEqual([read.data.touser, read.data.attempts[0]?.errcode], ['o0', 0]);

const listed: string[] = [];
let cursor: string | undefined;
do {
  const query = { limit: PAGE, ...(cursor === undefined ? {} : { cursor }) };
  const page = await listMessages({ path, query, throwOnError: true });
  listed.push(...page.data.data.map((one) => one.id));
  cursor = page.data.next_cursor ?? undefined;
} while (cursor !== undefined);
assert.deepEqual(listed, sent.toReversed());
console.log('listed:', listed.length);

const refused = await sendMessage({ path, body: message('o0', 'more than twenty characters') });
assert.equal(refused.response?.status, 422);
assert.equal(refused.error?.code, 'validation_failed');
assert.deepEqual(refused.error?.errors?.map((error) => error.pointer), ['/data/thing1/value']);
console.log('refused:', refused.error?.code, refused.error?.errors?.[0]?.detail);
