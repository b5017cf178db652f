-- Executions and all that belongs to them.
--
-- No foreign key leads from a child table to executions: each row there is written by a statement
-- that holds its execution's row, and a check per row would cost more than the row.

-- Sets of node types, each with a number: what an execution needs and what a worker has is then
-- compared by number.
CREATE TABLE docg.node_type_sets (
    id          integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    node_types  text[] NOT NULL UNIQUE
);

-- What executions were created with, by the SHA-256 of its content: a thousand runs of one
-- version share one row.
CREATE TABLE docg.definitions (
    hash        bytea PRIMARY KEY CHECK (length(hash) = 32),
    definition  json NOT NULL
);

-- The row that every commit rewrites. Nothing that is large and nothing that only grows is in it.
-- A commit that changes neither the status nor who has the execution changes no indexed column,
-- so that Postgres needs to touch no index.
CREATE TABLE docg.executions (
    id                  uuid PRIMARY KEY,
    organization_id     uuid NOT NULL,
    workflow_id         uuid NOT NULL,
    workflow_version    bigint NOT NULL,
    status              text NOT NULL CHECK (status IN (
        'queued', 'running', 'needs_review', 'ready', 'sending', 'sent', 'signing', 'signed',
        'paused', 'completed', 'failed', 'canceled')),
    progress            smallint NOT NULL CHECK (progress BETWEEN 0 AND 100),
    current_step        json,
    waiting_for         json,
    error_code          text,
    last_error_human    json,
    last_error_tech     text,
    preflight_summary   json,
    delivery_state      text NOT NULL CHECK (delivery_state IN (
        'pending', 'sending', 'sent', 'failed')),
    signature_state     text NOT NULL CHECK (signature_state IN (
        'pending', 'signing', 'signed', 'declined', 'expired')),
    phase_metrics       json NOT NULL,
    correlation_id      text NOT NULL,
    trigger_type        text NOT NULL,
    retry_of            uuid,
    follows             uuid,
    dry_run             boolean NOT NULL,
    until_phase         text,
    attempt             bigint NOT NULL,
    version             bigint NOT NULL,
    created_at          timestamptz NOT NULL,
    started_at          timestamptz,
    completed_at        timestamptz,
    updated_at          timestamptz NOT NULL,

    -- What the engine needs to go on.
    paused_from         text,
    preflight_due       boolean NOT NULL,
    delivery_confirmed  boolean NOT NULL,
    priority            smallint NOT NULL,
    wake_at             timestamptz,
    event_seq           bigint NOT NULL,
    log_seq             bigint NOT NULL,
    audit_seq           bigint NOT NULL,
    audit_hash          bytea NOT NULL CHECK (length(audit_hash) = 32),

    -- Who has it. The worker stays named when its lease has run out, until another takes over.
    type_set            integer NOT NULL,
    worker_id           uuid,
    fence               bigint NOT NULL DEFAULT 0,
    lease_until         timestamptz,
    -- When somebody should look whether the lease has run out: never later than its end. Null
    -- while nobody has the execution, or after the lease has run out.
    expires_at          timestamptz,
    -- When it wants a worker; null while it has one, or needs none.
    due_at              timestamptz,

    -- Its inbox: how many signals wait, and the moment from which the oldest does.
    signals_pending     integer NOT NULL DEFAULT 0,
    signaled_at         timestamptz,

    -- The last event that is known to be on the bus, and the last audit row in a checkpoint.
    published           bigint NOT NULL DEFAULT 0,
    checkpointed        bigint NOT NULL DEFAULT 0,
    is_published        boolean GENERATED ALWAYS AS (published >= event_seq) STORED,
    is_checkpointed     boolean GENERATED ALWAYS AS (checkpointed >= audit_seq) STORED,
    ended_at            timestamptz GENERATED ALWAYS AS (
        CASE WHEN status IN ('completed', 'failed', 'canceled')
        THEN coalesce(completed_at, updated_at) END) STORED
) WITH (fillfactor = 75);

-- Lists, newest first.
CREATE INDEX executions_list ON docg.executions (organization_id, created_at, id);
CREATE INDEX executions_list_status ON docg.executions (organization_id, status, created_at, id);
CREATE INDEX executions_list_workflow
    ON docg.executions (organization_id, workflow_id, created_at, id);
CREATE INDEX executions_list_workflow_status
    ON docg.executions (organization_id, workflow_id, status, created_at, id);
-- Who is due: by priority, organization and node types, so that a flood of one is passed over.
CREATE INDEX executions_line
    ON docg.executions (priority, organization_id, type_set, due_at, id) WHERE due_at IS NOT NULL;
