-- How long workers have had a job in hand, over all attempts: what a time limit is held against. Counted by the workers'
-- monotonic clocks, so that no clock that is set, here or there, makes it longer or shorter.
ALTER TABLE ledger.work ADD COLUMN seconds double precision NOT NULL DEFAULT 0 CHECK (seconds >= 0);
GRANT UPDATE (seconds) ON ledger.work TO tacit_worker;
