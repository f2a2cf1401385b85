-- What was found stands in the chain too, and whoever upgrades reads it.
DO $$
DECLARE f record;
BEGIN
  FOR f IN SELECT budget_id, min(what) AS what FROM ledger.finding WHERE budget_id IS NOT NULL GROUP BY budget_id ORDER BY budget_id LOOP
    INSERT INTO ledger.entry (budget_id, kind, detail)
      VALUES (f.budget_id, 'freeze', jsonb_build_object('reason', left('found by the upgrade: ' || f.what, 1000)));
    RAISE WARNING 'budget % is frozen: %', f.budget_id, f.what;
  END LOOP;
END $$;
