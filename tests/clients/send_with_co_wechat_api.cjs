// Sends through the gateway with co-wechat-api, which knows nothing of it but its prefixes: the lines of
// docs/MIGRATING.md. Run it against `wxgate dev`; see docs/CONTRIBUTING.md.
'use strict';

const assert = require('node:assert');
const fs = require('node:fs');
const { parseArgs } = require('node:util');
const WechatAPI = require('co-wechat-api');

const { gateway, keys } = parseArgs({
  options: {
    gateway: { type: 'string', default: 'http://127.0.0.1:8080' },
    keys: { type: 'string', default: 'wxgate-data/dev.json' },
    simulator: { type: 'string' },
  },
}).values;
const APPID = 'wxde00000000000001';
// The official account that send_with_wechatpy.py registers.
const OFFICIAL = 'wxde00000000000002';
const TEMPLATE = '8-VxnRzHxkMVwBSkPGXFUNkRDfMlAqV0P1nVTW4Zx9k';

function client(secret, appid = APPID) {
  const api = new WechatAPI(appid, secret);
  api.prefix = `${gateway}/cgi-bin/`;
  api.wxaPrefix = `${gateway}/wxa/`;
  api.setOpts({ timeout: 35000 });
  return api;
}

async function refusal(call) {
  const error = await call.then((answer) => assert.fail(JSON.stringify(answer)), (error) => error);
  console.log(`  ${error.name}: ${error.code} ${error.message}`);
  return error.code;
}

async function main() {
  const secret = JSON.parse(fs.readFileSync(keys)).tenant.client_secret;
  const api = client(secret);
  const user = `oSDK-${process.hrtime.bigint()}`;

  const sent = await api.sendSubscribeMessage(user, TEMPLATE, 'pages/order?id=1', { thing1: { value: '保温杯' } });
  console.log('a subscribe message:', JSON.stringify(sent));
  assert.strictEqual(Number(sent.errcode), 0);
  const form = `form-${process.hrtime.bigint()}`;
  const template = await api.sendMiniProgramTemplate(user, 'template-1', '', form, { keyword1: { value: '339208499' } });
  console.log('a template message:', JSON.stringify(template));
  assert.strictEqual(Number(template.errcode), 0);

  const url = 'https://shop.example/1';
  const official = await client(secret, OFFICIAL).sendTemplate(user, TEMPLATE, url, '', { thing1: { value: '保温杯' } });
  console.log('a message of an official account:', JSON.stringify(official));
  assert.strictEqual(Number(official.errcode), 0);

  const wrong = api.sendSubscribeMessage(user, TEMPLATE, '', { number1: { value: 'two' } });
  assert.strictEqual(await refusal(wrong), 47003);
  assert.strictEqual(await refusal(client('no-secret').getAccessToken()), 40125);
  await api.saveToken({ accessToken: 'not-a-token', expireTime: Date.now() + 3600000 });
  const renewed = await api.sendSubscribeMessage(user, TEMPLATE, '', { thing1: { value: '保温杯' } });
  console.log('with a token that the SDK renewed:', JSON.stringify(renewed));
  console.log('all as WeChat would');
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
