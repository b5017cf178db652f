-- The purged executions whose chains' ends the next checkpoint has to sign. What it signs is in
-- docg.audit_heads: this only says where to look.

CREATE TABLE docg.audit_unsigned (
    organization_id  uuid NOT NULL,
    execution_id     uuid NOT NULL,
    PRIMARY KEY (organization_id, execution_id)
);

INSERT INTO docg.audit_unsigned (organization_id, execution_id)
SELECT h.organization_id, h.execution_id
FROM docg.audit_heads h
WHERE NOT EXISTS (SELECT FROM docg.audit_purges p WHERE p.execution_id = h.execution_id)
    AND NOT EXISTS (
        SELECT FROM docg.audit_checkpoint_heads c
        WHERE c.organization_id = h.organization_id AND c.execution_id = h.execution_id
            AND c.audit_seq >= h.audit_seq);

-- What checkpoints say of an execution.
CREATE INDEX audit_checkpoint_heads_execution ON docg.audit_checkpoint_heads (execution_id);

-- In an order in which one can go on where one stopped.
DROP INDEX docg.audit_heads_ended;
CREATE INDEX audit_heads_ended ON docg.audit_heads (ended_at, execution_id);
