-- Who shows goals (command line, pages, chat) reads as a role that can write nothing.
-- A table that comes later is readable to it too; one that holds keys is taken from it where it is made, as attempt_keys is here.
GRANT USAGE ON SCHEMA public TO airlock_viewer;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO airlock_viewer;
REVOKE SELECT ON attempt_keys FROM airlock_viewer;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO airlock_viewer;
