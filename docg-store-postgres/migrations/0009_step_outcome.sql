-- What is known of how a step failed. Until now it was read from the error's code.

ALTER TABLE docg.execution_steps ADD COLUMN outcome text NOT NULL DEFAULT 'known'
    CHECK (outcome IN ('known', 'unknown', 'decided'));

UPDATE docg.execution_steps SET outcome = 'unknown'
    WHERE status = 'failure' AND error_code IN ('outcome_unknown', 'too_many_takeovers');
