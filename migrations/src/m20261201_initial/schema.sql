-- The schema of wxgate, for PostgreSQL and SQLite.
--
-- The types are PostgreSQL's: UUID, BYTEA and BIGINT. The module `sql` puts SQLite's types in their place.
--
--   *_at, *_until, *_since, *_from, send_at   milliseconds since 1970 (UTC)
--   *_sealed                                  encrypted with the master key, a few dozen bytes longer than the plain value
--   UUID ids                                  sort by the time of their creation
--   0 or 1 in a BIGINT                        a condition, no or yes
--
-- Among indexes of equal cost, as on an empty table, PostgreSQL takes the one that was created last. So the order of the
-- indexes of a table matters for plans that are made early and stay in use.
--
-- A table that records what happened names tenants, apps and endpoints without a foreign key: the record outlives them.


-- Tenants and API keys ------------------------------------------------------------------------------------------------

-- A customer of the platform. Every other row with a tenant_id belongs to this tenant alone.
CREATE TABLE tenant (
    id UUID NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    status TEXT NOT NULL, -- active or suspended
    requests_per_second BIGINT NOT NULL,
    messages_per_day BIGINT, -- NULL: no limit
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL -- each change has a different time: the ETag
);

-- The use of a tenant's daily limit. Only tenants that have, or had, a limit have a row. The intake for such a tenant
-- locks the row.
CREATE TABLE tenant_usage (
    tenant_id UUID NOT NULL PRIMARY KEY,
    day BIGINT NOT NULL, -- the number of the Beijing day, counted from the year 1
    messages BIGINT NOT NULL, -- messages accepted on that day
    FOREIGN KEY (tenant_id) REFERENCES tenant (id)
);

-- A credential for the API, and an OAuth client.
CREATE TABLE api_key (
    id UUID NOT NULL PRIMARY KEY,
    tenant_id UUID, -- NULL: a key of the operators
    name TEXT NOT NULL,
    secret_hash BYTEA NOT NULL, -- a keyed hash; the secret itself is stored nowhere
    scopes TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT, -- NULL: never
    last_used_at BIGINT, -- to the minute
    revoked_at BIGINT, -- not NULL: the key is refused
    created_by TEXT, -- the actor, as in audit.actor: the revocation of a key also revokes the keys that the key made
    FOREIGN KEY (tenant_id) REFERENCES tenant (id)
);

-- Lists and counts the keys of a tenant.
CREATE INDEX api_key_tenant ON api_key (tenant_id);
-- Finds the keys that were made with a revoked key.
CREATE INDEX api_key_maker ON api_key (created_by);


-- The gateway's own keys ----------------------------------------------------------------------------------------------

-- The Ed25519 keys that sign access tokens.
CREATE TABLE signing_key (
    kid TEXT NOT NULL PRIMARY KEY, -- the key id in the header of a token
    private_sealed BYTEA NOT NULL,
    public_key TEXT NOT NULL, -- the JWK member "x": base64url of 32 bytes
    created_at BIGINT NOT NULL,
    signs_from BIGINT NOT NULL, -- later than created_at, so that all replicas know the key by then
    retired_at BIGINT -- from then on the key's tokens are refused; NULL: the key has no successor
);

-- Other keys of the gateway, made once for each database. These keys stay the same when the master key changes.
CREATE TABLE sealed_key (
    name TEXT NOT NULL PRIMARY KEY,
    sealed BYTEA NOT NULL,
    created_at BIGINT NOT NULL
);


-- Apps and templates --------------------------------------------------------------------------------------------------

