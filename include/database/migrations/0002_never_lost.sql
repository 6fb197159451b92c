-- Never lost, never twice: where a state begins, what is over, who is alive, the audit log, notices, and what is pruned.

-- A state also begins only where the table of transitions says so (from_state ''). ------------------------------------------
CREATE OR REPLACE FUNCTION guard_transition() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE before text := '';
BEGIN
  IF TG_OP = 'UPDATE' THEN before := OLD.state; END IF;
  IF NEW.state IS DISTINCT FROM before AND NOT EXISTS (
    SELECT FROM transitions WHERE machine = TG_ARGV[0] AND from_state = before AND to_state = NEW.state)
  THEN
    RAISE EXCEPTION 'illegal transition of a %: % -> %', TG_ARGV[0], COALESCE(NULLIF(before, ''), 'nothing'), NEW.state
      USING ERRCODE = 'AL001';
  END IF;
  RETURN NEW;
END $$;

DO $$
DECLARE m text[];
BEGIN
  FOREACH m SLICE 1 IN ARRAY ARRAY[['goal_run','goal_runs'], ['task_run','task_runs'], ['attempt','attempts']] LOOP
    EXECUTE format('DROP TRIGGER guard ON %I', m[2]);
    EXECUTE format('CREATE TRIGGER guard BEFORE INSERT OR UPDATE OF state ON %I FOR EACH ROW EXECUTE FUNCTION guard_transition(%L)', m[2], m[1]);
  END LOOP;
END $$;

-- Rework: when it is due, and whether it goes on from an older attempt -------------------------------------------------------
ALTER TABLE task_runs
  ADD COLUMN due_at timestamptz,       -- PENDING_RETRY: not admitted before
  ADD COLUMN due_ti text,              -- the admit step's task instance that waits for it: another one (a person cleared it) does not wait
  ADD COLUMN resume_from int;          -- the epoch that the next attempt goes on from; null: it starts over
ALTER TABLE attempts
  ADD COLUMN resumed_from int,         -- the epoch whose transcript this one goes on with
  ADD COLUMN first_turn int NOT NULL DEFAULT 1; -- the turn that its worker asks for first

-- Leases: which message numbers are in, what was spent beyond a worst case -----------------------------------------------------
ALTER TABLE leases
  ADD COLUMN taken int8multirange NOT NULL DEFAULT '{}', -- numbers of the worker's messages that are in; contiguous ones are one range
  ADD COLUMN excess_micro bigint NOT NULL DEFAULT 0,     -- real cost beyond the reserved worst case: breaks the lease
  ADD COLUMN broken text,                                -- the standing for which the lease step revoked it; null: somebody else did, or nobody
  ADD COLUMN renewed_at timestamptz;                     -- its time was extended
ALTER TABLE leases SET (fillfactor = 70);                -- a heartbeat is an update in place
UPDATE leases l SET taken = p.numbers
FROM (SELECT task_run, epoch, range_agg(int8range(seq, seq + 1)) AS numbers FROM processed_messages GROUP BY task_run, epoch) AS p
WHERE l.kind = 'work' AND l.task_run = p.task_run AND l.epoch = p.epoch;

-- A batch of messages wakes its agent's broker once -------------------------------------------------------------------------------
CREATE FUNCTION tell_outbox() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_notify('outbox_' || agent, '') FROM (SELECT DISTINCT agent FROM fresh) AS agents; RETURN NULL; END $$;
DROP TRIGGER tell_outbox ON outbox;
CREATE TRIGGER tell_outbox AFTER INSERT ON outbox REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION tell_outbox();

-- Who is alive: broker/<agent> (it reads the streams), relay/<node> -----------------------------------------------------------
CREATE TABLE pulses (
  name         text PRIMARY KEY,
  beat_at      timestamptz NOT NULL,
  steady_since timestamptz NOT NULL      -- the end of its last outage
);

CREATE FUNCTION beat(the_name text, gap interval) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
  INSERT INTO pulses VALUES (the_name, clock_timestamp(), clock_timestamp())
  ON CONFLICT (name) DO UPDATE SET beat_at = clock_timestamp(),
    steady_since = CASE WHEN pulses.beat_at < clock_timestamp() - gap THEN clock_timestamp() ELSE pulses.steady_since END
