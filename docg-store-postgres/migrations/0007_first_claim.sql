-- How many more executions of an organization may be leased at `now`, if it gets no more than
-- `per_organization`. None for who comes while another claims for it: to wait is a claim's affair.
-- What is counted stays so until the transaction ends.
CREATE FUNCTION docg.share_left(organization uuid, now timestamptz, per_organization bigint)
RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
    IF NOT pg_try_advisory_xact_lock(1685021543, hashtext(organization::text)) THEN
        RETURN 0;
    END IF;
    RETURN per_organization - (
        SELECT count(*) FROM docg.executions e
        WHERE e.organization_id = share_left.organization
            AND e.expires_at IS NOT NULL AND e.lease_until > share_left.now);
END
$$;
