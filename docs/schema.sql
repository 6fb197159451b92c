-- The schema of Airlock's database, whole: what the migrations in include/database/migrations add up to. Read it here, change it there.
-- Money is bigint micro-USD (names end in _micro). A column "state" moves only along the rows of the table transitions (trigger guard).
-- Written by `./airlock test tests/state/test_schema.py --write-schema`; a test holds it against the migrated database.

CREATE TABLE airlock_version (
  version_num character varying(32) NOT NULL,
  PRIMARY KEY (version_num)
);

CREATE TABLE transitions (
  machine text NOT NULL,                                     -- goal_run | task_run | attempt
  from_state text NOT NULL,
  to_state text NOT NULL,
  PRIMARY KEY (machine, from_state, to_state)
);

CREATE TABLE agents (
  name text NOT NULL,
  planner_model text NOT NULL,
  worker_model text NOT NULL,
  advice_model text NOT NULL,
  capabilities text[] NOT NULL,
  day_budget_micro bigint NOT NULL,
  month_budget_micro bigint NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (name),
  CHECK (day_budget_micro >= 0),
  CHECK (month_budget_micro >= 0),
  CHECK (name ~ '^[a-z][a-z0-9-]{0,31}$'::text)
);

CREATE TABLE repositories (
  name text NOT NULL,
  path text NOT NULL,
  listed boolean NOT NULL,                                   -- false: named by a path on the command line; forms and REST may not use it
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (name),
  UNIQUE (path),
  CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,63}$'::text)
);

-- The base's own test run, once per commit and sandbox program: its failures are known failures.
CREATE TABLE base_results (
  repository text NOT NULL,
  commit_id text NOT NULL,
  tests jsonb NOT NULL,                                      -- {"test id": "passed" | "failed" | "skipped" | "error"}
  problem text,                                              -- why this base cannot be judged (nothing collected), else null
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (repository, commit_id),
  FOREIGN KEY (repository) REFERENCES repositories(name)
);

CREATE TABLE nodes (
  name text NOT NULL,
  capacity int NOT NULL,
  rung text NOT NULL,                                        -- container | bubblewrap | ...: what the warden probed
  notice text NOT NULL DEFAULT '',                           -- what this rung lacks, in plain words
  heartbeat_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (name),
  CHECK (capacity > 0)
);

CREATE TABLE goals (
  id uuid NOT NULL,
  dag_id text NOT NULL,
  title text NOT NULL,
  text text NOT NULL,
  repository text NOT NULL,
  base_branch text NOT NULL,
  agent text NOT NULL,
  budget_micro bigint NOT NULL,
  deadline_s int NOT NULL,
  landing text NOT NULL,
  idempotency_key text NOT NULL,
  request_sha256 text NOT NULL,
  created_by text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  archived_at timestamptz,
  PRIMARY KEY (id),
  UNIQUE (dag_id),
  UNIQUE (idempotency_key),
  FOREIGN KEY (agent) REFERENCES agents(name),
  FOREIGN KEY (repository) REFERENCES repositories(name),
  CHECK (budget_micro > 0),
  CHECK (deadline_s > 0),
  CHECK (landing = ANY (ARRAY['per_goal'::text, 'per_task'::text]))
);

-- Append-only. The version of the plan bundle is max(seq).
CREATE TABLE plans (
  seq bigint NOT NULL DEFAULT nextval('plans_seq_seq'::regclass),
  goal uuid NOT NULL,
  revision int NOT NULL,
  sha256 text NOT NULL,
  document text NOT NULL,                                    -- the exact JSON that sha256 is of
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (seq),
  UNIQUE (goal, revision),
  FOREIGN KEY (goal) REFERENCES goals(id)
);
CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON plans FOR EACH ROW EXECUTE FUNCTION refuse_change();

CREATE TABLE goal_runs (
  id text NOT NULL,
  goal uuid NOT NULL,
  dag_id text NOT NULL,
  run_id text NOT NULL,                                      -- Airflow's
  plan bigint,
  state text NOT NULL DEFAULT 'SUBMITTED',
  reason text NOT NULL DEFAULT '',
  base_commit text,                                          -- where the goal branch started
  goal_branch text NOT NULL,                                 -- airlock/<id>
  landed_commit text,
  landing_note text NOT NULL DEFAULT '',                     -- what became of a checked-out base branch
  budget_micro bigint NOT NULL,
  reserved_micro bigint NOT NULL DEFAULT 0,
  spent_micro bigint NOT NULL DEFAULT 0,
  deadline_at timestamptz NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  ended_at timestamptz,
  events_pruned_at timestamptz,                              -- older than ended_at: opened again since
  transcripts_pruned_at timestamptz,
  PRIMARY KEY (id),
  UNIQUE (dag_id, run_id),
  FOREIGN KEY (goal) REFERENCES goals(id),
  FOREIGN KEY (plan) REFERENCES plans(seq),
  CHECK (budget_micro > 0),
  CHECK ((spent_micro + reserved_micro) <= budget_micro),
  CHECK (id ~ '^[a-z0-9][a-z0-9]{0,19}$'::text),
  CHECK (reserved_micro >= 0),
  CHECK (spent_micro >= 0)
);
CREATE INDEX goal_runs_ended ON goal_runs USING btree (ended_at);
CREATE TRIGGER event AFTER INSERT OR UPDATE ON goal_runs FOR EACH ROW EXECUTE FUNCTION write_event('goal_run');
CREATE TRIGGER guard BEFORE INSERT OR UPDATE OF state ON goal_runs FOR EACH ROW EXECUTE FUNCTION guard_transition('goal_run');

