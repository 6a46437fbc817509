"""What Schemathesis cannot know of a gateway: how one signs in, and what it must not saw off under itself.

Read by Schemathesis (SCHEMATHESIS_HOOKS); run.py sets the environment.
"""

import os
import re
import secrets

import schemathesis
from wxgate import SCOPES, Gateway

OPERATOR = Gateway(os.environ["WXGATE_URL"], os.environ["WXGATE_KEYS"], "operator")
TENANT = OPERATOR.call("POST", "/v1/tenants", {"name": "schemathesis", "limits": {"requests_per_second": 100_000}})
KEY = OPERATOR.call("POST", f"/v1/tenants/{TENANT['id']}/keys", {"name": "schemathesis", "scopes": SCOPES})
CALLER = Gateway.of(os.environ["WXGATE_URL"], KEY)
# Things that may be changed and removed.
OTHER = OPERATOR.call("POST", "/v1/tenants", {"name": "other"})
SPARE = OPERATOR.call("POST", f"/v1/tenants/{OTHER['id']}/keys", {"name": "spare", "scopes": SCOPES})


@schemathesis.auth(refresh_interval=None).apply_to(path_regex="^/v1/")
class SignedIn:
    """Operators for tenants, a tenant's key for everything else."""

    def get(self, case, context):
        return OPERATOR.token if case.path.startswith("/v1/tenants") else CALLER.token

    def set(self, case, token, context):
        case.headers["Authorization"] = f"Bearer {token}"


@schemathesis.hook
def before_call(context, case, kwargs):
    """The tenant and the key that everything is done with stay as they are, nobody waits long, and webhooks lead nowhere:
    nobody but the gateway is to be tested."""
    parameters = case.path_parameters or {}
    if parameters.get("tenant_id") == TENANT["id"] and case.operation.method.upper() != "GET":
        parameters["tenant_id"] = OTHER["id"]
    if parameters.get("key_id") == KEY["client_id"]:
        parameters["key_id"] = SPARE["client_id"]
    headers = case.headers or {}
    if str(headers.get("Prefer", "")).startswith("wait="):
        headers["Prefer"] = "wait=1"
    if "Idempotency-Key" in headers and headers["Idempotency-Key"].isascii() and headers["Idempotency-Key"].isalnum():
        # One key stands for one request: two of one name would meet the refusal of the second again and again.
        headers["Idempotency-Key"] = secrets.token_hex(8)
    if isinstance(case.body, dict) and isinstance(case.body.get("url"), str):
        case.body["url"] = re.sub(r"^(https?://)[^/?#]*", r"\1wxgate.invalid", case.body["url"])
