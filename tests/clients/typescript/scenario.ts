// The scenario of a generated client (see python/scenario.py) with types by openapi-typescript and calls by openapi-fetch.
import assert from 'node:assert';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import createClient, { type Middleware } from 'openapi-fetch';
import type { components, paths } from './generated/wxgate.ts';

type Key = { client_id: string; client_secret: string };
type SubscribeMessage = components['schemas']['SubscribeMessage'];
type Problem = components['schemas']['Problem'];

const MESSAGES = 5;
const PAGE = 2;

const { values } = parseArgs({
  options: {
    gateway: { type: 'string', default: 'http://127.0.0.1:8080' },
    keys: { type: 'string', default: 'wxgate-data/dev.json' },
    simulator: { type: 'string' },
  },
});
const key: Key = JSON.parse(readFileSync(values.keys, 'utf8')).tenant;
const gateway = createClient<paths>({ baseUrl: values.gateway });

/** The data of an answer that is no refusal. */
function taken<T>(answer: { data?: T; error?: unknown }): T {
  assert.ok(answer.data !== undefined, JSON.stringify(answer.error));
  return answer.data;
}

function message(touser: string, value = '保温杯'): SubscribeMessage {
  return {
    channel: 'subscribe',
    touser,
    template_id: '8-VxnRzHxkMVwBSkPGXFUNkRDfMlAqV0P1nVTW4Zx9k',
    data: { thing1: { value } },
  };
}

const token = taken(
  await gateway.POST('/oauth/token', {
    body: { grant_type: 'client_credentials', ...key },
    headers: { 'Content-Type': 'application/x-www-form-urlencoded' },
    bodySerializer: (body) => new URLSearchParams(body as Record<string, string>),
  }),
);
const signedIn: Middleware = {
  onRequest({ request }) {
    request.headers.set('Authorization', `Bearer ${token.access_token}`);
    return request;
  },
};
gateway.use(signedIn);

const appid = `wx${randomBytes(8).toString('hex')}`;
const app = taken(await gateway.POST('/v1/apps', { body: { appid, secret: '0f1e2d3c4b5a69788796a5b4c3d2e1f0' } }));
assert.equal(app.appid, appid);
console.log('registered:', app.appid, app.kind);

const path = { appid };
const sent: string[] = [];
for (let number = 0; number < MESSAGES; number += 1) {
  const params = { path, header: { Prefer: 'wait=20' } };
  const one = taken(await gateway.POST('/v1/apps/{appid}/messages', { params, body: message(`o${number}`) }));
  assert.equal(one.status, 'sent' satisfies components['schemas']['Status']);
  sent.push(one.id);
}
console.log('sent:', sent.length);

const read = taken(await gateway.GET('/v1/messages/{id}', { params: { path: { id: sent[0]! } } }));
assert.deepEqual([read.touser, read.attempts[0]?.errcode], ['o0', 0]);

const listed: string[] = [];
let cursor: string | undefined;
do {
  const query = { limit: PAGE, ...(cursor === undefined ? {} : { cursor }) };
  const page = taken(await gateway.GET('/v1/apps/{appid}/messages', { params: { path, query } }));
  listed.push(...page.data.map((one) => one.id));
  cursor = page.next_cursor ?? undefined;
} while (cursor !== undefined);
assert.deepEqual(listed, sent.toReversed());
console.log('listed:', listed.length);

const refused = await gateway.POST('/v1/apps/{appid}/messages', {
  params: { path },
  body: message('o0', 'more than twenty characters'),
});
assert.equal(refused.response.status, 422);
assert.ok(refused.error !== undefined);
const problem: Problem = refused.error;
assert.equal(problem.code, 'validation_failed');
assert.deepEqual(problem.errors?.map((error) => error.pointer), ['/data/thing1/value']);
console.log('refused:', problem.code, problem.errors?.[0]?.detail);
