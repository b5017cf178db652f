-- What lists of executions show and find: titles, searches, waits, and the last change.

-- `search` holds the words of the title, the id and the correlation id. Each begins with the organization's id,
-- so that a search reads nothing of other organizations.
ALTER TABLE docg.execution_data ADD COLUMN title text, ADD COLUMN search tsvector;

UPDATE docg.execution_data d
SET search = array_to_tsvector(ARRAY[
    replace(e.organization_id::text, '-', '') || '=' || e.id,
    replace(e.organization_id::text, '-', '') || '~' || e.correlation_id])
FROM docg.executions e WHERE e.id = d.execution_id;

CREATE INDEX execution_data_search ON docg.execution_data USING gin (search);

-- Only an execution that nobody has leased has `rested_at`. Its leased ones, which change often, are few: they are
-- found by `executions_leased`, so that their commits touch no index.
ALTER TABLE docg.executions
    ADD COLUMN waiting_kind text GENERATED ALWAYS AS (waiting_for ->> 'kind') STORED,
    ADD COLUMN rested_at timestamptz GENERATED ALWAYS AS (
        CASE WHEN expires_at IS NULL THEN updated_at END) STORED;

CREATE INDEX executions_list_waiting
    ON docg.executions (organization_id, waiting_kind, created_at, id) WHERE waiting_kind IS NOT NULL;
CREATE INDEX executions_list_rested
    ON docg.executions (organization_id, rested_at, id) WHERE rested_at IS NOT NULL;
