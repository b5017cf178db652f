-- Claims read less: leases are counted once for each organization, and only for those whose turn it is.
-- Bitmap scans are off, because they do not mark dead index entries, so that each claim would visit the rows of
-- all leases since the last vacuum.

-- Leases up to `wanted` executions that are due at `now`, of those that need no other node types
-- than these: higher priority first; within a priority each organization's first, then each one's
-- second, and so on, the longest due first. No organization gets above `per_organization` leases.
--
-- The last row names no execution: it has the moment at which the next one becomes due, and whether
-- something that is due was left only because its organization has its share of leases.
CREATE OR REPLACE FUNCTION docg.claim_due(
    worker uuid, now timestamptz, until timestamptz, wanted bigint, per_organization bigint,
    known_types text[]
) RETURNS TABLE (
    place bigint, id uuid, fence bigint, taken_over boolean, takeovers integer, version bigint,
    signals_pending integer, next_due timestamptz, held_back boolean
) LANGUAGE plpgsql ROWS 32 SET enable_bitmapscan = off AS $$
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
            -- OFFSET keeps the order below the condition, so that no more leases are counted than needed.
            SELECT turns.organization_id FROM (
                SELECT waiting.organization_id FROM waiting
                ORDER BY waiting.priority DESC, waiting.due_at OFFSET 0
            ) turns
            WHERE per_organization > (
                SELECT count(*) FROM docg.executions e
                WHERE e.organization_id = turns.organization_id
                    AND e.expires_at IS NOT NULL AND e.lease_until > claim_due.now)
            LIMIT wanted
        );

        -- One claim at a time for each organization, always in the same order: then no two claims
        -- together can give an organization more than its share.
        FOR organization IN SELECT o FROM unnest(organizations) o ORDER BY o LOOP
            PERFORM pg_advisory_xact_lock(1685021543, hashtext(organization::text));
        END LOOP;

        RETURN QUERY
        -- Materialized, so that each organization's leases are counted once and not for each candidate.
        WITH shares AS MATERIALIZED (
            SELECT o.organization_id, per_organization - (
                SELECT count(*) FROM docg.executions e
                WHERE e.organization_id = o.organization_id
                    AND e.expires_at IS NOT NULL AND e.lease_until > claim_due.now) AS share
            FROM unnest(organizations) o (organization_id)
        ),
        heads AS MATERIALIZED (
            SELECT lines.priority, lines.organization_id, lines.type_set, shares.share
            FROM docg.lines JOIN shares USING (organization_id)
            WHERE lines.type_set = ANY (known_sets) AND shares.share > 0
                AND EXISTS (
                    SELECT FROM docg.executions e
                    WHERE e.priority = lines.priority
                        AND e.organization_id = lines.organization_id
                        AND e.type_set = lines.type_set
                        AND e.due_at <= claim_due.now)
        ),
        -- The most that a line of a priority can contribute: its first, if the firsts are enough.
        priorities AS (
            SELECT heads.priority,
                CASE WHEN count(DISTINCT heads.organization_id) >= wanted THEN 1 ELSE wanted END AS most
            FROM heads GROUP BY heads.priority
        ),
        candidates AS (
            SELECT candidate.id, candidate.due_at, lines.priority, lines.share,
                row_number() OVER (PARTITION BY lines.organization_id
                    ORDER BY lines.priority DESC, candidate.due_at, candidate.id) AS place,
                row_number() OVER (PARTITION BY lines.organization_id, lines.priority
                    ORDER BY candidate.due_at, candidate.id) AS turn
            FROM heads lines
            JOIN priorities USING (priority)
            CROSS JOIN LATERAL (
                SELECT e.id, e.due_at
                FROM docg.executions e
                WHERE e.priority = lines.priority
                    AND e.organization_id = lines.organization_id
                    AND e.type_set = lines.type_set
                    AND e.due_at <= claim_due.now
                ORDER BY e.due_at LIMIT LEAST(priorities.most, lines.share)
            ) candidate
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

ALTER FUNCTION docg.share_left(uuid, timestamptz, bigint) SET enable_bitmapscan = off;