$$;

-- Until when nothing of a lease expires or counts as silent: PostgreSQL, its broker (with the streams) or its relay was away just now.
-- 'infinity': one of them is away. A pulse that was never there is not waited for. A verification needs PostgreSQL only.
CREATE FUNCTION calm_until(l leases, calm interval) RETURNS timestamptz LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN greatest(pg_postmaster_start_time() + calm, (
    SELECT max(CASE WHEN p.beat_at < clock_timestamp() - greatest(calm / 3, '3 s') THEN 'infinity' ELSE p.steady_since + calm END)
    FROM pulses p WHERE l.kind = 'work' AND p.name = ANY (ARRAY['relay/' || l.node,
      (SELECT 'broker/' || g.agent FROM goal_runs r JOIN goals g ON g.id = r.goal WHERE r.id = l.goal_run)])));
END $$;

-- What is over: the one judgement --------------------------------------------------------------------------------------------
-- Null while the lease holds; a null silence asks for no heartbeat, a null unwatched for no watch.
-- What the warden ends stands first (revoked, unwatched, expired), so that a
-- term that only the sensor looks at never hides it; the sensor revokes for the rest.
CREATE FUNCTION standing(l leases, calm interval, unwatched interval, silence interval) RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN CASE
    WHEN l.ended_at IS NOT NULL THEN 'ended'
    WHEN l.revoked_at IS NOT NULL THEN 'revoked'
    WHEN l.watched_at + unwatched <= clock_timestamp() AND clock_timestamp() > pg_postmaster_start_time() + calm THEN 'unwatched'
    WHEN l.expires_at <= clock_timestamp() AND calm_until(l, calm) <= clock_timestamp() THEN 'expired'
    WHEN l.kind <> 'work' THEN NULL
    WHEN l.tokens_used > l.max_tokens THEN 'tokens'
    WHEN l.excess_micro > 0 THEN 'usd'
    WHEN l.started_at IS NOT NULL AND l.heartbeat_at + silence <= clock_timestamp() AND calm_until(l, calm) <= clock_timestamp() THEN 'silent'
  END;
END $$;

CREATE OR REPLACE FUNCTION what_is_over(the_node text, calm interval, unwatched interval)
RETURNS TABLE (lease uuid, sandbox text, because text) LANGUAGE sql STABLE AS $$
  SELECT id, j.sandbox, CASE s WHEN 'revoked' THEN 'revoked: ' || COALESCE(revoke_reason, '') ELSE s END
  FROM (SELECT l.*, standing(l, calm, unwatched, NULL) AS s FROM leases l WHERE node = the_node AND ended_at IS NULL OFFSET 0) AS j
  WHERE s IN ('expired', 'unwatched') OR (s = 'revoked' AND revoked_at + grace <= clock_timestamp())
$$;

-- Seconds until something on this node may be over (null: nothing lives); too early does no harm.
CREATE OR REPLACE FUNCTION next_due_s(the_node text, calm interval, unwatched interval) RETURNS float LANGUAGE sql STABLE AS $$
  SELECT extract(epoch FROM min(due) - clock_timestamp()) FROM (
    SELECT CASE WHEN revoked_at IS NOT NULL THEN revoked_at + grace
                ELSE least(CASE WHEN expires_at > clock_timestamp() THEN expires_at ELSE calm_until(l, calm) END,
                           greatest(watched_at + unwatched, pg_postmaster_start_time() + calm)) END AS due
    FROM leases l WHERE node = the_node AND ended_at IS NULL) AS lives
  WHERE due <> 'infinity'
$$;

-- A broker hears of an extended lease too.
DROP TRIGGER tell_lease ON leases;
CREATE TRIGGER tell_lease AFTER INSERT OR UPDATE OF revoked_at, expires_at ON leases FOR EACH ROW EXECUTE FUNCTION tell('leases');