CREATE TABLE task_runs (
  id text NOT NULL,
  goal_run text NOT NULL,
  key text NOT NULL,
  state text NOT NULL DEFAULT 'PENDING',
  reason text NOT NULL DEFAULT '',
  epoch int NOT NULL DEFAULT 0,                              -- only grows
  feedback text NOT NULL DEFAULT '',                         -- for the next attempt
  accepted_commit text,                                      -- the last accepted commit (an attempt goes on from there)
  merged_commit text,
  spent_micro bigint NOT NULL DEFAULT 0,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  due_at timestamptz,                                        -- PENDING_RETRY: not admitted before
  due_ti text,                                               -- the admit step's task instance that waits for it: another one (a person cleared it) does not wait
  resume_from int,                                           -- the epoch that the next attempt goes on from; null: it starts over
  PRIMARY KEY (id),
  UNIQUE (goal_run, key),
  FOREIGN KEY (goal_run) REFERENCES goal_runs(id),
  CHECK ((merged_commit IS NOT NULL) = (state = 'COMPLETED'::text)),
  CHECK (id ~ '^[a-z0-9][a-z0-9_-]{0,63}$'::text)
);
CREATE TRIGGER epoch_grows BEFORE UPDATE OF epoch ON task_runs FOR EACH ROW EXECUTE FUNCTION grow_only();
CREATE TRIGGER event AFTER INSERT OR UPDATE ON task_runs FOR EACH ROW EXECUTE FUNCTION write_event('task_run');
CREATE TRIGGER guard BEFORE INSERT OR UPDATE OF state ON task_runs FOR EACH ROW EXECUTE FUNCTION guard_transition('task_run');

CREATE TABLE attempts (
  task_run text NOT NULL,
  epoch int NOT NULL,
  state text NOT NULL DEFAULT 'SPAWNING',                    -- the worker's life
  node text NOT NULL,
  rung text NOT NULL,
  step text NOT NULL DEFAULT '',                             -- the worker's own words on what it does now
  commit_id text,                                            -- what the worker says it handed in (a hint until quarantine)
  summary text NOT NULL DEFAULT '',
  finished_at timestamptz,                                   -- task.complete or task.failed is in, with all before it
  failure text,                                              -- class of failure, see include/tasks/models.py
  reason text NOT NULL DEFAULT '',
  counted boolean,                                           -- null while it lives; false: lost to infrastructure
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  ended_at timestamptz,
  resumed_from int,                                          -- the epoch whose transcript this one goes on with
  first_turn int NOT NULL DEFAULT 1,                         -- the turn that its worker asks for first
  admit_tries int,                                           -- tries that Airflow allowed its admit step when it granted: only a clear gives a step more
  PRIMARY KEY (task_run, epoch),
  FOREIGN KEY (node) REFERENCES nodes(name),
  FOREIGN KEY (task_run) REFERENCES task_runs(id)
);
CREATE TRIGGER event AFTER INSERT OR UPDATE ON attempts FOR EACH ROW EXECUTE FUNCTION write_event('attempt');
CREATE TRIGGER guard BEFORE INSERT OR UPDATE OF state ON attempts FOR EACH ROW EXECUTE FUNCTION guard_transition('attempt');

-- Every change of state, written by the trigger, and the worker's milestones.
CREATE TABLE task_events (
  id bigint NOT NULL DEFAULT nextval('task_events_id_seq'::regclass),
  machine text NOT NULL,                                     -- goal_run | task_run | attempt
  subject text NOT NULL,                                     -- id; for attempts <task run>/<epoch>
  kind text NOT NULL,                                        -- transition | milestone
  from_state text,
  to_state text,
  detail text NOT NULL DEFAULT '',
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (id)
);
CREATE INDEX task_events_subject ON task_events USING btree (subject, id);

-- Rework: what a step decided, before it asks the door to clear steps.
CREATE TABLE reworks (
  id uuid NOT NULL,
  task_run text NOT NULL,
  epoch int NOT NULL,
  ti_id text NOT NULL,                                       -- the deciding step's Airflow task-instance id: the fencing token
  steps text[] NOT NULL,                                     -- {admit,start,lease,verify,merge} or {verify,merge}
  reason text NOT NULL,
  feedback text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  cleared_at timestamptz,
  PRIMARY KEY (id),
  UNIQUE (task_run, epoch, ti_id),
  FOREIGN KEY (task_run) REFERENCES task_runs(id)
);

