"""Sends through the gateway with an SDK of WeChat's that knows nothing of it.

wechatpy is used as it is. Its hosts are written into it, so a transport adapter takes the requests that it makes of
api.weixin.qq.com to the gateway: the four lines of docs/MIGRATING.md. Run it against `wxgate dev`; see
docs/CONTRIBUTING.md.
"""

import argparse
import json
import sys
import time

import requests
from wechatpy import WeChatClient, WeChatClientException
from wxgate import APPID, TEMPLATE, Gateway, call, official_account

WECHAT = "https://api.weixin.qq.com"
JSON = {"Content-Type": "application/json"}


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
    status, text = call("POST", f"{simulator}/_sim/faults", json.dumps(body).encode(), JSON)
    assert status < 300, text


def fetches(simulator, appid):
    """How often the gateway fetched a token of the app from WeChat."""
    status, text = call("GET", f"{simulator}/_sim/apps/{appid}/stats")
    assert status == 200, text
    calls = json.loads(text)["calls"]
    return sum(count for path, codes in calls.items() if "token" in path for count in codes.values())


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
    parser.add_argument("--keys", default="wxgate-data/dev.json", help="the file that `wxgate dev` writes")
    parser.add_argument("--gateway", default="http://127.0.0.1:8080")
    parser.add_argument("--simulator", default="http://127.0.0.1:8090")
    options = parser.parse_args()
    gateway = Gateway(options.gateway, options.keys)
    secret = gateway.key["client_secret"]
    official = client(options.gateway, secret, official_account(gateway, options.simulator))
    sdk = client(options.gateway, secret)
    user = f"oSDK-{time.time_ns()}"
    data = {"thing1": {"value": "保温杯"}}

    sent = sdk.wxa.send_subscribe_message(user, TEMPLATE, data, page="pages/order?id=1")
    check("a subscribe message", (sent["errcode"], sent["errmsg"]), (0, "ok"))
    check("its msgid is an integer", isinstance(sent["msgid"], int), True)
    form = f"form-{time.time_ns()}"
    sent = sdk.wxa.send_template_message(user, "template-1", {"keyword1": {"value": "339208499"}}, form)
    check("a template message", sent, {"errcode": 0, "errmsg": "ok"})

    link = {"appid": APPID, "pagepath": "pages/order?id=1"}
    sent = official.message.send_template(user, TEMPLATE, data, url="https://shop.example/1", mini_program=link)
    check("an official account's message", (sent["errcode"], isinstance(sent["msgid"], int)), (0, True))
    again = client(options.gateway, secret).wxa.send_subscribe_message(user, TEMPLATE, data)
    check("by another client of the SDK", again["errcode"], 0)
    for appid in (sdk.appid, official.appid):
        check(f"the gateway's fetches of a token for {appid}", fetches(options.simulator, appid), 1)

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

    code = f"code-{time.time_ns()}"
    session = sdk.wxa.code_to_session(code)
    check("a user who signs in", (session["openid"], len(session["session_key"])), (f"o{code}", 24))
    check("the same code again", refusal(lambda: sdk.wxa.code_to_session(code)), 40163)
    templates = sdk.get(f"{WECHAT}/wxaapi/newtmpl/gettemplate")
    check("a call that is passed on", templates["errcode"], 0)
    check("a call that WeChat does not know", refusal(lambda: sdk.get("no/such/call")), 40066)
    print("all as WeChat would")


if __name__ == "__main__":
    main()