-- What people are told: incidents and warnings, once each ---------------------------------------------------------------------
CREATE TABLE notices (
  id         bigserial PRIMARY KEY,
  key        text NOT NULL UNIQUE,       -- the same thing is told once
  kind       text NOT NULL CHECK (kind IN ('incident', 'warning')),
  goal_run   text REFERENCES goal_runs,
  task_run   text REFERENCES task_runs,
  words      text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX notices_run ON notices (goal_run, id);

-- The audit log: append-only, chained by hash at commit, so that its order is the order of the commits ---------------------------
CREATE TABLE audit_log (
  id       uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  at       timestamptz NOT NULL DEFAULT clock_timestamp(),
  actor    text NOT NULL,                -- a person's Airflow user, or a process
  action   text NOT NULL,                -- for example lease.revoked, messages.refused, goal.cancelled
  subject  text NOT NULL,
  detail   jsonb NOT NULL DEFAULT '{}',
  position bigint UNIQUE,                -- set at commit, without gaps
  previous text,                         -- hash of the entry before; 64 zeros for the first
  hash     text                          -- SHA-256 of previous and what this entry says, see audit_hash
);

-- The exact text that is hashed: fields by their length, so that no two entries give the same bytes.
CREATE FUNCTION audit_text(e audit_log) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT string_agg(length(part) || ' ' || part, ' ' ORDER BY number) FROM unnest(ARRAY[e.previous, e.position::text, e.id::text,
    (extract(epoch FROM e.at) * 1000000)::bigint::text, e.actor, e.action, e.subject, e.detail::text]) WITH ORDINALITY AS p(part, number)
$$;
CREATE FUNCTION audit_hash(e audit_log) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT encode(sha256(convert_to(audit_text(e), 'UTF8')), 'hex')
$$;

-- At commit, and so as the last lock that a transaction takes: nobody waits for a row behind it.
CREATE FUNCTION chain_audit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE mine audit_log; before audit_log;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('airlock audit', 0));
  SELECT * INTO before FROM audit_log WHERE position IS NOT NULL ORDER BY position DESC LIMIT 1;
  SELECT * INTO mine FROM audit_log WHERE id = NEW.id;
  mine.position := COALESCE(before.position, 0) + 1;
  mine.previous := COALESCE(before.hash, repeat('0', 64));
  UPDATE audit_log SET position = mine.position, previous = mine.previous, hash = audit_hash(mine) WHERE id = NEW.id;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER chain AFTER INSERT ON audit_log DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION chain_audit();

CREATE FUNCTION guard_audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'UPDATE' AND OLD.position IS NULL
     AND (OLD.id, OLD.at, OLD.actor, OLD.action, OLD.subject, OLD.detail) IS NOT DISTINCT FROM (NEW.id, NEW.at, NEW.actor, NEW.action, NEW.subject, NEW.detail)
  THEN RETURN NEW; END IF;
  RAISE EXCEPTION 'audit_log is append-only' USING ERRCODE = 'AL002';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit_log FOR EACH ROW EXECUTE FUNCTION guard_audit();
CREATE TRIGGER append_only_whole BEFORE TRUNCATE ON audit_log FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Pruned by age, only of goal runs that have ended. Money, decisions, verdicts, merges and the audit log stay. ---------------------
ALTER TABLE goal_runs
  ADD COLUMN events_pruned_at timestamptz,       -- older than ended_at: opened again since
  ADD COLUMN transcripts_pruned_at timestamptz;
CREATE INDEX goal_runs_ended ON goal_runs (ended_at);
CREATE INDEX leases_task ON leases (task_run, epoch);
CREATE INDEX leases_run ON leases (goal_run);
CREATE INDEX questions_task ON questions (task_run, epoch);
CREATE INDEX model_calls_open ON model_calls (lease) WHERE state IN ('reserved', 'sent');

-- At most so many goal runs, the oldest first; the caller commits and asks again while "runs" is not 0. Nothing younger than a day goes.
CREATE FUNCTION prune(events interval, transcripts interval, most int) RETURNS jsonb
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  events_before timestamptz := clock_timestamp() - greatest(events, '1 day');
  transcripts_before timestamptz := clock_timestamp() - greatest(transcripts, '1 day');
  r record; tasks text[]; subjects text[]; n bigint;
  runs int := 0; keys_n bigint; events_n bigint := 0; messages_n bigint := 0; notices_n bigint := 0; transcripts_n bigint := 0; logs_n bigint := 0;