CREATE TABLE leases (
  id uuid NOT NULL,
  kind text NOT NULL,
  sandbox text NOT NULL,                                     -- container and directory name
  goal_run text,
  task_run text,
  epoch int,
  node text NOT NULL,
  capabilities text[] NOT NULL DEFAULT '{}'::text[],
  input_commit text NOT NULL,                                -- bundles/<commit>.bundle goes into the sandbox
  spec jsonb NOT NULL DEFAULT '{}'::jsonb,                   -- for the program inside (verify: which checks to run)
  max_tokens bigint NOT NULL DEFAULT 0,
  tokens_used bigint NOT NULL DEFAULT 0,
  max_micro bigint NOT NULL DEFAULT 0,
  reserved_micro bigint NOT NULL DEFAULT 0,
  spent_micro bigint NOT NULL DEFAULT 0,
  ti_id text NOT NULL,                                       -- the Airflow task instance that holds it (trap: on_kill of an old one)
  granted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  started_at timestamptz,                                    -- the warden started the sandbox
  expires_at timestamptz NOT NULL,
  heartbeat_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  watched_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  revoked_at timestamptz,
  revoke_reason text,
  grace interval NOT NULL DEFAULT '00:00:03'::interval,
  ended_at timestamptz,                                      -- the warden: evidence stored, sandbox removed
  taken int8multirange NOT NULL DEFAULT '{}'::int8multirange, -- numbers of the worker's messages that are in; contiguous ones are one range
  excess_micro bigint NOT NULL DEFAULT 0,                    -- real cost beyond the reserved worst case: breaks the lease
  broken text,                                               -- the standing for which the lease step revoked it; null: somebody else did, or nobody
  renewed_at timestamptz,                                    -- its time was extended
  PRIMARY KEY (id),
  UNIQUE (sandbox),
  FOREIGN KEY (goal_run) REFERENCES goal_runs(id),
  FOREIGN KEY (node) REFERENCES nodes(name),
  FOREIGN KEY (task_run, epoch) REFERENCES attempts(task_run, epoch),
  FOREIGN KEY (task_run) REFERENCES task_runs(id),
  CHECK ((spent_micro + reserved_micro) <= max_micro OR kind = 'verify'::text),
  CHECK ((kind = 'work'::text) = (epoch IS NOT NULL AND task_run IS NOT NULL) OR kind = 'verify'::text),
  CHECK (kind = ANY (ARRAY['work'::text, 'verify'::text])),
  CHECK (reserved_micro >= 0),
  CHECK (sandbox ~ '^airlock-[a-z0-9][a-z0-9_-]{0,99}$'::text),
  CHECK (spent_micro >= 0)
);
CREATE INDEX leases_live ON leases USING btree (node) WHERE (ended_at IS NULL);
CREATE INDEX leases_run ON leases USING btree (goal_run);
CREATE INDEX leases_task ON leases USING btree (task_run, epoch);
CREATE UNIQUE INDEX one_live_work_lease ON leases USING btree (task_run) WHERE ((kind = 'work'::text) AND (revoked_at IS NULL) AND (ended_at IS NULL));
CREATE TRIGGER tell_lease AFTER INSERT OR UPDATE OF revoked_at, expires_at ON leases FOR EACH ROW EXECUTE FUNCTION tell('leases');
CREATE TRIGGER tell_warden AFTER INSERT OR UPDATE OF revoked_at, expires_at ON leases FOR EACH ROW EXECUTE FUNCTION tell('warden', 'node');

-- Stored by the warden before anything is removed; the first one wins.
CREATE TABLE evidence (
  lease uuid NOT NULL,
  exit_code int,                                             -- null: never started, or lost with the engine
  out_of_memory boolean NOT NULL DEFAULT false,
  log bytea NOT NULL DEFAULT '\x'::bytea,                    -- capped, may hold any byte
  handin_sha256 text,                                        -- handins/<lease> holds the bytes; null: none, see handin_refused
  handin_bytes bigint,
  handin_refused text,
  because text NOT NULL DEFAULT '',                          -- why it ended, when it was over: revoked, expired, unwatched
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (lease),
  FOREIGN KEY (lease) REFERENCES leases(id)
);
CREATE TRIGGER tell_evidence AFTER INSERT ON evidence FOR EACH ROW EXECUTE FUNCTION tell('evidence');

-- Two random keys per attempt, one a direction; deleted with it.
CREATE TABLE attempt_keys (
  lease uuid NOT NULL,
  in_key bytea NOT NULL,
  out_key bytea NOT NULL,
  PRIMARY KEY (lease),
  FOREIGN KEY (lease) REFERENCES leases(id),
  CHECK (length(in_key) = 32),
  CHECK (length(out_key) = 32)
);

CREATE TABLE processed_messages (
  task_run text NOT NULL,
  epoch int NOT NULL,
  seq bigint NOT NULL,
  idempotency_key text NOT NULL,
  message_id uuid NOT NULL,
  type text NOT NULL,
  body_sha256 text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (task_run, epoch, seq),
  UNIQUE (idempotency_key)
);

CREATE TABLE outbox (
  id bigint NOT NULL DEFAULT nextval('outbox_id_seq'::regclass),
  agent text NOT NULL,
  task_run text NOT NULL,
  epoch int NOT NULL,
  seq bigint NOT NULL,
  idempotency_key text NOT NULL,
  type text NOT NULL,
  body bytea NOT NULL,                                       -- the exact bytes of the envelope
  signature text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  sent_at timestamptz,
  PRIMARY KEY (id),
  UNIQUE (idempotency_key),
  UNIQUE (task_run, epoch, seq),
  FOREIGN KEY (agent) REFERENCES agents(name)
);
CREATE INDEX outbox_unsent ON outbox USING btree (agent, id) WHERE (sent_at IS NULL);
CREATE TRIGGER tell_outbox AFTER INSERT ON outbox REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION tell_outbox();

-- A step of Airflow leaves a request; the agent's broker answers it.
CREATE TABLE model_requests (
  id uuid NOT NULL,
  agent text NOT NULL,
  goal_run text NOT NULL,
  purpose text NOT NULL,                                     -- plan | advice | review
  address text NOT NULL,                                     -- metadata.user_id: <goal run>/<purpose>/<n>
  body jsonb NOT NULL,                                       -- {"model", "system", "messages", "schema" | null, "max_tokens"}
  state text NOT NULL DEFAULT 'requested',
  response jsonb,                                            -- {"text", "stop_reason"}
  error_kind text,
  error text,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  done_at timestamptz,
  PRIMARY KEY (id),
  FOREIGN KEY (agent) REFERENCES agents(name),
  FOREIGN KEY (goal_run) REFERENCES goal_runs(id),
  CHECK (state = ANY (ARRAY['requested'::text, 'done'::text, 'failed'::text]))
);
CREATE INDEX model_requests_open ON model_requests USING btree (agent) WHERE (state = 'requested'::text);
CREATE TRIGGER tell_broker AFTER INSERT ON model_requests FOR EACH ROW EXECUTE FUNCTION tell('broker', 'agent');
CREATE TRIGGER tell_request AFTER UPDATE OF state ON model_requests FOR EACH ROW EXECUTE FUNCTION tell('model_request');

