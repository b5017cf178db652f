-- What the engine does by itself about an open signature request, and what the provider needs to find
-- it again.

ALTER TABLE docg.signature_requests
    ADD COLUMN details    json NOT NULL DEFAULT 'null',
    ADD COLUMN follow_up  json NOT NULL DEFAULT '{}';
