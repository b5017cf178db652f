-- Events and log entries in one row for each commit: a row of its own for each costs more than its content.

-- What happened to an execution, in order. A row has the events and log entries of one commit as arrays of
-- JSON. `last_event` and `last_log` are the numbers of the last of each; the others follow from the lengths.
CREATE TABLE docg.journal (
    execution_id  uuid NOT NULL,
    last_event    bigint NOT NULL,
    last_log      bigint NOT NULL,
    events        json NOT NULL,
    logs          json NOT NULL,
    PRIMARY KEY (execution_id, last_event, last_log)
);
CREATE INDEX journal_logs ON docg.journal (execution_id, last_log, last_event);

-- At most a hundred records in a row, because all that an execution has may be too large for one value.
INSERT INTO docg.journal (execution_id, last_event, last_log, events, logs)
SELECT v.execution_id, max(v.seq), 0,
    json_agg(json_build_object('event_id', v.event_id,
        'timestamp', to_char(v.timestamp AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
        'status', v.status, 'progress', v.progress, 'current_step', v.current_step,
        'event_type', v.event_type, 'data', v.data) ORDER BY v.seq),
    '[]'
FROM docg.execution_events v
GROUP BY v.execution_id, (v.seq - 1) / 100;

INSERT INTO docg.journal (execution_id, last_event, last_log, events, logs)
SELECT l.execution_id, coalesce(max(e.event_seq), 0), max(l.seq), '[]',
    json_agg(json_build_object('id', l.id,
        'timestamp', to_char(l.timestamp AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
        'level', l.level, 'domain', l.domain, 'step_id', l.step_id,
        'message_human', l.message_human, 'message_tech', l.message_tech,
        'details_tech', l.details_tech, 'correlation_id', l.correlation_id) ORDER BY l.seq)
FROM docg.execution_logs l LEFT JOIN docg.executions e ON e.id = l.execution_id
GROUP BY l.execution_id, (l.seq - 1) / 100;

DROP TABLE docg.execution_events;
DROP TABLE docg.execution_logs;

-- Each event and each log entry by itself, for whoever asks in SQL. A condition on `execution_id` makes them
-- fast. Whoever owns the schema may delete from them; the other records keep their numbers.
CREATE VIEW docg.execution_events AS
SELECT j.execution_id, j.last_event - json_array_length(j.events) + r.place AS seq, r.event_id, r.event_type,
    r.timestamp, r.status, r.progress, r.current_step, r.data
FROM docg.journal j CROSS JOIN LATERAL ROWS FROM (
    json_to_recordset(j.events) AS (event_id uuid, event_type text, timestamp timestamptz, status text,
        progress smallint, current_step json, data json)
) WITH ORDINALITY AS r (event_id, event_type, timestamp, status, progress, current_step, data, place)
WHERE r.event_id IS NOT NULL;

CREATE VIEW docg.execution_logs AS
SELECT j.execution_id, j.last_log - json_array_length(j.logs) + r.place AS seq, r.id, r.step_id, r.timestamp,
    r.level, r.domain, r.message_human, r.message_tech, r.details_tech,
    coalesce(r.correlation_id, e.correlation_id) AS correlation_id
FROM docg.journal j LEFT JOIN docg.executions e ON e.id = j.execution_id CROSS JOIN LATERAL ROWS FROM (
    json_to_recordset(j.logs) AS (id uuid, step_id text, timestamp timestamptz, level text, domain text,
        message_human json, message_tech text, details_tech json, correlation_id text)
) WITH ORDINALITY AS r (id, step_id, timestamp, level, domain, message_human, message_tech, details_tech,
    correlation_id, place)
WHERE r.id IS NOT NULL;

-- The records with an empty one for that whose number is `seq`.
CREATE FUNCTION docg.without(records json, last bigint, seq bigint) RETURNS json LANGUAGE sql IMMUTABLE AS $$
    SELECT json_agg(
        CASE WHEN last - json_array_length(records) + r.place = seq THEN '{}'::json ELSE r.record END
        ORDER BY r.place)
    FROM json_array_elements(records) WITH ORDINALITY AS r (record, place)
$$;

CREATE FUNCTION docg.delete_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE docg.journal j SET events = docg.without(j.events, j.last_event, OLD.seq)
    WHERE j.execution_id = OLD.execution_id AND j.last_event >= OLD.seq
        AND j.last_event - json_array_length(j.events) < OLD.seq;
    RETURN OLD;
END
$$;

CREATE FUNCTION docg.delete_log() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE docg.journal j SET logs = docg.without(j.logs, j.last_log, OLD.seq)
    WHERE j.execution_id = OLD.execution_id AND j.last_log >= OLD.seq
        AND j.last_log - json_array_length(j.logs) < OLD.seq;
    RETURN OLD;
END
$$;

CREATE TRIGGER delete_event INSTEAD OF DELETE ON docg.execution_events
    FOR EACH ROW EXECUTE FUNCTION docg.delete_event();
CREATE TRIGGER delete_log INSTEAD OF DELETE ON docg.execution_logs
    FOR EACH ROW EXECUTE FUNCTION docg.delete_log();

-- Leases one execution that nobody holds, due or not. A lease without an end was given by nobody.
-- Numbers and times that no commit can go on from are set right: else a damaged execution could not even
-- be canceled.
CREATE OR REPLACE FUNCTION docg.claim_one(
    execution uuid, worker uuid, now timestamptz, until timestamptz
) RETURNS TABLE (
    place bigint, id uuid, fence bigint, taken_over boolean, takeovers integer, version bigint,
    signals_pending integer, next_due timestamptz, held_back boolean
) LANGUAGE sql ROWS 1 AS $$
    WITH free AS (
        SELECT e.id, e.worker_id IS NOT NULL AS taken_over
        FROM docg.executions e
        WHERE e.id = execution
            AND (e.worker_id IS NULL OR e.expires_at IS NULL OR e.lease_until IS NULL
                OR e.lease_until <= now OR e.lease_until > now + interval '11 years')
        FOR NO KEY UPDATE
    )
    UPDATE docg.executions e
    SET worker_id = worker, fence = docg.next_fence(e.fence),
        takeovers = docg.next_takeovers(e.takeovers, free.taken_over),
        lease_until = until, expires_at = until, due_at = NULL,
        version = LEAST(GREATEST(e.version, 0), 2305843009213693952),
        created_at = CASE WHEN e.created_at >= '0001-01-01 00:00:00+00'
                AND e.created_at < '10000-01-01 00:00:00+00'
            THEN e.created_at ELSE 'epoch' END,
        event_seq = CASE WHEN e.event_seq BETWEEN 0 AND 2305843009213693952 THEN e.event_seq ELSE (
            SELECT coalesce(max(j.last_event), 0) FROM docg.journal j WHERE j.execution_id = e.id)
            END,
        log_seq = CASE WHEN e.log_seq BETWEEN 0 AND 2305843009213693952 THEN e.log_seq ELSE (
            SELECT coalesce(max(j.last_log), 0) FROM docg.journal j WHERE j.execution_id = e.id) END,
        audit_seq = CASE WHEN e.audit_seq BETWEEN 0 AND 2305843009213693952 THEN e.audit_seq ELSE (
            SELECT coalesce(max(a.seq), 0) FROM docg.audit_events a WHERE a.execution_id = e.id) END
    FROM free WHERE e.id = free.id
    RETURNING 1::bigint, e.id, e.fence, free.taken_over, e.takeovers, e.version, e.signals_pending,
        NULL::timestamptz, false
$$;

-- Compiling a claim takes a hundred times longer than to run it.
ALTER FUNCTION docg.claim_due(uuid, timestamptz, timestamptz, bigint, bigint, text[]) SET jit = off;
ALTER FUNCTION docg.share_left(uuid, timestamptz, bigint) SET jit = off;