CREATE TABLE model_calls (
  id uuid NOT NULL,
  agent text NOT NULL,
  goal_run text NOT NULL,
  task_run text,
  epoch int,
  lease uuid,
  request text NOT NULL,                                     -- what asked: model_requests.id, or the llm.request message's idempotency key
  purpose text NOT NULL,
  model text NOT NULL,
  address text NOT NULL,
  offline boolean NOT NULL,
  state text NOT NULL DEFAULT 'reserved',
  owner text NOT NULL,                                       -- the broker process
  reserved_micro bigint NOT NULL,
  cost_micro bigint,
  input_tokens bigint,
  output_tokens bigint,
  cache_read_tokens bigint,
  cache_write_tokens bigint,
  http_attempts int NOT NULL DEFAULT 0,
  price_table text NOT NULL,
  error text,
  reserved_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  sent_at timestamptz,
  settled_at timestamptz,
  PRIMARY KEY (id),
  UNIQUE (request),
  FOREIGN KEY (agent) REFERENCES agents(name),
  FOREIGN KEY (goal_run) REFERENCES goal_runs(id),
  FOREIGN KEY (lease) REFERENCES leases(id),
  CHECK (cost_micro >= 0),
  CHECK (reserved_micro >= 0),
  CHECK (state = ANY (ARRAY['reserved'::text, 'sent'::text, 'settled'::text, 'released'::text, 'unknown'::text]))
);
CREATE INDEX model_calls_day ON model_calls USING btree (agent, reserved_at);
CREATE INDEX model_calls_open ON model_calls USING btree (lease) WHERE (state = ANY (ARRAY['reserved'::text, 'sent'::text]));
CREATE INDEX model_calls_run ON model_calls USING btree (goal_run, task_run);

CREATE TABLE transcripts (
  task_run text NOT NULL,
  epoch int NOT NULL,
  position int NOT NULL,
  role text NOT NULL,
  content jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (task_run, epoch, "position"),
  CHECK (role = ANY (ARRAY['user'::text, 'assistant'::text]))
);

CREATE TABLE questions (
  message_id uuid NOT NULL,
  task_run text NOT NULL,
  epoch int NOT NULL,
  question text NOT NULL,
  options jsonb NOT NULL,
  context text NOT NULL,
  urgency text NOT NULL,
  answer text,
  decided_by text,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  answered_at timestamptz,
  PRIMARY KEY (message_id)
);
CREATE INDEX questions_task ON questions USING btree (task_run, epoch);

CREATE TABLE decisions (
  id uuid NOT NULL,
  goal_run text NOT NULL,
  task_run text,
  epoch int,
  action text NOT NULL,                                      -- admit, or a capability
  decision text NOT NULL,
  decided_by text NOT NULL,
  rules text[] NOT NULL,
  reason text NOT NULL,
  policy_sha256 text NOT NULL,
  inputs jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (id),
  FOREIGN KEY (goal_run) REFERENCES goal_runs(id),
  CHECK (decision = ANY (ARRAY['permit'::text, 'forbid'::text, 'review'::text]))
);
CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON decisions FOR EACH ROW EXECUTE FUNCTION refuse_change();

CREATE TABLE artifacts (
  id uuid NOT NULL,
  goal_run text NOT NULL,
  task_run text,
  epoch int,
  type text NOT NULL,
  source text NOT NULL,
  tree text,
  sha256 text NOT NULL,
  data jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (id),
  FOREIGN KEY (goal_run) REFERENCES goal_runs(id),
  CHECK (source = ANY (ARRAY['worker'::text, 'verifier'::text, 'broker'::text, 'warden'::text])),
  CHECK (type = ANY (ARRAY['file_diff'::text, 'test_result'::text, 'build_result'::text, 'log'::text, 'cost_report'::text, 'review'::text]))
);
CREATE INDEX artifacts_task ON artifacts USING btree (task_run, epoch);

-- One row is both the request to the gatekeeper and its answer.
CREATE TABLE verdicts (
  id uuid NOT NULL,
  goal_run text NOT NULL,
  task_run text,                                             -- null: the landing of the goal run
  epoch int,
  tree text NOT NULL,
  suite text NOT NULL,
  suite_sha256 text,
  facts jsonb NOT NULL,                                      -- the row that the suite judges, see include/gate/models.py
  green boolean,                                             -- null: not judged
  findings jsonb,                                            -- [{"expectation", "message", "severity"}]
  requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  judged_at timestamptz,
  PRIMARY KEY (id),
  UNIQUE NULLS NOT DISTINCT (goal_run, task_run, epoch, tree, suite),
  FOREIGN KEY (goal_run) REFERENCES goal_runs(id),
  FOREIGN KEY (task_run) REFERENCES task_runs(id)
);
CREATE INDEX verdicts_open ON verdicts USING btree (requested_at) WHERE (green IS NULL);
CREATE TRIGGER tell_gatekeeper AFTER INSERT ON verdicts FOR EACH ROW EXECUTE FUNCTION tell('gatekeeper');