BEGIN
  DELETE FROM attempt_keys k USING leases l WHERE l.id = k.lease AND l.ended_at IS NOT NULL;
  GET DIAGNOSTICS keys_n = ROW_COUNT;
  FOR r IN
    SELECT g.id, g.ended_at < events_before AND COALESCE(g.events_pruned_at < g.ended_at, true) AS old_events,
           g.ended_at < transcripts_before AND COALESCE(g.transcripts_pruned_at < g.ended_at, true) AS old_transcripts
    FROM goal_runs g
    WHERE ((g.ended_at < events_before AND COALESCE(g.events_pruned_at < g.ended_at, true))
           OR (g.ended_at < transcripts_before AND COALESCE(g.transcripts_pruned_at < g.ended_at, true)))
      AND NOT EXISTS (SELECT FROM leases l WHERE l.goal_run = g.id AND l.ended_at IS NULL)
    ORDER BY g.ended_at LIMIT most FOR UPDATE SKIP LOCKED
  LOOP
    runs := runs + 1;
    SELECT COALESCE(array_agg(id), '{}') INTO tasks FROM task_runs WHERE goal_run = r.id;
    IF r.old_events THEN
      SELECT r.id || tasks || COALESCE(array_agg(task_run || '/' || epoch), '{}') INTO subjects FROM attempts WHERE task_run = ANY (tasks);
      DELETE FROM task_events WHERE subject = ANY (subjects);
      GET DIAGNOSTICS n = ROW_COUNT; events_n := events_n + n;
      DELETE FROM processed_messages WHERE task_run = ANY (tasks);
      GET DIAGNOSTICS n = ROW_COUNT; messages_n := messages_n + n;
      DELETE FROM outbox WHERE task_run = ANY (tasks);
      GET DIAGNOSTICS n = ROW_COUNT; messages_n := messages_n + n;
      DELETE FROM notices WHERE goal_run = r.id;
      GET DIAGNOSTICS n = ROW_COUNT; notices_n := notices_n + n;
      UPDATE goal_runs SET events_pruned_at = clock_timestamp() WHERE id = r.id;
    END IF;
    IF r.old_transcripts THEN
      DELETE FROM transcripts WHERE task_run = ANY (tasks);
      GET DIAGNOSTICS n = ROW_COUNT; transcripts_n := transcripts_n + n;
      DELETE FROM questions WHERE task_run = ANY (tasks);
      GET DIAGNOSTICS n = ROW_COUNT; transcripts_n := transcripts_n + n;
      DELETE FROM artifacts WHERE task_run = ANY (tasks) AND type = 'log';
      GET DIAGNOSTICS n = ROW_COUNT; logs_n := logs_n + n;
      UPDATE evidence v SET log = '' FROM leases l WHERE l.id = v.lease AND l.goal_run = r.id AND v.log <> '';
      GET DIAGNOSTICS n = ROW_COUNT; logs_n := logs_n + n;
      UPDATE goal_runs SET transcripts_pruned_at = clock_timestamp() WHERE id = r.id;
    END IF;
  END LOOP;
  RETURN jsonb_build_object('runs', runs, 'keys', keys_n, 'events', events_n, 'messages', messages_n, 'notices', notices_n,
                            'transcripts', transcripts_n, 'logs', logs_n);
END $$;
REVOKE EXECUTE ON FUNCTION prune(interval, interval, int) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION beat(text, interval) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION chain_audit() FROM PUBLIC;

-- Rights ----------------------------------------------------------------------------------------------------------------------
GRANT EXECUTE ON FUNCTION prune(interval, interval, int) TO airlock_airflow, airlock_cli;
GRANT EXECUTE ON FUNCTION beat(text, interval) TO airlock_broker, airlock_warden;
GRANT SELECT ON pulses, notices, audit_log TO airlock_airflow, airlock_cli, airlock_broker;
GRANT SELECT ON pulses, goal_runs, goals TO airlock_warden;
GRANT INSERT (actor, action, subject, detail) ON audit_log TO airlock_airflow, airlock_broker, airlock_cli, airlock_warden;
GRANT INSERT ON notices TO airlock_airflow, airlock_broker;
GRANT USAGE ON SEQUENCE notices_id_seq TO airlock_airflow, airlock_broker;
GRANT UPDATE (taken, excess_micro) ON leases TO airlock_broker;
GRANT UPDATE (expires_at, renewed_at) ON leases TO airlock_cli;
GRANT UPDATE (first_turn) ON attempts TO airlock_broker;
