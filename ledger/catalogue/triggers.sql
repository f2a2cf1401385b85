-- With their functions, their moments, and whether they fire.
SELECT format('%s.%s', t.tgrelid::regclass, t.tgname),
       concat_ws(' ', pg_get_triggerdef(t.oid), t.tgenabled)
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE NOT t.tgisinternal AND c.relnamespace IN ('ledger'::regnamespace, 'public'::regnamespace)
UNION ALL
SELECT format('event trigger %s', evtname), evtfoid::regproc::text FROM pg_event_trigger
