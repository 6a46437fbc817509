"""What Schemathesis cannot know of a gateway: how one signs in, what it must not saw off under itself, what WeChat's errcodes
mean, and whether enough was reached.

Read by Schemathesis (SCHEMATHESIS_HOOKS); run.py sets the environment.
"""

import collections
import datetime
import itertools
import os
import re
import secrets

import schemathesis
from wxgate import APPID, SCOPES, TEMPLATE, Gateway, official_account

OPERATOR = Gateway(os.environ["WXGATE_URL"], os.environ["WXGATE_KEYS"], "operator")
TENANT = OPERATOR.call("POST", "/v1/tenants", {"name": "schemathesis", "limits": {"requests_per_second": 100_000}})
KEY = OPERATOR.call("POST", f"/v1/tenants/{TENANT['id']}/keys", {"name": "schemathesis", "scopes": SCOPES})
CALLER = Gateway.of(os.environ["WXGATE_URL"], KEY)
# Things that may be changed and removed.
OTHER = OPERATOR.call("POST", "/v1/tenants", {"name": "other"})
SPARE = OPERATOR.call("POST", f"/v1/tenants/{OTHER['id']}/keys", {"name": "spare", "scopes": SCOPES})


def app_token(owner, appid):
    """The gateway's token for WeChat's own calls as this app."""
    asked = {"grant_type": "client_credential", "appid": appid, "secret": owner.key["client_secret"]}
    return owner.call("POST", "/cgi-bin/stable_token", asked)["access_token"]


# Whose apps make WeChat's own calls: a mini-program, and an official account for the messages of that kind.
OWNER = Gateway(os.environ["WXGATE_URL"], os.environ["WXGATE_KEYS"])
MINI_PROGRAM = app_token(OWNER, APPID)
ACCOUNT = app_token(OWNER, official_account(OWNER, os.environ["WXGATE_SIMULATOR"]))

# What nobody but WeChat reaches: its signature is made with a secret. push_with_wechatpy.py calls these as WeChat does.
SIGNED = {"GET /callbacks/{appid}", "POST /callbacks/{appid}"}
# What is passed on to WeChat: the parameter is a path with slashes, which are escaped in every request that is made from the
# document, and such paths are not passed on. tests/product/drop_in/pass_through.rs makes these calls.
PASSED_ON = {f"{method} /{home}/{{path}}" for method in ("GET", "POST") for home in ("cgi-bin", "wxa", "wxaapi")}
# What a bad access_token is told.
BAD_TOKEN = {40001, 40014, 41001, 42001}
# How often something was decided, for each operation: its first right request is sure to be told what nobody can guess.
TURNS = collections.defaultdict(itertools.count)

# What nobody can guess, so that every second right request is told it: ids of things that are there, secrets, and messages that
# WeChat takes.
HOOK = CALLER.call("POST", "/v1/webhooks", {"url": "https://wxgate.invalid/hook", "events": ["*"]})
EVENT = CALLER.call("POST", f"/v1/webhooks/{HOOK['id']}/test")
USELESS = CALLER.call("POST", "/v1/keys", {"name": "useless", "scopes": ["apps:read"]})
THERE = {
    "revoke_key": {"key_id": USELESS["client_id"]},
    "revoke_tenant_key": {"tenant_id": OTHER["id"], "key_id": SPARE["client_id"]},
    "redeliver_webhook_event": {"webhook_id": HOOK["id"], "event_id": EVENT["event_id"]},
}
APP_SECRET = {"grant_type": "client_credential", "appid": APPID, "secret": OWNER.key["client_secret"]}
MESSAGE = {"touser": "oSchemathesis", "template_id": TEMPLATE, "data": {"thing1": {"value": "保温杯"}}}
FORM = {"template_id": "template-1", "form_id": "form-1", "data": {"keyword1": {"value": "339208499"}}}
QUERIES = {"get_token": APP_SECRET, "code_to_session": APP_SECRET | {"grant_type": "authorization_code"}}
BODIES = {
    "issue_token": {"grant_type": "client_credentials", **OWNER.key},
    "get_stable_token": APP_SECRET,
    "send_subscribe": MESSAGE,
    "send_template": MESSAGE,
    "send_wxopen_template": MESSAGE | FORM,
}


