-- When the keeper last finished what it does again and again, for whoever watches from outside its process.
CREATE TABLE keeper_watch (
  duty text PRIMARY KEY CHECK ((duty IN ('turn', 'verification')) IS TRUE),
  finished_at timestamptz NOT NULL,
  detail jsonb NOT NULL DEFAULT '{}'
);
GRANT SELECT, INSERT (duty, finished_at, detail), UPDATE (finished_at, detail) ON keeper_watch TO tacit_api;
