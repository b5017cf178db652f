-- Claims that an organization's share cuts short are noted, so that whoever releases a lease knows
-- that somebody waits. Claims that take over are counted until a commit makes progress.
-- What a damaged row has in its numbers and times makes no claim fail.

-- Organizations for which a claim was held back since one of their leases was last released. Written
-- at high rates and worth nothing after a crash.
CREATE UNLOGGED TABLE docg.held_back (
    organization_id  uuid PRIMARY KEY
);

ALTER TABLE docg.executions ADD COLUMN takeovers integer NOT NULL DEFAULT 0;

-- As a claim counts on from it: near the ends of its range it stays there.
CREATE FUNCTION docg.next_fence(fence bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT LEAST(GREATEST(fence, 0), 2305843009213693952) + 1
$$;

CREATE FUNCTION docg.next_takeovers(takeovers integer, taken_over boolean) RETURNS integer
LANGUAGE sql IMMUTABLE AS $$
    SELECT LEAST(GREATEST(takeovers, 0), 1000000) + taken_over::integer
$$;

DROP FUNCTION docg.claim_due(uuid, timestamptz, timestamptz, bigint, bigint, text[]);

-- Leases up to `wanted` executions that are due at `now`, of those that need no other node types
-- than these: higher priority first; within a priority each organization's first, then each one's
-- second, and so on, the longest due first. No organization gets above `per_organization` leases.
--
-- The last row names no execution: it has the moment at which the next one becomes due, and whether
-- something that is due was left only because its organization has its share of leases.
CREATE FUNCTION docg.claim_due(
    worker uuid, now timestamptz, until timestamptz, wanted bigint, per_organization bigint,
    known_types text[]
) RETURNS TABLE (
    place bigint, id uuid, fence bigint, taken_over boolean, takeovers integer, version bigint,
    signals_pending integer, next_due timestamptz, held_back boolean
) LANGUAGE plpgsql ROWS 32 AS $$
#variable_conflict use_column
DECLARE
    known_sets integer[];
    organizations uuid[];
    organization uuid;
    awaited uuid[];
    claimed bigint := 0;
BEGIN
    IF EXISTS (SELECT FROM docg.executions e WHERE e.expires_at <= claim_due.now) THEN
        PERFORM docg.expire_leases(claim_due.now);
    END IF;

    IF wanted > 0 AND EXISTS (SELECT FROM docg.executions e WHERE e.due_at <= claim_due.now) THEN
        known_sets := ARRAY(
            SELECT s.id FROM docg.node_type_sets s WHERE s.node_types <@ known_types);

        -- Whose turn it is. A look without locks; what is taken is looked at again below.
        organizations := ARRAY(
            WITH heads AS (
                SELECT lines.organization_id, lines.priority, first.due_at
                FROM docg.lines CROSS JOIN LATERAL (
                    SELECT e.due_at
                    FROM docg.executions e
                    WHERE e.priority = lines.priority
                        AND e.organization_id = lines.organization_id
                        AND e.type_set = lines.type_set
                        AND e.due_at <= claim_due.now
                    ORDER BY e.due_at LIMIT 1
                ) first
                WHERE lines.type_set = ANY (known_sets)
            ),
            waiting AS (
                SELECT organization_id, max(priority) AS priority,
                    (array_agg(due_at ORDER BY priority DESC, due_at))[1] AS due_at
                FROM heads GROUP BY organization_id
            )
            SELECT waiting.organization_id FROM waiting
            WHERE per_organization > (
                SELECT count(*) FROM docg.executions e
                WHERE e.organization_id = waiting.organization_id
                    AND e.expires_at IS NOT NULL AND e.lease_until > claim_due.now)
            ORDER BY waiting.priority DESC, waiting.due_at LIMIT wanted
        );

        -- One claim at a time for each organization, always in the same order: then no two claims
        -- together can give an organization more than its share.
        FOR organization IN SELECT o FROM unnest(organizations) o ORDER BY o LOOP
            PERFORM pg_advisory_xact_lock(1685021543, hashtext(organization::text));
        END LOOP;

        RETURN QUERY
        WITH shares AS (
            SELECT o.organization_id, per_organization - (
                SELECT count(*) FROM docg.executions e
                WHERE e.organization_id = o.organization_id
                    AND e.expires_at IS NOT NULL AND e.lease_until > claim_due.now) AS share
            FROM unnest(organizations) o (organization_id)
        ),
        candidates AS (
            SELECT candidate.id, candidate.due_at, lines.priority, shares.share,
                row_number() OVER (PARTITION BY lines.organization_id
                    ORDER BY lines.priority DESC, candidate.due_at, candidate.id) AS place,
                row_number() OVER (PARTITION BY lines.organization_id, lines.priority
                    ORDER BY candidate.due_at, candidate.id) AS turn
            FROM docg.lines
            JOIN shares USING (organization_id)
            CROSS JOIN LATERAL (
                SELECT e.id, e.due_at
                FROM docg.executions e
                WHERE e.priority = lines.priority
                    AND e.organization_id = lines.organization_id
                    AND e.type_set = lines.type_set
                    AND e.due_at <= claim_due.now
                ORDER BY e.due_at LIMIT LEAST(wanted, GREATEST(shares.share, 0))
            ) candidate
            WHERE lines.type_set = ANY (known_sets)
        ),
        chosen AS (
            SELECT c.id, row_number() OVER (ORDER BY c.priority DESC, c.turn, c.due_at, c.id) AS place
            FROM candidates c
            WHERE c.place <= c.share
            ORDER BY c.priority DESC, c.turn, c.due_at, c.id LIMIT wanted
        ),
        free AS (
            SELECT e.id, e.worker_id IS NOT NULL AS taken_over
            FROM docg.executions e
            WHERE e.id IN (SELECT chosen.id FROM chosen) AND e.due_at <= claim_due.now
            FOR NO KEY UPDATE SKIP LOCKED
        ),
        leased AS (
            UPDATE docg.executions e
            SET worker_id = worker, fence = docg.next_fence(e.fence),
                takeovers = docg.next_takeovers(e.takeovers, free.taken_over),
                lease_until = until, expires_at = until, due_at = NULL
            FROM free WHERE e.id = free.id
            RETURNING e.id, e.fence, free.taken_over, e.takeovers, e.version, e.signals_pending
        )
        SELECT chosen.place, leased.id, leased.fence, leased.taken_over, leased.takeovers,
            leased.version, leased.signals_pending, NULL::timestamptz, false
        FROM leased JOIN chosen USING (id)
        UNION ALL
        -- Somebody was at one of them: it is worth asking again.
        SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, claim_due.now, false
        WHERE (SELECT count(*) FROM chosen) > (SELECT count(*) FROM leased);
        GET DIAGNOSTICS claimed = ROW_COUNT;

        -- A worker that gets all that it wants waits for nobody.
        IF claimed < wanted AND EXISTS (SELECT FROM docg.executions e WHERE e.due_at <= claim_due.now)
        THEN
            awaited := ARRAY(
                SELECT DISTINCT lines.organization_id
                FROM docg.lines
                WHERE lines.type_set = ANY (known_sets)
                    AND EXISTS (
                        SELECT FROM docg.executions e
                        WHERE e.priority = lines.priority
                            AND e.organization_id = lines.organization_id
                            AND e.type_set = lines.type_set
                            AND e.due_at <= claim_due.now)
                    AND per_organization <= (
                        SELECT count(*) FROM docg.executions e
                        WHERE e.organization_id = lines.organization_id
                            AND e.expires_at IS NOT NULL AND e.lease_until > claim_due.now)
                ORDER BY lines.organization_id);
            INSERT INTO docg.held_back (organization_id)
            SELECT a.id FROM unnest(awaited) a (id)
            WHERE NOT EXISTS (SELECT FROM docg.held_back h WHERE h.organization_id = a.id)
            ORDER BY a.id
            ON CONFLICT DO NOTHING;
        END IF;
    END IF;

    RETURN QUERY SELECT NULL::bigint, NULL::uuid, NULL::bigint, NULL::boolean, NULL::integer,
        NULL::bigint, NULL::integer,
        CASE WHEN claimed > 0 AND claimed >= wanted THEN claim_due.now ELSE LEAST(
            (SELECT min(e.due_at) FROM docg.executions e WHERE e.due_at > claim_due.now),
            (SELECT min(e.expires_at) FROM docg.executions e WHERE e.expires_at > claim_due.now)
        ) END,
        coalesce(cardinality(awaited) > 0, false);
END
$$;

DROP FUNCTION docg.claim_one(uuid, uuid, timestamptz, timestamptz);

-- Leases one execution that nobody holds, due or not. A lease without an end was given by nobody.
-- Numbers and times that no commit can go on from are set right: else a damaged execution could not even
-- be canceled.
CREATE FUNCTION docg.claim_one(
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
            SELECT coalesce(max(v.seq), 0) FROM docg.execution_events v WHERE v.execution_id = e.id)
            END,
        log_seq = CASE WHEN e.log_seq BETWEEN 0 AND 2305843009213693952 THEN e.log_seq ELSE (
            SELECT coalesce(max(l.seq), 0) FROM docg.execution_logs l WHERE l.execution_id = e.id) END,
        audit_seq = CASE WHEN e.audit_seq BETWEEN 0 AND 2305843009213693952 THEN e.audit_seq ELSE (
            SELECT coalesce(max(a.seq), 0) FROM docg.audit_events a WHERE a.execution_id = e.id) END
    FROM free WHERE e.id = free.id
    RETURNING 1::bigint, e.id, e.fence, free.taken_over, e.takeovers, e.version, e.signals_pending,
        NULL::timestamptz, false
$$;