@schemathesis.auth(refresh_interval=None).apply_to(path_regex="^/v1/")
class SignedIn:
    """Operators for tenants, a tenant's key for everything else."""

    def get(self, case, context):
        return OPERATOR.token if case.path.startswith("/v1/tenants") else CALLER.token

    def set(self, case, token, context):
        case.headers["Authorization"] = f"Bearer {token}"


@schemathesis.auth(refresh_interval=None).apply_to(path_regex="^/(cgi-bin|wxa|wxaapi)/")
class AsAnApp:
    """The official account for its messages, a mini-program for everything else."""

    def get(self, case, context):
        return ACCOUNT if case.path == "/cgi-bin/message/template/send" else MINI_PROGRAM

    def set(self, case, token, context):
        case.query = {**(case.query or {}), "access_token": token}


def errcode(response):
    """WeChat's word for what became of a call; none: it is no answer in WeChat's form."""
    try:
        answer = response.json()
    except ValueError:
        return None
    return answer.get("errcode") if isinstance(answer, dict) else None


@schemathesis.check
def a_token_of_an_app_is_asked_for(ctx, response, case):
    """WeChat's own calls are closed to whoever has no token: told by `errcode`, where other calls have a status."""
    wants = case.operation.definition.raw.get("security") == [{"wechat": []}]
    token = (case.query or {}).get("access_token")
    if wants and response.status_code == 200 and token not in (MINI_PROGRAM, ACCOUNT):
        assert errcode(response) in BAD_TOKEN, f"a call with the token {token!r} was answered: {response.text}"


@schemathesis.check
class EveryOperationIsReached:
    """A run in which an operation never did what it is for says nothing of that operation."""

    def __init__(self):
        self.tried, self.reached = set(), set()

    def after_response(self, ctx, response, case):
        name = case.operation.label
        self.tried.add(name)
        if 200 <= response.status_code < 300 and errcode(response) in (None, 0):
            self.reached.add(name)

    def after_run(self, ctx):
        missed = self.tried - self.reached - SIGNED - PASSED_ON
        assert not missed, f"never answered well: {', '.join(sorted(missed))}"
        found = self.reached & (SIGNED | PASSED_ON)
        assert not found, f"can be reached after all, say so in hooks.py: {', '.join(sorted(found))}"


@schemathesis.hook
def before_call(context, case, kwargs):
    """The tenant and the key that everything is done with stay as they are, nobody waits long, and webhooks lead nowhere:
    nobody but the gateway is to be tested."""
    name = case.operation.definition.raw.get("operationId")
    is_right = case.meta is not None and not case.meta.generation.mode.is_negative
    if is_right and next(TURNS[name]) % 2 == 0:
        case.path_parameters = (case.path_parameters or {}) | THERE.get(name, {})
        case.query = (case.query or {}) | QUERIES.get(name, {})
        case.body = BODIES.get(name, case.body)
    parameters = case.path_parameters or {}
    if parameters.get("tenant_id") == TENANT["id"] and case.operation.method.upper() != "GET":
        parameters["tenant_id"] = OTHER["id"]
    if parameters.get("key_id") == KEY["client_id"]:
        parameters["key_id"] = SPARE["client_id"]
    headers = case.headers or {}
    if str(headers.get("Prefer", "")).startswith("wait="):
        # What waits for a message that does not end takes a second: a few are enough.
        if next(TURNS["wait"]) % 8:
            headers.pop("Prefer")
        else:
            headers["Prefer"] = "wait=1"
    if re.fullmatch("[!-~]{1,255}", headers.get("Idempotency-Key", "")):
        # One key stands for one request: the second of one name would be refused, or told of a thing that is gone.
        headers["Idempotency-Key"] = secrets.token_hex(8)
    if name in ("send_message", "send_batch") and isinstance(case.body, dict) and not is_right:
        # The gateway takes a subscribe message without its channel, which the document wants of clients.
        messages = case.body.get("messages", []) if name == "send_batch" else [case.body]
        for message in messages if isinstance(messages, list) else []:
            if isinstance(message, dict):
                message.setdefault("channel", "none")
    if name == "send_message" and isinstance(case.body, dict):
        # Half of the messages are for later, so that some can be called back.
        if "send_at" not in case.body and next(TURNS["later"]) % 2:
            later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
            case.body["send_at"] = later.isoformat()
    if isinstance(case.body, dict) and isinstance(case.body.get("url"), str):
        case.body["url"] = re.sub(r"^(https?://)[^/?#]*", r"\1wxgate.invalid", case.body["url"])