-- A branch merges at most once; a goal run lands at most once.
CREATE TABLE merges (
  task_run text NOT NULL,
  epoch int NOT NULL,
  target text NOT NULL,                                      -- the ref that moved
  commit_id text NOT NULL,
  tree text NOT NULL,
  verdict uuid NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (task_run),
  FOREIGN KEY (task_run) REFERENCES task_runs(id),
  FOREIGN KEY (verdict) REFERENCES verdicts(id)
);

-- Who is alive: broker/<agent> (it reads the streams), relay/<node>.
CREATE TABLE pulses (
  name text NOT NULL,
  beat_at timestamptz NOT NULL,
  steady_since timestamptz NOT NULL,                         -- the end of its last outage
  PRIMARY KEY (name)
);

-- What people are told: incidents and warnings, once each.
CREATE TABLE notices (
  id bigint NOT NULL DEFAULT nextval('notices_id_seq'::regclass),
  key text NOT NULL,                                         -- the same thing is told once
  kind text NOT NULL,
  goal_run text,
  task_run text,
  words text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (id),
  UNIQUE (key),
  FOREIGN KEY (goal_run) REFERENCES goal_runs(id),
  FOREIGN KEY (task_run) REFERENCES task_runs(id),
  CHECK (kind = ANY (ARRAY['incident'::text, 'warning'::text]))
);
CREATE INDEX notices_run ON notices USING btree (goal_run, id);

-- The audit log: append-only, chained by hash at commit, so that its order is the order of the commits.
CREATE TABLE audit_log (
  id uuid NOT NULL DEFAULT gen_random_uuid(),
  at timestamptz NOT NULL DEFAULT clock_timestamp(),
  actor text NOT NULL,                                       -- a person's Airflow user, or a process
  action text NOT NULL,                                      -- for example lease.revoked, messages.refused, goal.cancelled
  subject text NOT NULL,
  detail jsonb NOT NULL DEFAULT '{}'::jsonb,
  position bigint,                                           -- set at commit, without gaps
  previous text,                                             -- hash of the entry before; 64 zeros for the first
  hash text,                                                 -- SHA-256 of previous and what this entry says, see audit_hash
  PRIMARY KEY (id),
  UNIQUE ("position")
);
CREATE TRIGGER append_only BEFORE DELETE OR UPDATE ON audit_log FOR EACH ROW EXECUTE FUNCTION guard_audit();
CREATE TRIGGER append_only_whole BEFORE TRUNCATE ON audit_log FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE CONSTRAINT TRIGGER chain AFTER INSERT ON audit_log DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION chain_audit();

-- The minute without a watch counts only while Airflow keeps up.
-- Airflow's scheduler beats in each of its loops, at most twice a second. Two seconds without a beat: it does not keep up.
CREATE FUNCTION public.airflow_beats()
 RETURNS void
 LANGUAGE sql
 SECURITY DEFINER
 SET search_path TO 'public', 'pg_temp'
AS $function$
  SELECT beat('airflow/scheduler', '2 s')
$function$;

CREATE FUNCTION public.audit_hash(e audit_log)
 RETURNS text
 LANGUAGE sql
 IMMUTABLE
AS $function$
  SELECT encode(sha256(convert_to(audit_text(e), 'UTF8')), 'hex')
$function$;

-- The exact text that is hashed: fields by their length, so that no two entries give the same bytes.
CREATE FUNCTION public.audit_text(e audit_log)
 RETURNS text
 LANGUAGE sql
 IMMUTABLE
AS $function$
  SELECT string_agg(length(part) || ' ' || part, ' ' ORDER BY number) FROM unnest(ARRAY[e.previous, e.position::text, e.id::text,
    (extract(epoch FROM e.at) * 1000000)::bigint::text, e.actor, e.action, e.subject, e.detail::text]) WITH ORDINALITY AS p(part, number)
$function$;

CREATE FUNCTION public.beat(the_name text, gap interval)
 RETURNS void
 LANGUAGE sql
 SECURITY DEFINER
 SET search_path TO 'public', 'pg_temp'
AS $function$
  INSERT INTO pulses VALUES (the_name, clock_timestamp(), clock_timestamp())
  ON CONFLICT (name) DO UPDATE SET beat_at = clock_timestamp(),
    steady_since = CASE WHEN pulses.beat_at < clock_timestamp() - gap THEN clock_timestamp() ELSE pulses.steady_since END
$function$;

-- Until when nothing of a lease expires or counts as silent: PostgreSQL, its broker (with the streams) or its relay was away just now.
-- 'infinity': one of them is away. A pulse that was never there is not waited for. A verification needs PostgreSQL only.
CREATE FUNCTION public.calm_until(l leases, calm interval)
 RETURNS timestamp with time zone
 LANGUAGE plpgsql
 STABLE
AS $function$
BEGIN
  RETURN greatest(pg_postmaster_start_time() + calm, (
    SELECT max(CASE WHEN p.beat_at < clock_timestamp() - greatest(calm / 3, '3 s') THEN 'infinity' ELSE p.steady_since + calm END)
    FROM pulses p WHERE l.kind = 'work' AND p.name = ANY (ARRAY['relay/' || l.node,
      (SELECT 'broker/' || g.agent FROM goal_runs r JOIN goals g ON g.id = r.goal WHERE r.id = l.goal_run)])));
END $function$;

