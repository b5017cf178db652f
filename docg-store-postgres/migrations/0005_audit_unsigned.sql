-- What the next checkpoint has to sign of executions that are gone: the head of a chain that was
-- kept, or a head of zeros where its rows were let go, because their time was over.

CREATE TABLE docg.audit_unsigned (
    organization_id  uuid NOT NULL,
    execution_id     uuid NOT NULL,
    audit_seq        bigint NOT NULL,
    audit_hash       bytea NOT NULL CHECK (length(audit_hash) = 32),
    PRIMARY KEY (organization_id, execution_id)
);

INSERT INTO docg.audit_unsigned (organization_id, execution_id, audit_seq, audit_hash)
SELECT p.organization_id, p.execution_id, 0, decode(repeat('00', 32), 'hex')
FROM docg.audit_purges p
UNION ALL
SELECT h.organization_id, h.execution_id, h.audit_seq, h.audit_hash
FROM docg.audit_heads h
WHERE NOT EXISTS (SELECT FROM docg.audit_purges p WHERE p.execution_id = h.execution_id)
    AND NOT EXISTS (
        SELECT FROM docg.audit_checkpoint_heads c
        WHERE c.organization_id = h.organization_id AND c.execution_id = h.execution_id
            AND c.audit_seq >= h.audit_seq);
