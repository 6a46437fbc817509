"""A gateway as the programs here call it: with nothing but Python's own library."""

import base64
import json
import urllib.error
import urllib.request

# The app of `wxgate dev`, and a template that the simulator takes.
APPID = "wxde00000000000001"
TEMPLATE = "8-VxnRzHxkMVwBSkPGXFUNkRDfMlAqV0P1nVTW4Zx9k"
# An official account beside it.
OFFICIAL = "wxde00000000000002"
SCOPES = [
    "messages:send",
    "messages:read",
    "grants:write",
    "grants:read",
    "apps:read",
    "apps:write",
    "tokens:read",
    "templates:read",
    "webhooks:write",
    "webhooks:read",
    "keys:write",
    "audit:read",
    "wechat:proxy",
]


def call(method, url, body=None, headers=None):
    """One request: the status and the text of its answer."""
    request = urllib.request.Request(url, data=body, headers=headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read().decode()


class Gateway:
    """Somebody's side of the gateway, by one of the keys of a file such as `wxgate dev` writes."""

    def __init__(self, base, keys, whose="tenant"):
        with open(keys, encoding="utf-8") as file:
            self._sign_in(base, json.load(file)[whose])

    @classmethod
    def of(cls, base, key):
        """The side of this key."""
        gateway = cls.__new__(cls)
        gateway._sign_in(base, key)
        return gateway

    def _sign_in(self, base, key):
        self.base = base
        self.key = key
        pair = f"{key['client_id']}:{key['client_secret']}".encode()
        headers = {
            "Authorization": "Basic " + base64.b64encode(pair).decode(),
            "Content-Type": "application/x-www-form-urlencoded",
        }
        status, text = call("POST", f"{base}/oauth/token", b"grant_type=client_credentials", headers)
        assert status == 200, text
        self.token = json.loads(text)["access_token"]

    def call(self, method, path, body=None, **headers):
        """A call of the API; what is refused ends the program."""
        headers |= {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        body = None if body is None else json.dumps(body).encode()
        status, text = call(method, self.base + path, body, headers)
        assert status < 300, f"{method} {path}: {status} {text}"
        return json.loads(text) if text else None


def official_account(gateway, simulator):
    """The appid of an official account, at the simulator and at the gateway."""
    body = json.dumps({"kind": "official_account"}).encode()
    status, text = call("PATCH", f"{simulator}/_sim/apps/{OFFICIAL}", body, {"Content-Type": "application/json"})
    assert status == 200, text
    apps = gateway.call("GET", "/v1/apps?limit=200")["data"]
    if OFFICIAL not in [app["appid"] for app in apps]:
        app = {"appid": OFFICIAL, "secret": "0f1e2d3c4b5a69788796a5b4c3d2e1f0", "kind": "official_account"}
        gateway.call("POST", "/v1/apps", app)
    return OFFICIAL
