#!/usr/bin/env python3
"""Pushes events to a gateway as WeChat does, signed and encrypted by wechatpy.

The gateway and the simulator were written from the same documentation. This is the third opinion: an SDK that others
use in front of the real WeChat. It sends a message through a gateway whose WeChat is simulated, pushes the event that
says that it arrived, and reads what became of it. Needs `wxgate dev` (or another gateway and its keys):

    target/tools/python/bin/python tests/clients/push_with_wechatpy.py --keys wxgate-data/dev.json

Exits with 0 when everything is as it should be, and says what is not otherwise.
"""

import argparse
import json
import secrets
import string
import sys
import time
import urllib.parse
import xml.etree.ElementTree as ElementTree

from wechatpy.crypto import WeChatCrypto
from wechatpy.utils import WeChatSigner
from wxgate import APPID, TEMPLATE, Gateway, call

LETTERS = string.ascii_letters + string.digits


class WeChat:
    """WeChat's side, by wechatpy."""

    def __init__(self, base, appid, token, aes_key):
        self.url = f"{base}/callbacks/{appid}"
        self.token = token
        self.crypto = WeChatCrypto(token, aes_key, appid)

    def query(self, **more):
        timestamp, nonce = str(int(time.time())), str(secrets.randbelow(10**9))
        signer = WeChatSigner()
        signer.add_data(self.token, timestamp, nonce)
        return {"signature": signer.signature, "timestamp": timestamp, "nonce": nonce} | more

    def check_url(self, echo):
        query = urllib.parse.urlencode(self.query(echostr=echo))
        return call("GET", f"{self.url}?{query}")

    def push(self, message, as_json, tamper=False):
        query = self.query(encrypt_type="aes")
        envelope = self.crypto.encrypt_message(message, query["nonce"], query["timestamp"])
        parts = {part.tag: part.text for part in ElementTree.fromstring(envelope)}
        query["msg_signature"] = parts["MsgSignature"]
        body = envelope
        if as_json:
            body = json.dumps({"ToUserName": "gh_1", "Encrypt": parts["Encrypt"]})
        if tamper:
            # Of the ciphertext, not of what is around it.
            body = body.replace(parts["Encrypt"][:8], parts["Encrypt"][:8].swapcase()[::-1])
        return call("POST", f"{self.url}?{urllib.parse.urlencode(query)}", body.encode())


def sent_event(message, as_json, code):
    status = "success" if code == 0 else "system error"
    item = {
        "TemplateId": message["template_id"],
        "MsgID": message["msgid"],
        "ErrorCode": str(code),
        "ErrorStatus": status,
    }
    event = {
        "ToUserName": "gh_1",
        "FromUserName": message["touser"],
        "CreateTime": int(time.time()),
        "MsgType": "event",
        "Event": "subscribe_msg_sent_event",
    }
    if as_json:
        return json.dumps(event | {"List": item})

    def elements(fields):
        return "".join(f"<{name}><![CDATA[{value}]]></{name}>" for name, value in fields.items())

    inner = f"<SubscribeMsgSentEvent><List>{elements(item)}</List></SubscribeMsgSentEvent>"
    return f"<xml>{elements(event)}{inner}</xml>"


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--gateway", default="http://127.0.0.1:8080")
    arguments.add_argument("--keys", default="wxgate-data/dev.json", help="the file that `wxgate dev` writes")
    arguments.add_argument("--appid", default=APPID)
    given = arguments.parse_args()
    gateway = Gateway(given.gateway, given.keys)

    token = "".join(secrets.choice(LETTERS) for _ in range(16))
    aes_key = "".join(secrets.choice(LETTERS) for _ in range(43))
    settings = {"callback_token": token, "callback_aes_key": aes_key}
    gateway.call("PATCH", f"/v1/apps/{given.appid}", settings)
    wechat = WeChat(given.gateway, given.appid, token, aes_key)

    assert wechat.check_url("4375120948345356249") == (200, "4375120948345356249")
    for as_json in (True, False):
        for code, status in ((0, "delivered"), (1003, "undelivered")):
            message = {
                "touser": f"o{secrets.token_hex(12)}",
                "template_id": TEMPLATE,
                "data": {"thing1": {"value": "保温杯"}},
            }
            path = f"/v1/apps/{given.appid}/messages"
            message = gateway.call("POST", path, message, Prefer="wait=20")
            assert message["status"] == "sent", message
            event = sent_event(message, as_json, code)
            refused, _ = wechat.push(event, as_json, tamper=True)
            assert refused == 403, refused
            assert gateway.call("GET", f"/v1/messages/{message['id']}")["status"] == "sent"
            answer = wechat.push(event, as_json)
            assert answer == (200, "success"), answer
            read = gateway.call("GET", f"/v1/messages/{message['id']}")
            assert read["status"] == status, read
            print(f"{'JSON' if as_json else 'XML'}: {read['id']} is {read['status']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