-- At commit, and so as the last lock that a transaction takes: nobody waits for a row behind it.
CREATE FUNCTION public.chain_audit()
 RETURNS trigger
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'public', 'pg_temp'
AS $function$
DECLARE mine audit_log; before audit_log;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('airlock audit', 0));
  SELECT * INTO before FROM audit_log WHERE position IS NOT NULL ORDER BY position DESC LIMIT 1;
  SELECT * INTO mine FROM audit_log WHERE id = NEW.id;
  mine.position := COALESCE(before.position, 0) + 1;
  mine.previous := COALESCE(before.hash, repeat('0', 64));
  UPDATE audit_log SET position = mine.position, previous = mine.previous, hash = audit_hash(mine) WHERE id = NEW.id;
  RETURN NULL;
END $function$;

CREATE FUNCTION public.grow_only()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
  IF NEW.epoch < OLD.epoch THEN RAISE EXCEPTION 'an epoch only grows: % -> %', OLD.epoch, NEW.epoch USING ERRCODE = 'AL003'; END IF;
  RETURN NEW;
END $function$;

CREATE FUNCTION public.guard_audit()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
  IF TG_OP = 'UPDATE' AND OLD.position IS NULL
     AND (OLD.id, OLD.at, OLD.actor, OLD.action, OLD.subject, OLD.detail) IS NOT DISTINCT FROM (NEW.id, NEW.at, NEW.actor, NEW.action, NEW.subject, NEW.detail)
  THEN RETURN NEW; END IF;
  RAISE EXCEPTION 'audit_log is append-only' USING ERRCODE = 'AL002';
END $function$;

-- A state also begins only where the table of transitions says so (from_state '').
CREATE FUNCTION public.guard_transition()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
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
END $function$;

-- An attempt that is resumed leaves nothing more: its sandbox is gone, or its warden is away, or was at it for five minutes.
CREATE FUNCTION public.leaves_no_more(l leases)
 RETURNS boolean
 LANGUAGE sql
 STABLE
AS $function$
  SELECT l.ended_at IS NOT NULL OR COALESCE(l.revoked_at < clock_timestamp() - CASE
    WHEN EXISTS (SELECT FROM nodes n WHERE n.name = l.node AND n.heartbeat_at > clock_timestamp() - interval '30 s')
    THEN interval '5 min' ELSE interval '30 s' END, false)
$function$;

-- Seconds until something on this node may be over (null: nothing lives); too early does no harm.
CREATE FUNCTION public.next_due_s(the_node text, calm interval, unwatched interval)
 RETURNS double precision
 LANGUAGE sql
 STABLE
AS $function$
  SELECT extract(epoch FROM min(due) - clock_timestamp()) FROM (
    SELECT CASE WHEN revoked_at IS NOT NULL THEN revoked_at + grace
                ELSE least(CASE WHEN expires_at > clock_timestamp() THEN expires_at ELSE calm_until(l, calm) END,
                           greatest(unwatched_at(watched_at, unwatched), pg_postmaster_start_time() + calm)) END AS due
    FROM leases l WHERE node = the_node AND ended_at IS NULL) AS lives
  WHERE due <> 'infinity'
$function$;

-- At most so many goal runs, the oldest first; the caller commits and asks again while "runs" is not 0. Nothing younger than a day goes.
CREATE FUNCTION public.prune(events interval, transcripts interval, most integer)
 RETURNS jsonb
 LANGUAGE plpgsql
 SECURITY DEFINER
 SET search_path TO 'public', 'pg_temp'
AS $function$
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
END $function$;

CREATE FUNCTION public.refuse_change()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'AL002'; END $function$;

-- What is over: the one judgement.
-- Null while the lease holds; a null silence asks for no heartbeat, a null unwatched for no watch.
-- What the warden ends stands first (revoked, unwatched, expired), so that a
-- term that only the sensor looks at never hides it; the sensor revokes for the rest.
CREATE FUNCTION public.standing(l leases, calm interval, unwatched interval, silence interval)
 RETURNS text
 LANGUAGE plpgsql
 STABLE
AS $function$
BEGIN
  RETURN CASE
    WHEN l.ended_at IS NOT NULL THEN 'ended'
    WHEN l.revoked_at IS NOT NULL THEN 'revoked'
    WHEN l.watched_at + unwatched <= clock_timestamp() AND unwatched_at(l.watched_at, unwatched) <= clock_timestamp()
      AND clock_timestamp() > pg_postmaster_start_time() + calm THEN 'unwatched'
    WHEN l.expires_at <= clock_timestamp() AND calm_until(l, calm) <= clock_timestamp() THEN 'expired'
    WHEN l.kind <> 'work' THEN NULL
    WHEN l.tokens_used > l.max_tokens THEN 'tokens'
    WHEN l.excess_micro > 0 THEN 'usd'
    WHEN l.started_at IS NOT NULL AND l.heartbeat_at + silence <= clock_timestamp() AND calm_until(l, calm) <= clock_timestamp() THEN 'silent'
  END;
END $function$;

CREATE FUNCTION public.tell()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
DECLARE row_ jsonb := to_jsonb(NEW);
BEGIN
  PERFORM pg_notify(TG_ARGV[0] || CASE WHEN TG_NARGS > 1 THEN '_' || (row_->>TG_ARGV[1]) ELSE '' END, COALESCE(row_->>'id', row_->>'lease'));
  RETURN NULL;
END $function$;

-- A batch of messages wakes its agent's broker once.
CREATE FUNCTION public.tell_outbox()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN PERFORM pg_notify('outbox_' || agent, '') FROM (SELECT DISTINCT agent FROM fresh) AS agents; RETURN NULL; END $function$;

-- When a lease that nobody watches is over. The period begins anew with each time that Airflow did not keep up; after ten periods it is over
-- all the same. A scheduler that has not beaten for a period is dead, not busy, and is not waited for.
CREATE FUNCTION public.unwatched_at(watched_at timestamp with time zone, period interval)
 RETURNS timestamp with time zone
 LANGUAGE plpgsql
 STABLE
