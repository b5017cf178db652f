-- How long people were waited for within a step, which is no part of its duration.

ALTER TABLE docg.execution_steps ADD COLUMN waiting_ms bigint NOT NULL DEFAULT 0;
