-- The audit trail: rows that nobody changes, and signed checkpoints over the chains' heads.

CREATE TABLE docg.audit_events (
    execution_id     uuid NOT NULL,
    seq              bigint NOT NULL,
    id               uuid NOT NULL,
    organization_id  uuid NOT NULL,
    timestamp        timestamptz NOT NULL,
    actor_type       text NOT NULL CHECK (actor_type IN ('user', 'system', 'webhook')),
    -- These three may be erased for a person's sake; the hash is taken over the commitment.
    actor_id         text,
    metadata         json,
    salt             uuid,
    action           text NOT NULL,
    target_type      text NOT NULL,
    target_id        text NOT NULL,
    commitment       bytea NOT NULL CHECK (length(commitment) = 32),
    prev_hash        bytea NOT NULL CHECK (length(prev_hash) = 32),
    hash             bytea NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (execution_id, seq)
);

-- Where the chains of purged executions ended: their rows stay, and must still verify.
CREATE TABLE docg.audit_heads (
    execution_id     uuid PRIMARY KEY,
    organization_id  uuid NOT NULL,
    audit_seq        bigint NOT NULL,
    audit_hash       bytea NOT NULL CHECK (length(audit_hash) = 32),
    ended_at         timestamptz NOT NULL
);
CREATE INDEX audit_heads_organization ON docg.audit_heads (organization_id, execution_id);
CREATE INDEX audit_heads_ended ON docg.audit_heads (ended_at);

-- Purged executions whose rows were removed, when the time for which they are kept was over.
CREATE TABLE docg.audit_purges (
    execution_id     uuid PRIMARY KEY,
    organization_id  uuid NOT NULL,
    purged_at        timestamptz NOT NULL
);

-- What an organization's chains were at a moment, signed with a key that is not in the database.
CREATE TABLE docg.audit_checkpoints (
    organization_id  uuid NOT NULL,
    seq              bigint NOT NULL,
    created_at       timestamptz NOT NULL,
    -- Of the checkpoint before; zeros in the first.
    prev_hash        bytea NOT NULL CHECK (length(prev_hash) = 32),
    -- Over all heads of this checkpoint, in the order of their executions.
    heads_hash       bytea NOT NULL CHECK (length(heads_hash) = 32),
    hash             bytea NOT NULL CHECK (length(hash) = 32),
    public_key       bytea NOT NULL CHECK (length(public_key) = 32),
    signature        bytea NOT NULL CHECK (length(signature) = 64),
    PRIMARY KEY (organization_id, seq)
);

-- The heads that have moved since the checkpoint before.
CREATE TABLE docg.audit_checkpoint_heads (
    organization_id  uuid NOT NULL,
    checkpoint_seq   bigint NOT NULL,
    execution_id     uuid NOT NULL,
    audit_seq        bigint NOT NULL,
    audit_hash       bytea NOT NULL CHECK (length(audit_hash) = 32),
    PRIMARY KEY (organization_id, checkpoint_seq, execution_id)
);

-- The walls behind the privileges. Two narrow doors, which only a role with the privilege can
-- reach at all, and only by saying so in its transaction:
--   docg.audit_erasure   = on: a person's data become null, and nothing else changes;
--   docg.audit_retention = on: rows of executions that are purged already are removed.
CREATE FUNCTION docg.guard_audit_events() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    erased docg.audit_events;
BEGIN
    IF TG_OP = 'UPDATE' AND current_setting('docg.audit_erasure', true) = 'on' THEN
        erased := OLD;
        erased.actor_id := NULL;
        erased.metadata := NULL;
        erased.salt := NULL;
        IF NEW::text = erased::text THEN
            RETURN NEW;
        END IF;
    ELSIF TG_OP = 'DELETE' AND current_setting('docg.audit_retention', true) = 'on'
        AND NOT EXISTS (SELECT FROM docg.executions e WHERE e.id = OLD.execution_id) THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'rows of docg.audit_events are never changed (%)', TG_OP
        USING ERRCODE = 'insufficient_privilege';
END
$$;

CREATE FUNCTION docg.guard_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of docg.% are never changed (%)', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege';
END
$$;

CREATE TRIGGER audit_events_guard BEFORE UPDATE OR DELETE ON docg.audit_events
    FOR EACH ROW EXECUTE FUNCTION docg.guard_audit_events();
CREATE TRIGGER audit_events_guard_truncate BEFORE TRUNCATE ON docg.audit_events
    FOR EACH STATEMENT EXECUTE FUNCTION docg.guard_audit_events();
CREATE TRIGGER audit_heads_guard BEFORE UPDATE OR DELETE ON docg.audit_heads
    FOR EACH ROW EXECUTE FUNCTION docg.guard_audit();
CREATE TRIGGER audit_heads_guard_truncate BEFORE TRUNCATE ON docg.audit_heads
    FOR EACH STATEMENT EXECUTE FUNCTION docg.guard_audit();
CREATE TRIGGER audit_checkpoints_guard BEFORE UPDATE OR DELETE ON docg.audit_checkpoints
    FOR EACH ROW EXECUTE FUNCTION docg.guard_audit();
CREATE TRIGGER audit_checkpoints_guard_truncate BEFORE TRUNCATE ON docg.audit_checkpoints
    FOR EACH STATEMENT EXECUTE FUNCTION docg.guard_audit();
CREATE TRIGGER audit_checkpoint_heads_guard BEFORE UPDATE OR DELETE ON docg.audit_checkpoint_heads
    FOR EACH ROW EXECUTE FUNCTION docg.guard_audit();
CREATE TRIGGER audit_checkpoint_heads_guard_truncate BEFORE TRUNCATE ON docg.audit_checkpoint_heads
    FOR EACH STATEMENT EXECUTE FUNCTION docg.guard_audit();
CREATE TRIGGER audit_purges_guard BEFORE UPDATE OR DELETE ON docg.audit_purges
    FOR EACH ROW EXECUTE FUNCTION docg.guard_audit();
CREATE TRIGGER audit_purges_guard_truncate BEFORE TRUNCATE ON docg.audit_purges
    FOR EACH STATEMENT EXECUTE FUNCTION docg.guard_audit();