AS $function$
DECLARE
  s pulses%ROWTYPE;
  now timestamptz := clock_timestamp();
BEGIN
  SELECT * INTO s FROM pulses WHERE name = 'airflow/scheduler';
  RETURN least(watched_at + 10 * period, greatest(watched_at + period, CASE
    WHEN s.beat_at + period <= now THEN NULL
    WHEN s.beat_at < now - interval '2 s' THEN s.beat_at + period
    ELSE s.steady_since + period END));
END $function$;

-- What is over: the one function by which the warden kills.
-- Revoked and past its grace first. Then, not within the calm period after PostgreSQL came back, expired or unwatched.
CREATE FUNCTION public.what_is_over(the_node text, calm interval, unwatched interval)
 RETURNS TABLE(lease uuid, sandbox text, because text)
 LANGUAGE sql
 STABLE
AS $function$
  SELECT id, j.sandbox, CASE s WHEN 'revoked' THEN 'revoked: ' || COALESCE(revoke_reason, '') ELSE s END
  FROM (SELECT l.*, standing(l, calm, unwatched, NULL) AS s FROM leases l WHERE node = the_node AND ended_at IS NULL OFFSET 0) AS j
  WHERE s IN ('expired', 'unwatched') OR (s = 'revoked' AND revoked_at + grace <= clock_timestamp())
$function$;

CREATE FUNCTION public.write_event()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
DECLARE
  row_ jsonb := to_jsonb(NEW);
  subject text := CASE TG_ARGV[0] WHEN 'attempt' THEN (row_->>'task_run') || '/' || (row_->>'epoch') ELSE row_->>'id' END;
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO task_events (machine, subject, kind, to_state) VALUES (TG_ARGV[0], subject, 'transition', NEW.state);
  ELSIF NEW.state IS DISTINCT FROM OLD.state THEN
    INSERT INTO task_events (machine, subject, kind, from_state, to_state, detail)
    VALUES (TG_ARGV[0], subject, 'transition', OLD.state, NEW.state, row_->>'reason');
  END IF;
  PERFORM pg_notify('airlock_state', TG_ARGV[0] || ' ' || subject);
  RETURN NULL;
END $function$;

GRANT SELECT ON agents TO airlock_airflow;
GRANT SELECT ON airlock_version TO airlock_airflow;
GRANT INSERT, SELECT ON artifacts TO airlock_airflow;
GRANT INSERT ON attempt_keys TO airlock_airflow;
GRANT INSERT, SELECT, UPDATE ON attempts TO airlock_airflow;
GRANT INSERT (actor, action, subject, detail), SELECT ON audit_log TO airlock_airflow;
GRANT INSERT, SELECT ON base_results TO airlock_airflow;
GRANT INSERT, SELECT ON decisions TO airlock_airflow;
GRANT SELECT ON evidence TO airlock_airflow;
GRANT INSERT, SELECT, UPDATE ON goal_runs TO airlock_airflow;
GRANT INSERT, SELECT, UPDATE ON goals TO airlock_airflow;
GRANT INSERT, SELECT, UPDATE ON leases TO airlock_airflow;
GRANT INSERT, SELECT ON merges TO airlock_airflow;
GRANT SELECT ON model_calls TO airlock_airflow;
GRANT INSERT, SELECT ON model_requests TO airlock_airflow;
GRANT SELECT ON nodes TO airlock_airflow;
GRANT INSERT, SELECT ON notices TO airlock_airflow;
GRANT SELECT ON outbox TO airlock_airflow;
GRANT INSERT, SELECT ON plans TO airlock_airflow;
GRANT SELECT ON processed_messages TO airlock_airflow;
GRANT SELECT ON pulses TO airlock_airflow;
GRANT SELECT ON questions TO airlock_airflow;
GRANT SELECT ON repositories TO airlock_airflow;
GRANT INSERT, SELECT, UPDATE ON reworks TO airlock_airflow;
GRANT INSERT, SELECT ON task_events TO airlock_airflow;
GRANT INSERT, SELECT, UPDATE ON task_runs TO airlock_airflow;
GRANT SELECT ON transcripts TO airlock_airflow;
GRANT SELECT ON transitions TO airlock_airflow;
GRANT INSERT, SELECT ON verdicts TO airlock_airflow;
GRANT EXECUTE ON FUNCTION airflow_beats TO airlock_airflow;
GRANT EXECUTE ON FUNCTION prune TO airlock_airflow;

GRANT SELECT ON agents TO airlock_broker;
GRANT INSERT, SELECT ON artifacts TO airlock_broker;
GRANT SELECT ON attempt_keys TO airlock_broker;
GRANT SELECT, UPDATE (state, step, commit_id, summary, finished_at, failure, reason, first_turn) ON attempts TO airlock_broker;
GRANT INSERT (actor, action, subject, detail), SELECT ON audit_log TO airlock_broker;
GRANT INSERT, SELECT ON decisions TO airlock_broker;
GRANT SELECT ON evidence TO airlock_broker;
GRANT SELECT, UPDATE (reserved_micro, spent_micro) ON goal_runs TO airlock_broker;
GRANT SELECT ON goals TO airlock_broker;
GRANT SELECT, UPDATE (tokens_used, reserved_micro, spent_micro, heartbeat_at, taken, excess_micro) ON leases TO airlock_broker;
GRANT INSERT, SELECT, UPDATE ON model_calls TO airlock_broker;
GRANT SELECT, UPDATE ON model_requests TO airlock_broker;
GRANT INSERT, SELECT ON notices TO airlock_broker;
GRANT INSERT, SELECT, UPDATE ON outbox TO airlock_broker;
GRANT SELECT ON plans TO airlock_broker;
GRANT INSERT, SELECT ON processed_messages TO airlock_broker;
GRANT SELECT ON pulses TO airlock_broker;
GRANT INSERT, SELECT, UPDATE ON questions TO airlock_broker;
GRANT INSERT ON task_events TO airlock_broker;
GRANT SELECT, UPDATE (state, reason, spent_micro, updated_at) ON task_runs TO airlock_broker;
GRANT INSERT, SELECT ON transcripts TO airlock_broker;
GRANT SELECT ON transitions TO airlock_broker;
GRANT EXECUTE ON FUNCTION beat TO airlock_broker;