CREATE INDEX executions_due ON docg.executions (due_at) WHERE due_at IS NOT NULL;
-- Who is leased: by when somebody should look, and how many of each organization.
CREATE INDEX executions_expiring ON docg.executions (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX executions_leased ON docg.executions (organization_id) WHERE expires_at IS NOT NULL;
CREATE INDEX executions_unpublished ON docg.executions (id) WHERE NOT is_published;
CREATE INDEX executions_ended ON docg.executions (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX executions_uncheckpointed
    ON docg.executions (organization_id, id) WHERE NOT is_checkpointed;

-- What an execution works on. Changes only when a person repairs it.
CREATE TABLE docg.execution_data (
    execution_id     uuid PRIMARY KEY,
    definition_hash  bytea NOT NULL REFERENCES docg.definitions (hash),
    trigger_data     json NOT NULL,
    node_overrides   json NOT NULL,
    created_by       json NOT NULL,
    traceparent      text
);
CREATE INDEX execution_data_definition ON docg.execution_data (definition_hash);

CREATE TABLE docg.execution_steps (
    execution_id     uuid NOT NULL,
    position         integer NOT NULL,
    id               uuid NOT NULL,
    node_id          text NOT NULL,
    node_type        text NOT NULL,
    label            text NOT NULL,
    phase            text NOT NULL CHECK (phase IN (
        'preflight', 'trigger', 'render', 'save', 'delivery', 'signature')),
    status           text NOT NULL CHECK (status IN (
        'pending', 'running', 'success', 'failure', 'skipped')),
    activity         text NOT NULL,
    attempt          bigint NOT NULL,
    attempts_before  bigint NOT NULL,
    takeovers        bigint NOT NULL,
    started_at       timestamptz,
    completed_at     timestamptz,
    error_code       text,
    error_human      json,
    error_tech       text,
    data_in          json,
    data_out         json,
    output           json,
    reused_from      uuid,
    PRIMARY KEY (execution_id, position)
) WITH (fillfactor = 80);

CREATE TABLE docg.execution_events (
    execution_id  uuid NOT NULL,
    seq           bigint NOT NULL,
    event_id      uuid NOT NULL,
    event_type    text NOT NULL,
    timestamp     timestamptz NOT NULL,
    status        text NOT NULL CHECK (status IN (
        'queued', 'running', 'needs_review', 'ready', 'sending', 'sent', 'signing', 'signed',
        'paused', 'completed', 'failed', 'canceled')),
    progress      smallint NOT NULL,
    current_step  json,
    data          json NOT NULL,
    PRIMARY KEY (execution_id, seq)
);

CREATE TABLE docg.execution_logs (
    execution_id    uuid NOT NULL,
    seq             bigint NOT NULL,
    id              uuid NOT NULL,
    step_id         text,
    timestamp       timestamptz NOT NULL,
    level           text NOT NULL CHECK (level IN ('ok', 'warn', 'error')),
    domain          text NOT NULL CHECK (domain IN (
        'preflight', 'step', 'delivery', 'signature', 'execution')),
    message_human   json NOT NULL,
    message_tech    text,
    details_tech    json,
    correlation_id  text NOT NULL,
    PRIMARY KEY (execution_id, seq)
);

-- The inbox. What is settled stays until its execution goes, so that a repeated signal is known.
CREATE TABLE docg.signals (
    id               uuid PRIMARY KEY,
    execution_id     uuid NOT NULL,
    arrival          bigint GENERATED ALWAYS AS IDENTITY,
    organization_id  uuid NOT NULL,
    kind             text NOT NULL,
    signal           json NOT NULL,
    received_at      timestamptz NOT NULL,
    is_settled       boolean NOT NULL DEFAULT false
);
CREATE INDEX signals_inbox ON docg.signals (execution_id, arrival);

CREATE TABLE docg.signature_requests (
    id               uuid PRIMARY KEY,
    execution_id     uuid NOT NULL,
    arrival          bigint GENERATED ALWAYS AS IDENTITY,
    organization_id  uuid NOT NULL,
    node_id          text NOT NULL,
    provider         text NOT NULL,
    envelope_id      text NOT NULL,
    status           text NOT NULL CHECK (status IN (
        'signing', 'signed', 'declined', 'expired', 'canceled')),
    signers          json NOT NULL,
    file             json NOT NULL,
    created_at       timestamptz NOT NULL,
    expires_at       timestamptz,
    completed_at     timestamptz
);
CREATE INDEX signature_requests_execution ON docg.signature_requests (execution_id, arrival);
CREATE INDEX signature_requests_envelope
    ON docg.signature_requests (provider, envelope_id, arrival);

CREATE TABLE docg.approvals (
    id               uuid PRIMARY KEY,
    execution_id     uuid NOT NULL,
    arrival          bigint GENERATED ALWAYS AS IDENTITY,
    organization_id  uuid NOT NULL,
    node_id          text NOT NULL,
    message          text,
    approvers        json NOT NULL,
    token_hashes     bytea[] NOT NULL,
    quorum           bigint NOT NULL,
    decision         text CHECK (decision IN ('approved', 'rejected')),
    decided_by       text,
    created_at       timestamptz NOT NULL,
    decided_at       timestamptz,
    expires_at       timestamptz,
    on_expiry        text NOT NULL CHECK (on_expiry IN ('fail', 'approve', 'review'))
);
CREATE INDEX approvals_execution ON docg.approvals (execution_id, arrival);
CREATE INDEX approvals_token ON docg.approvals USING gin (token_hashes) WITH (fastupdate = off);

CREATE TABLE docg.idempotency_keys (
    organization_id  uuid NOT NULL,
    key              text NOT NULL,
    fingerprint      bytea NOT NULL CHECK (length(fingerprint) = 32),
    execution_id     uuid NOT NULL,
    PRIMARY KEY (organization_id, key)
);
CREATE INDEX idempotency_keys_execution ON docg.idempotency_keys (execution_id);

-- The current version of each workflow.
CREATE TABLE docg.workflows (
    organization_id  uuid NOT NULL,
    id               uuid NOT NULL,
    version          bigint NOT NULL,
    name             text NOT NULL,
    input_schema     json NOT NULL,
    settings         json NOT NULL,
    nodes            json NOT NULL,
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL,
    is_deleted       boolean NOT NULL DEFAULT false,
    PRIMARY KEY (organization_id, id)
);
CREATE INDEX workflows_list
    ON docg.workflows (organization_id, created_at, id) WHERE NOT is_deleted;

-- Small facts with an end. The nil UUID stands for no organization.
CREATE TABLE docg.memos (
    organization_id  uuid NOT NULL,
    kind             text NOT NULL,
    key              text NOT NULL,
    value            json NOT NULL,
    expires_at       timestamptz NOT NULL,
    PRIMARY KEY (organization_id, kind, key)
);
CREATE INDEX memos_expired ON docg.memos (expires_at);