-- A WeChat app (mini program or official account) of a tenant.
CREATE TABLE app (
    appid TEXT NOT NULL PRIMARY KEY,
    tenant_id UUID NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    token_mode TEXT NOT NULL, -- how the gateway fetches the app's access token
    daily_quota BIGINT NOT NULL, -- messages that WeChat accepts in one Beijing day
    grant_policy TEXT NOT NULL, -- observe or strict: what the ledger decides about subscribe messages
    counts_grants BIGINT NOT NULL, -- 1: the app has rows in `subscription`, so its sends are counted there
    secret_sealed BYTEA NOT NULL, -- the AppSecret
    -- Token and EncodingAESKey of the message push settings, and the pair before the last change. Without a Token the
    -- gateway accepts no callback.
    callback_token_sealed BYTEA,
    callback_aes_key_sealed BYTEA,
    previous_callback_token_sealed BYTEA,
    previous_callback_aes_key_sealed BYTEA,
    callback_changed_at BIGINT,
    verified_at BIGINT, -- when WeChat last accepted the AppSecret
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL, -- each change has a different time: the ETag
    value_rules TEXT NOT NULL DEFAULT 'strict', -- strict or warn: messages with values that break the rules of their types
    FOREIGN KEY (tenant_id) REFERENCES tenant (id)
);

-- Lists the apps of a tenant.
CREATE INDEX app_tenant ON app (tenant_id);

-- The sending state of an app. Every claim locks this row, so the row is separate from the wide `app` row. WeChat counts
-- by appid: the row of a removed app stays until the day of its counts is over.
CREATE TABLE lane (
    appid TEXT NOT NULL PRIMARY KEY,
    quota_day BIGINT NOT NULL, -- the number of the Beijing day, counted from the year 1
    quota_used BIGINT NOT NULL, -- sends on that day
    minute BIGINT NOT NULL, -- the number of the minute, counted from 1970
    minute_used BIGINT NOT NULL, -- sends in that minute
    minute_limit BIGINT, -- the pace in sends a minute; NULL: no limit
    paused_until BIGINT, -- NULL: the app is not paused
    pause_reason TEXT, -- for programs, in one word
    pause_detail TEXT -- for people, in a sentence
);

-- A template that WeChat lists, or has listed.
CREATE TABLE template (
    appid TEXT NOT NULL,
    id TEXT NOT NULL,
    kind TEXT NOT NULL, -- one_time, long_term, form_id or official
    title TEXT NOT NULL,
    content TEXT NOT NULL,
    example TEXT NOT NULL,
    key_values TEXT NOT NULL, -- the values that keys may have, as JSON
    created_at BIGINT NOT NULL, -- when a sync first found the template
    changed_at BIGINT NOT NULL, -- when a sync last found the template changed, gone or restored
    gone_at BIGINT, -- since when WeChat does not list the template
    PRIMARY KEY (appid, id)
);

-- The last sync of an app's templates with WeChat, and the next one.
CREATE TABLE template_sync (
    appid TEXT NOT NULL PRIMARY KEY,
    tenant_id UUID NOT NULL,
    kind TEXT NOT NULL,
    revision BIGINT NOT NULL, -- grows with every change of the app's templates, and when syncs begin to fail or to succeed
    synced_at BIGINT, -- when WeChat last answered with the templates
    tried_at BIGINT, -- when the gateway last asked WeChat
    failure TEXT, -- why the last sync failed; NULL: the last sync succeeded
    due_at BIGINT NOT NULL -- when the gateway asks WeChat next
);

-- Finds the apps whose sync is due.
CREATE INDEX template_sync_due ON template_sync (due_at);


-- Messages ------------------------------------------------------------------------------------------------------------

