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
  ADD COLUMN excess_micro bigint NOT NULL DEFAULT 0;     -- real cost beyond the reserved worst case: breaks the lease
ALTER TABLE leases SET (fillfactor = 70);                -- a heartbeat is an update in place

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
CREATE FUNCTION calm_until(l leases, calm interval) RETURNS timestamptz LANGUAGE sql STABLE AS $$
  SELECT greatest(pg_postmaster_start_time() + calm, (
    SELECT max(CASE WHEN p.beat_at < clock_timestamp() - interval '10 seconds' THEN 'infinity' ELSE p.steady_since + calm END)
    FROM pulses p WHERE l.kind = 'work' AND p.name = ANY (ARRAY['relay/' || l.node,
      (SELECT 'broker/' || g.agent FROM goal_runs r JOIN goals g ON g.id = r.goal WHERE r.id = l.goal_run)])))
$$;

-- What is over: the one judgement --------------------------------------------------------------------------------------------
-- Null while the lease holds; a null silence asks for no heartbeat. The warden ends revoked (past its grace), expired and unwatched; the sensor revokes for the others.
CREATE FUNCTION standing(l leases, calm interval, unwatched interval, silence interval) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT CASE
    WHEN l.ended_at IS NOT NULL THEN 'ended'
    WHEN l.revoked_at IS NOT NULL THEN 'revoked'
    WHEN l.kind = 'work' AND l.tokens_used > l.max_tokens THEN 'tokens'
    WHEN l.kind = 'work' AND l.excess_micro > 0 THEN 'usd'
    WHEN l.watched_at + unwatched <= clock_timestamp() AND clock_timestamp() > pg_postmaster_start_time() + calm THEN 'unwatched'
    WHEN least(l.expires_at, CASE WHEN l.kind = 'work' AND l.started_at IS NOT NULL THEN l.heartbeat_at + silence END) > clock_timestamp()
      THEN NULL
    WHEN calm_until(l, calm) > clock_timestamp() THEN NULL
    WHEN l.expires_at <= clock_timestamp() THEN 'expired'
    ELSE 'silent' END
$$;

CREATE OR REPLACE FUNCTION what_is_over(the_node text, calm interval, unwatched interval)
RETURNS TABLE (lease uuid, sandbox text, because text) LANGUAGE sql STABLE AS $$
  SELECT id, l.sandbox, CASE WHEN s = 'revoked' THEN 'revoked: ' || COALESCE(revoke_reason, '') ELSE s END
  FROM leases l, standing(l, calm, unwatched, NULL) AS s
  WHERE node = the_node AND ended_at IS NULL
    AND (s IN ('expired', 'unwatched') OR (s = 'revoked' AND revoked_at + grace <= clock_timestamp()))
$$;

CREATE OR REPLACE FUNCTION next_due_s(the_node text, calm interval, unwatched interval) RETURNS float LANGUAGE sql STABLE AS $$
  SELECT extract(epoch FROM min(due) - clock_timestamp()) FROM (
    SELECT CASE WHEN revoked_at IS NOT NULL THEN revoked_at + grace
                ELSE least(greatest(expires_at, calm_until(l, calm)),
                           greatest(watched_at + unwatched, pg_postmaster_start_time() + calm)) END AS due
    FROM leases l WHERE node = the_node AND ended_at IS NULL) AS lives
  WHERE due <> 'infinity'
$$;

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
CREATE FUNCTION prune(events interval, transcripts interval) RETURNS jsonb LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE counts jsonb := '{}'; n bigint;
BEGIN
  CREATE TEMP TABLE old_tasks ON COMMIT DROP AS
    SELECT t.id, r.id AS run, r.ended_at FROM goal_runs r LEFT JOIN task_runs t ON t.goal_run = r.id
    WHERE r.ended_at < clock_timestamp() - least(events, transcripts)
      AND NOT EXISTS (SELECT FROM leases l WHERE l.goal_run = r.id AND l.ended_at IS NULL);
  DELETE FROM attempt_keys k USING leases l WHERE l.id = k.lease AND l.ended_at IS NOT NULL;
  GET DIAGNOSTICS n = ROW_COUNT; counts := counts || jsonb_build_object('keys', n);
  DELETE FROM task_events e USING old_tasks o WHERE o.ended_at < clock_timestamp() - events
    AND ((e.machine = 'goal_run' AND e.subject = o.run) OR (e.machine = 'task_run' AND e.subject = o.id)
      OR (e.machine = 'attempt' AND split_part(e.subject, '/', 1) = o.id));
  GET DIAGNOSTICS n = ROW_COUNT; counts := counts || jsonb_build_object('events', n);
  DELETE FROM processed_messages p USING old_tasks o WHERE o.ended_at < clock_timestamp() - events AND p.task_run = o.id;
  GET DIAGNOSTICS n = ROW_COUNT; counts := counts || jsonb_build_object('messages', n);
  DELETE FROM outbox p USING old_tasks o WHERE o.ended_at < clock_timestamp() - events AND p.task_run = o.id;
  GET DIAGNOSTICS n = ROW_COUNT; counts := counts || jsonb_build_object('outbox', n);
  DELETE FROM notices p USING old_tasks o WHERE o.ended_at < clock_timestamp() - events AND p.goal_run = o.run;
  GET DIAGNOSTICS n = ROW_COUNT; counts := counts || jsonb_build_object('notices', n);
  DELETE FROM transcripts p USING old_tasks o WHERE o.ended_at < clock_timestamp() - transcripts AND p.task_run = o.id;
  GET DIAGNOSTICS n = ROW_COUNT; counts := counts || jsonb_build_object('transcripts', n);
  DELETE FROM questions p USING old_tasks o WHERE o.ended_at < clock_timestamp() - transcripts AND p.task_run = o.id;
  GET DIAGNOSTICS n = ROW_COUNT; counts := counts || jsonb_build_object('questions', n);
  UPDATE evidence v SET log = '' FROM leases l JOIN old_tasks o ON o.run = l.goal_run
  WHERE l.id = v.lease AND o.ended_at < clock_timestamp() - transcripts AND v.log <> '';
  GET DIAGNOSTICS n = ROW_COUNT; counts := counts || jsonb_build_object('logs', n);
  RETURN counts;
END $$;
REVOKE EXECUTE ON FUNCTION prune(interval, interval) FROM PUBLIC;
REVOKE EXECUTE ON FUNCTION beat(text, interval) FROM PUBLIC;

-- Rights ----------------------------------------------------------------------------------------------------------------------
GRANT EXECUTE ON FUNCTION prune(interval, interval) TO airlock_airflow, airlock_cli;
GRANT EXECUTE ON FUNCTION beat(text, interval) TO airlock_broker, airlock_warden;
GRANT SELECT ON pulses, notices, audit_log TO airlock_airflow, airlock_cli, airlock_broker;
GRANT SELECT ON pulses, goal_runs, goals TO airlock_warden;
GRANT INSERT (actor, action, subject, detail) ON audit_log TO airlock_airflow, airlock_broker, airlock_cli, airlock_warden;
GRANT INSERT ON notices TO airlock_airflow, airlock_broker;
GRANT USAGE ON SEQUENCE notices_id_seq TO airlock_airflow, airlock_broker;
GRANT UPDATE (taken, excess_micro) ON leases TO airlock_broker;
GRANT UPDATE (first_turn) ON attempts TO airlock_broker;
