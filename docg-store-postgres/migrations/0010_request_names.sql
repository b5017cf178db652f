-- Names that lead from outside to one execution: the links of approvers, and what providers call their
-- requests. No two executions have the same one, whosever they are, as long as both are kept.

CREATE TABLE docg.request_names (
    name          bytea PRIMARY KEY,
    execution_id  uuid NOT NULL
);
CREATE INDEX request_names_execution ON docg.request_names (execution_id);

-- A hash, for an envelope's name may be too long for an index. No two pairs are written alike: the
-- provider's part has a fixed length.
CREATE FUNCTION docg.envelope_name(provider text, envelope_id text) RETURNS bytea
LANGUAGE sql IMMUTABLE AS $$
    SELECT sha256(sha256(convert_to(provider, 'UTF8')) || convert_to(envelope_id, 'UTF8'))
$$;

-- Where requests made before this migration share a name, lookups find the last one: it keeps the name.
INSERT INTO docg.request_names (name, execution_id)
SELECT DISTINCT ON (n.name) n.name, n.execution_id
FROM (
    SELECT unnest(a.token_hashes) AS name, a.execution_id, a.arrival FROM docg.approvals a
    UNION ALL
    SELECT docg.envelope_name(s.provider, s.envelope_id), s.execution_id, s.arrival
    FROM docg.signature_requests s
) n
ORDER BY n.name, n.arrival DESC;

-- Gives names to an execution. One that another execution has violates the primary key; so does one that
-- is given twice at once. A later request of the same execution may use its names again.
CREATE FUNCTION docg.take_names(names bytea[], execution uuid) RETURNS void LANGUAGE sql AS $$
    INSERT INTO docg.request_names (name, execution_id)
    SELECT n.name, execution FROM unnest(names) n (name)
    WHERE NOT EXISTS (
        SELECT FROM docg.request_names k WHERE k.name = n.name AND k.execution_id = execution)
$$;

CREATE FUNCTION docg.take_tokens() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM docg.take_names(NEW.token_hashes, NEW.execution_id);
    RETURN NULL;
END
$$;

CREATE FUNCTION docg.take_envelope() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM docg.take_names(
        ARRAY[docg.envelope_name(NEW.provider, NEW.envelope_id)], NEW.execution_id);
    RETURN NULL;
END
$$;

-- Triggers, so that commits without a new request cost what they did.
CREATE TRIGGER take_tokens AFTER INSERT ON docg.approvals
    FOR EACH ROW EXECUTE FUNCTION docg.take_tokens();
CREATE TRIGGER take_envelope AFTER INSERT ON docg.signature_requests
    FOR EACH ROW EXECUTE FUNCTION docg.take_envelope();