GRANT SELECT ON agents TO airlock_cli;
GRANT SELECT ON airlock_version TO airlock_cli;
GRANT SELECT ON artifacts TO airlock_cli;
GRANT SELECT, UPDATE (state, failure, reason, counted, ended_at) ON attempts TO airlock_cli;
GRANT INSERT (actor, action, subject, detail), SELECT ON audit_log TO airlock_cli;
GRANT SELECT ON base_results TO airlock_cli;
GRANT SELECT ON decisions TO airlock_cli;
GRANT SELECT ON evidence TO airlock_cli;
GRANT SELECT, UPDATE (state, reason, ended_at) ON goal_runs TO airlock_cli;
GRANT SELECT, UPDATE (archived_at) ON goals TO airlock_cli;
GRANT SELECT, UPDATE (expires_at, revoked_at, revoke_reason, grace, renewed_at) ON leases TO airlock_cli;
GRANT SELECT ON merges TO airlock_cli;
GRANT SELECT ON model_calls TO airlock_cli;
GRANT SELECT ON model_requests TO airlock_cli;
GRANT SELECT ON nodes TO airlock_cli;
GRANT SELECT ON notices TO airlock_cli;
GRANT SELECT ON outbox TO airlock_cli;
GRANT SELECT ON plans TO airlock_cli;
GRANT SELECT ON processed_messages TO airlock_cli;
GRANT SELECT ON pulses TO airlock_cli;
GRANT SELECT ON questions TO airlock_cli;
GRANT INSERT, SELECT, UPDATE (listed) ON repositories TO airlock_cli;
GRANT SELECT ON reworks TO airlock_cli;
GRANT INSERT, SELECT ON task_events TO airlock_cli;
GRANT SELECT, UPDATE (state, reason, updated_at) ON task_runs TO airlock_cli;
GRANT SELECT ON transcripts TO airlock_cli;
GRANT SELECT ON transitions TO airlock_cli;
GRANT SELECT ON verdicts TO airlock_cli;
GRANT EXECUTE ON FUNCTION prune TO airlock_cli;

GRANT SELECT, UPDATE (suite_sha256, green, findings, judged_at) ON verdicts TO airlock_gatekeeper;

GRANT SELECT ON agents TO airlock_viewer;
GRANT SELECT ON airlock_version TO airlock_viewer;
GRANT SELECT ON artifacts TO airlock_viewer;
GRANT SELECT ON attempts TO airlock_viewer;
GRANT SELECT ON audit_log TO airlock_viewer;
GRANT SELECT ON base_results TO airlock_viewer;
GRANT SELECT ON decisions TO airlock_viewer;
GRANT SELECT ON evidence TO airlock_viewer;
GRANT SELECT ON goal_runs TO airlock_viewer;
GRANT SELECT ON goals TO airlock_viewer;
GRANT SELECT ON leases TO airlock_viewer;
GRANT SELECT ON merges TO airlock_viewer;
GRANT SELECT ON model_calls TO airlock_viewer;
GRANT SELECT ON model_requests TO airlock_viewer;
GRANT SELECT ON nodes TO airlock_viewer;
GRANT SELECT ON notices TO airlock_viewer;
GRANT SELECT ON outbox TO airlock_viewer;
GRANT SELECT ON plans TO airlock_viewer;
GRANT SELECT ON processed_messages TO airlock_viewer;
GRANT SELECT ON pulses TO airlock_viewer;
GRANT SELECT ON questions TO airlock_viewer;
GRANT SELECT ON repositories TO airlock_viewer;
GRANT SELECT ON reworks TO airlock_viewer;
GRANT SELECT ON task_events TO airlock_viewer;
GRANT SELECT ON task_runs TO airlock_viewer;
GRANT SELECT ON transcripts TO airlock_viewer;
GRANT SELECT ON transitions TO airlock_viewer;
GRANT SELECT ON verdicts TO airlock_viewer;

GRANT DELETE, SELECT ON attempt_keys TO airlock_warden;
GRANT SELECT, UPDATE (state, failure, reason) ON attempts TO airlock_warden;
GRANT INSERT (actor, action, subject, detail) ON audit_log TO airlock_warden;
GRANT INSERT, SELECT ON evidence TO airlock_warden;
GRANT SELECT ON goal_runs TO airlock_warden;
GRANT SELECT ON goals TO airlock_warden;
GRANT SELECT, UPDATE (started_at, heartbeat_at, ended_at) ON leases TO airlock_warden;
GRANT INSERT, SELECT, UPDATE ON nodes TO airlock_warden;
GRANT SELECT ON pulses TO airlock_warden;
GRANT INSERT ON task_events TO airlock_warden;
GRANT SELECT ON task_runs TO airlock_warden;
GRANT SELECT ON transitions TO airlock_warden;
GRANT EXECUTE ON FUNCTION beat TO airlock_warden;
