-- Waits for moments and events, and executions that start later.

-- The moment or the event that a step waits for. No other column is in the index, so that updates of steps that wait
-- for neither touch no index.
ALTER TABLE docg.execution_steps ADD COLUMN awaits json;
CREATE INDEX execution_steps_awaits
    ON docg.execution_steps ((awaits->>'name'), (awaits->>'key')) WHERE awaits IS NOT NULL;

-- Events that no step has taken yet, and the time before which an execution does not start.
ALTER TABLE docg.execution_data ADD COLUMN kept_events json;
ALTER TABLE docg.execution_data ADD COLUMN start_at timestamptz;
