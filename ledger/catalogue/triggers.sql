-- With their functions, their moments, and whether they fire.
SELECT format('%s.%s', t.tgrelid::regclass, t.tgname),
       concat_ws(' ', t.tgfoid::regproc, t.tgtype, t.tgenabled, t.tgdeferrable, t.tginitdeferred, t.tgqual, t.tgattr)
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE NOT t.tgisinternal AND c.relnamespace IN ('ledger'::regnamespace, 'public'::regnamespace)
UNION ALL
SELECT format('event trigger %s', evtname), evtfoid::regproc::text FROM pg_event_trigger