-- The queue and the history of messages.
CREATE TABLE message (
    id UUID NOT NULL PRIMARY KEY,
    tenant_id UUID NOT NULL,
    appid TEXT NOT NULL,
    touser TEXT NOT NULL, -- the openid of the recipient
    template_id TEXT NOT NULL,
    priority BIGINT NOT NULL, -- a claim takes the lowest number first
    -- What tenants see: scheduled, queued, sending, sent, delivered, undelivered, failed, expired, canceled or uncertain.
    status TEXT NOT NULL,
    phase BIGINT NOT NULL, -- what the queue sees: 0 ready, 1 waiting, 2 behind, 3 in flight, 4 ended
    content TEXT NOT NULL, -- the channel and the channel's fields, as JSON
    metadata TEXT, -- the tenant's own JSON, returned unchanged
    reference TEXT, -- the tenant's own id of the message
    on_uncertain TEXT NOT NULL, -- hold or retry: after an attempt with an unknown outcome
    permit BIGINT NOT NULL, -- bits 0 and 1: 0 free, 1 pool, 2 counted, 3 reserved; bits 2 and 3: the requested policy
    send_at BIGINT, -- the requested time; NULL: at once
    ttl_seconds BIGINT NOT NULL,
    due_at BIGINT NOT NULL, -- the time of the next attempt
    expires_at BIGINT NOT NULL, -- no attempt begins later
    attempt_count BIGINT NOT NULL,
    attempts TEXT NOT NULL, -- the attempts and WeChat's answers, as JSON
    lease BIGINT, -- a random number of the claim that took the message; a record under another lease changes nothing
    lease_until BIGINT, -- from then on another replica decides about the message
    followed BIGINT NOT NULL, -- 1: another message to the recipient waits for the end of this one
    retried_at BIGINT, -- the last retry on request
    msgid TEXT, -- WeChat's id of the accepted message
    failure_code TEXT, -- for programs, in one word
    failure_detail TEXT, -- for people, in a sentence
    payload_dropped_at BIGINT, -- when retention removed the personal data
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

-- Lists the messages of an app, newest first.
CREATE INDEX message_app ON message (appid, id);
-- Lists the messages to a recipient, newest first, and finds the message of a receipt, which is among the first few.
CREATE INDEX message_person ON message (appid, touser, id);
-- Lists the messages with a tenant's reference.
CREATE INDEX message_reference ON message (appid, reference) WHERE reference IS NOT NULL;

-- The partial indexes are the queue. Each index holds one phase, so a search for work costs the same with ten rows of
-- history and with ten million.

-- Ready: a claim takes the messages of an app by priority and due time.
CREATE INDEX message_ready ON message (appid, priority, due_at, id) WHERE phase = 0;
-- Waiting: promotes the messages that become due, and finds the time of the next one.
CREATE INDEX message_waiting ON message (due_at) WHERE phase = 1;
-- Behind: the end of a message releases the recipient's next message.
CREATE INDEX message_behind ON message (appid, touser, priority, due_at) WHERE phase = 2;
-- In flight: a claim looks whether the recipient has a message in flight; the sweep finds the leases that have ended.
CREATE INDEX message_flying ON message (appid, touser) WHERE phase = 3;
-- Not yet sent: the sweep finds the messages that expire.
CREATE INDEX message_unsent ON message (expires_at) WHERE phase < 3;

-- Lists the messages with a rare status, newest first. A message that is accepted, sent and delivered is never in the
-- index.
CREATE INDEX message_rare ON message (appid, status, id)
    WHERE status <> 'queued' AND status <> 'sending' AND status <> 'sent' AND status <> 'delivered';
-- Lists the messages of a template, newest first.
CREATE INDEX message_template ON message (appid, template_id, id);

-- The answer to a request under an idempotency key.
CREATE TABLE idempotency (
    tenant_id UUID NOT NULL, -- the nil UUID: the operators
    key TEXT NOT NULL,
    fingerprint BYTEA NOT NULL, -- a hash of the request: the same key with another request is refused
    answer TEXT NOT NULL, -- what the answer to a submission is built from, as JSON; "sealed": see answer_sealed
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    answer_sealed BYTEA, -- the answer to a request that is no submission
    PRIMARY KEY (tenant_id, key)
);

-- Finds the keys that have expired, to delete them.
CREATE INDEX idempotency_end ON idempotency (expires_at);


-- Grants --------------------------------------------------------------------------------------------------------------

-- The form-id pool: form ids and prepay ids, each of which permits messages to one user. A spent id stays, so that the
-- same id is not collected again.
CREATE TABLE form_id (
    appid TEXT NOT NULL,
    value TEXT NOT NULL,
    tenant_id UUID NOT NULL,
    openid TEXT NOT NULL,
    kind TEXT NOT NULL, -- form_id or prepay_id
    uses_left BIGINT NOT NULL,
    held_by UUID, -- the message that took the id and has no outcome yet
    collected_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    PRIMARY KEY (appid, value)
);

-- Finds a user's next id to expire, and counts the ids of an app, without a look into the table. A spent id leaves the
-- index.
CREATE INDEX form_id_unspent ON form_id (appid, openid, expires_at, value, uses_left, held_by, tenant_id) WHERE uses_left > 0;
-- Finds the id that a message holds.
CREATE INDEX form_id_held ON form_id (held_by) WHERE held_by IS NOT NULL;
-- Finds the ids that have expired, to delete them.
CREATE INDEX form_id_end ON form_id (expires_at);

-- The subscription ledger: how many messages of a template a user accepts.
CREATE TABLE subscription (
    appid TEXT NOT NULL,
    openid TEXT NOT NULL,
    template_id TEXT NOT NULL,
    tenant_id UUID NOT NULL,
    remaining BIGINT NOT NULL,
    long_term BIGINT NOT NULL, -- 1: the tenant reported a long-term template, whose `remaining` no send lowers
    untold TEXT NOT NULL, -- the acceptances that only the tenant or only WeChat has reported, as JSON
    reported_at BIGINT, -- the last acceptance that the tenant reported
    confirmed_at BIGINT, -- the last acceptance in an event from WeChat
    revoked_at BIGINT, -- the user's last revocation
    PRIMARY KEY (appid, openid, template_id)
);

-- Counts the users that a template reaches.
CREATE INDEX subscription_reach ON subscription (appid, template_id, remaining, tenant_id) WHERE remaining > 0;

-- The stored counts of an app with too many grants for a count at every request.
CREATE TABLE grant_count (
    appid TEXT NOT NULL PRIMARY KEY,
    tenant_id UUID NOT NULL,
    pool TEXT NOT NULL, -- the counts of the form-id pool, as JSON
    templates TEXT NOT NULL, -- the counts of each template, as JSON
    as_of BIGINT NOT NULL, -- the time of the count, in milliseconds since 1970
    due_at BIGINT NOT NULL -- when the next count is due
);


-- Callbacks -----------------------------------------------------------------------------------------------------------

-- A receipt whose message is not known yet: the receipt came before the answer of the send was recorded, or the answer
-- was lost.
CREATE TABLE receipt (
    appid TEXT NOT NULL,
    touser TEXT NOT NULL,
    msgid TEXT NOT NULL,
    status TEXT NOT NULL,
    failure_detail TEXT,
    received_at BIGINT NOT NULL,
    look_at BIGINT NOT NULL, -- when the sweep tries the receipt again
    -- Matches a message without a known msgid.
    channel TEXT, -- subscribe, template or official
    template_id TEXT,
    happened_at BIGINT,
    tenant_id UUID, -- the owner of the app when the receipt came; NULL: the present owner
    PRIMARY KEY (appid, touser, msgid)
);

-- The sweep takes the apps in rotation, and the due receipts of each app.
CREATE INDEX receipt_turn ON receipt (appid, look_at);

-- An event of WeChat's that has been processed and must not count twice: WeChat sends some events more than once.
CREATE TABLE heard_event (
    appid TEXT NOT NULL,
    digest BYTEA NOT NULL, -- a hash of the event's user, time and content
    received_at BIGINT NOT NULL,
    PRIMARY KEY (appid, digest)
);

-- Finds the digests that are old enough to delete.
CREATE INDEX heard_event_age ON heard_event (received_at);


-- Webhooks ------------------------------------------------------------------------------------------------------------

-- A webhook endpoint: a tenant's URL for events.
CREATE TABLE webhook (
    id UUID NOT NULL PRIMARY KEY,
    tenant_id UUID NOT NULL,
    url TEXT NOT NULL,
    events TEXT NOT NULL, -- the types of events that the endpoint gets
    description TEXT,
    status TEXT NOT NULL, -- enabled or disabled
    disabled_reason TEXT, -- why the gateway disabled the endpoint; NULL: the tenant did, or the endpoint is enabled
    secret_sealed BYTEA NOT NULL,
    previous_secret_sealed BYTEA, -- the secret before the last rotation
    previous_secret_until BIGINT, -- until then the previous secret signs too
    failing_since BIGINT, -- since when every attempt has failed; NULL: the last attempt succeeded
    failures BIGINT NOT NULL, -- failed attempts since then
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    FOREIGN KEY (tenant_id) REFERENCES tenant (id)
);

-- Lists the endpoints of a tenant, and finds the endpoints that get an event.
CREATE INDEX webhook_tenant ON webhook (tenant_id);

-- One event for one endpoint. There is no foreign key to the endpoint, because the record of a message must not fail
-- when the endpoint is removed at the same moment.
CREATE TABLE webhook_delivery (
    webhook_id UUID NOT NULL,
    event_id UUID NOT NULL,
    tenant_id UUID NOT NULL,
    kind TEXT NOT NULL, -- the type of the event
    message_id UUID, -- NULL: the event is not about a message
    facts TEXT NOT NULL, -- the state of the message at the time of the event, or the event's data, as JSON
    status TEXT NOT NULL, -- pending: an attempt is left
    attempt_count BIGINT NOT NULL,
    due_at BIGINT NOT NULL, -- the time of the next attempt; of a delivery in flight: the end of the lease
    retry_from BIGINT NOT NULL, -- the attempts count from here: the creation, or the last redelivery on request
    lease BIGINT, -- a random number of the claim that took the delivery
    response_status BIGINT, -- the HTTP status of the last response
    response_excerpt TEXT,
    error TEXT, -- the error of the last attempt
    created_at BIGINT NOT NULL, -- the time of the event
    attempted_at BIGINT, -- the time of the last attempt
    ended_at BIGINT, -- when the delivery succeeded, or was given up
    PRIMARY KEY (webhook_id, event_id)
);

-- As with messages, the partial indexes hold the deliveries with work left, and no history.

-- A claim looks whether an earlier event of the same message is still pending.
CREATE INDEX webhook_delivery_order ON webhook_delivery (webhook_id, message_id, event_id) WHERE status = 'pending';
-- Counts the deliveries in flight to each endpoint.
CREATE INDEX webhook_delivery_flying ON webhook_delivery (webhook_id) WHERE lease IS NOT NULL;
-- Finds the deliveries that are old enough to delete.
CREATE INDEX webhook_delivery_age ON webhook_delivery (created_at);
-- A claim takes the tenants in rotation, their endpoints in rotation, and the due deliveries of each endpoint.
CREATE INDEX webhook_delivery_turn ON webhook_delivery (tenant_id, webhook_id, due_at, event_id) WHERE status = 'pending';


-- Operation -----------------------------------------------------------------------------------------------------------

-- The audit log. A line outlives the tenant that the line names.
CREATE TABLE audit (
    id UUID NOT NULL PRIMARY KEY,
    tenant_id UUID, -- NULL: the platform
    actor TEXT NOT NULL,
    action TEXT NOT NULL, -- in one word
    target TEXT NOT NULL, -- the thing that the action concerns
    outcome TEXT NOT NULL, -- in one word
    detail TEXT,
    request_id TEXT,
    address TEXT, -- of the client
    at BIGINT NOT NULL -- milliseconds since 1970
);

-- Lists the lines of a tenant, newest first.
CREATE INDEX audit_tenant ON audit (tenant_id, id);

-- A single row. All replicas write the row every second, by the database's own clock, to show since when the
-- database has taken writes.
CREATE TABLE heartbeat (
    id BIGINT NOT NULL PRIMARY KEY, -- always 1
    beat_at BIGINT NOT NULL, -- the last write
    steady_since BIGINT NOT NULL -- since when replicas have written the row without a gap
);
