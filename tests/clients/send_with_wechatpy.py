"""Sends through the gateway with an SDK of WeChat's that knows nothing of it.

wechatpy is used as it is. Its hosts are written into it, so a transport adapter takes the requests that it makes of
api.weixin.qq.com to the gateway: the four lines of docs/MIGRATING.md. Run it against `wxgate dev`; see
docs/CONTRIBUTING.md.
"""

import argparse
import json
import sys
import time
import urllib.request

import requests
from wechatpy import WeChatClient, WeChatClientException

WECHAT = "https://api.weixin.qq.com"
APPID = "wxde00000000000001"
TEMPLATE = "8-VxnRzHxkMVwBSkPGXFUNkRDfMlAqV0P1nVTW4Zx9k"


class ThroughGateway(requests.adapters.HTTPAdapter):
    """Takes what is meant for WeChat to the gateway."""

    def __init__(self, gateway):
        super().__init__()
        self.gateway = gateway

    def send(self, request, **options):
        request.url = request.url.replace(WECHAT, self.gateway, 1)
        return super().send(request, **options)


def client(gateway, secret, appid=APPID):
    sdk = WeChatClient(appid, secret)
    sdk._http.mount(WECHAT, ThroughGateway(gateway))
    return sdk


def fault(simulator, path, errcode):
    """The simulator's next answer at this path."""
    body = {"path": path, "count": 1, "kind": "errcode", "errcode": errcode}
    request = urllib.request.Request(
        f"{simulator}/_sim/faults", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request).read()


def refusal(call):
    """The errcode of the SDK's own exception."""
    try:
        answer = call()
    except WeChatClientException as error:
        print(f"  {type(error).__name__}: {error.errcode} {error.errmsg}")
        return error.errcode
    sys.exit(f"expected a refusal, got {answer}")


def check(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        sys.exit(f"{what}: expected {expected}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", required=True, help="the dev.json of `wxgate dev`")
    parser.add_argument("--gateway", default="http://127.0.0.1:8080")
    parser.add_argument("--simulator", default="http://127.0.0.1:8090")
    options = parser.parse_args()
    with open(options.keys) as file:
        secret = json.load(file)["tenant"]["client_secret"]
    sdk = client(options.gateway, secret)
    user = f"oSDK-{time.time_ns()}"
    data = {"thing1": {"value": "保温杯"}}

    sent = sdk.wxa.send_subscribe_message(user, TEMPLATE, data, page="pages/order?id=1")
    check("a subscribe message", (sent["errcode"], sent["errmsg"]), (0, "ok"))
    check("its msgid is an integer", isinstance(sent["msgid"], int), True)
    form = f"form-{time.time_ns()}"
    sent = sdk.wxa.send_template_message(user, "template-1", {"keyword1": {"value": "339208499"}}, form)
    check("a template message", sent, {"errcode": 0, "errmsg": "ok"})

    send = lambda: sdk.wxa.send_subscribe_message(user, TEMPLATE, data)
    fault(options.simulator, "/cgi-bin/message/subscribe/send", 43101)
    check("a user who did not subscribe", refusal(send), 43101)
    wrong = {"number1": {"value": "two"}}
    check("a wrong value", refusal(lambda: sdk.wxa.send_subscribe_message(user, TEMPLATE, wrong)), 47003)
    fault(options.simulator, "/cgi-bin/message/subscribe/send", 40001)
    check("a dead token of the app, repaired by the gateway", send()["errcode"], 0)

    sdk.session.set(sdk.access_token_key, "not-a-token")
    check("a dead token of the SDK, renewed by the SDK", send()["errcode"], 0)
    stranger = client(options.gateway, secret, "wx00000000000000ff")
    check("an app of somebody else", refusal(stranger.fetch_access_token), 40013)
    guess = client(options.gateway, "0f1e2d3c4b5a69788796a5b4c3d2e1f0")
    check("a wrong secret", refusal(guess.fetch_access_token), 40125)

    templates = sdk.get(f"{WECHAT}/wxaapi/newtmpl/gettemplate")
    check("a call that is passed on", templates["errcode"], 0)
    check("a call that WeChat does not know", refusal(lambda: sdk.get("no/such/call")), 40066)
    print("all as WeChat would")


if __name__ == "__main__":
    main()
