-- Claiming what is due, in one round trip. The time is the caller's: the database's clock decides
-- nothing.

-- Puts back in line what its holder has neither committed nor renewed in time, and looks again
-- later where the holder has. The holder may still commit until somebody takes over.
CREATE FUNCTION docg.expire_leases(now timestamptz) RETURNS void LANGUAGE sql AS $$
    UPDATE docg.executions e
    SET expires_at = CASE WHEN e.lease_until > now THEN e.lease_until END,
        due_at = CASE
            WHEN e.lease_until > now THEN NULL
            WHEN e.ended_at IS NOT NULL AND e.signals_pending = 0 THEN NULL
            ELSE e.lease_until END
    FROM (
        SELECT id FROM docg.executions
        WHERE expires_at <= now
        ORDER BY expires_at LIMIT 1000
        FOR NO KEY UPDATE SKIP LOCKED
    ) expired
    WHERE e.id = expired.id
$$;

-- The lines in which executions wait, each of one priority, organization and set of node types:
-- found by leaps over the index, however long they are.
CREATE VIEW docg.lines AS
    WITH RECURSIVE lines AS (
        (SELECT e.priority, e.organization_id, e.type_set
         FROM docg.executions e
         WHERE e.due_at IS NOT NULL
         ORDER BY e.priority DESC, e.organization_id DESC, e.type_set DESC LIMIT 1)
        UNION ALL
        SELECT following.priority, following.organization_id, following.type_set
        FROM lines CROSS JOIN LATERAL (
            SELECT e.priority, e.organization_id, e.type_set
            FROM docg.executions e
            WHERE e.due_at IS NOT NULL
                AND (e.priority, e.organization_id, e.type_set)
                    < (lines.priority, lines.organization_id, lines.type_set)
            ORDER BY e.priority DESC, e.organization_id DESC, e.type_set DESC LIMIT 1
        ) following
    )
    SELECT lines.priority, lines.organization_id, lines.type_set FROM lines;

-- Leases up to `wanted` executions that are due at `now`, of those that need no other node types
-- than these: higher priority first; within a priority each organization's first, then each one's
-- second, and so on, the longest due first. No organization gets above `per_organization` leases.
--
-- The last row names no execution: it has the moment at which the next one becomes due.
CREATE FUNCTION docg.claim_due(
    worker uuid, now timestamptz, until timestamptz, wanted bigint, per_organization bigint,
    known_types text[]
) RETURNS TABLE (
    place bigint, id uuid, fence bigint, taken_over boolean, version bigint,
    signals_pending integer, next_due timestamptz
) LANGUAGE plpgsql ROWS 32 AS $$
#variable_conflict use_column
DECLARE
    known_sets integer[];
    organizations uuid[];
    organization uuid;
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
            SET worker_id = worker, fence = e.fence + 1, lease_until = until, expires_at = until,
                due_at = NULL
            FROM free WHERE e.id = free.id
            RETURNING e.id, e.fence, free.taken_over, e.version, e.signals_pending
        )
        SELECT chosen.place, leased.id, leased.fence, leased.taken_over, leased.version,
            leased.signals_pending, NULL::timestamptz
        FROM leased JOIN chosen USING (id)
        UNION ALL
        -- Somebody was at one of them: it is worth asking again.
        SELECT NULL, NULL, NULL, NULL, NULL, NULL, claim_due.now
        WHERE (SELECT count(*) FROM chosen) > (SELECT count(*) FROM leased);
        GET DIAGNOSTICS claimed = ROW_COUNT;
    END IF;

    RETURN QUERY SELECT NULL::bigint, NULL::uuid, NULL::bigint, NULL::boolean, NULL::bigint,
        NULL::integer,
        CASE WHEN claimed > 0 AND claimed >= wanted THEN claim_due.now ELSE LEAST(
            (SELECT min(e.due_at) FROM docg.executions e WHERE e.due_at > claim_due.now),
            (SELECT min(e.expires_at) FROM docg.executions e WHERE e.expires_at > claim_due.now)
        ) END;
END
$$;

-- Leases one execution that nobody holds, due or not.
CREATE FUNCTION docg.claim_one(
    execution uuid, worker uuid, now timestamptz, until timestamptz
) RETURNS TABLE (
    place bigint, id uuid, fence bigint, taken_over boolean, version bigint,
    signals_pending integer, next_due timestamptz
) LANGUAGE sql ROWS 1 AS $$
    WITH free AS (
        SELECT e.id, e.worker_id IS NOT NULL AS taken_over
        FROM docg.executions e
        WHERE e.id = execution
            AND (e.worker_id IS NULL OR e.expires_at IS NULL OR e.lease_until <= now)
        FOR NO KEY UPDATE
    )
    UPDATE docg.executions e
    SET worker_id = worker, fence = e.fence + 1, lease_until = until, expires_at = until,
        due_at = NULL
    FROM free WHERE e.id = free.id
    RETURNING 1::bigint, e.id, e.fence, free.taken_over, e.version, e.signals_pending,
        NULL::timestamptz
$$;
