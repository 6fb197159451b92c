-- The state of Airlock. Money is bigint micro-USD (column names end in _micro). Times are PostgreSQL's own.
-- A column "state" moves only along the rows of the table transitions: the trigger guard_transition holds that.

-- What may follow what -------------------------------------------------------------------------------------------------
CREATE TABLE transitions (
  machine    text NOT NULL,            -- goal_run | task_run | attempt
  from_state text NOT NULL,
  to_state   text NOT NULL,
  PRIMARY KEY (machine, from_state, to_state)
);

-- Who and where --------------------------------------------------------------------------------------------------------
CREATE TABLE agents (
  name             text PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9-]{0,31}$'),
  planner_model    text NOT NULL,
  worker_model     text NOT NULL,
  advice_model     text NOT NULL,
  capabilities     text[] NOT NULL,
  day_budget_micro bigint NOT NULL CHECK (day_budget_micro >= 0),
  month_budget_micro bigint NOT NULL CHECK (month_budget_micro >= 0),
  created_at       timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE repositories (
  name       text PRIMARY KEY CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,63}$'),
  path       text NOT NULL UNIQUE,
  listed     boolean NOT NULL,          -- false: named by a path on the command line; forms and REST may not use it
  created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The base's own test run, once per commit and sandbox program: its failures are known failures.
CREATE TABLE base_results (
  repository text NOT NULL REFERENCES repositories,
  commit_id  text NOT NULL,
  tests      jsonb NOT NULL,            -- {"test id": "passed" | "failed" | "skipped" | "error"}
  problem    text,                      -- why this base cannot be judged (nothing collected), else null
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (repository, commit_id)
);

CREATE TABLE nodes (
  name         text PRIMARY KEY,
  capacity     int NOT NULL CHECK (capacity > 0),
  rung         text NOT NULL,           -- container | bubblewrap | ...: what the warden probed
  notice       text NOT NULL DEFAULT '',-- what this rung lacks, in plain words
  heartbeat_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Goals ----------------------------------------------------------------------------------------------------------------
CREATE TABLE goals (
  id              uuid PRIMARY KEY,
  dag_id          text NOT NULL UNIQUE,
  title           text NOT NULL,
  text            text NOT NULL,
  repository      text NOT NULL REFERENCES repositories,
  base_branch     text NOT NULL,
  agent           text NOT NULL REFERENCES agents,
  budget_micro    bigint NOT NULL CHECK (budget_micro > 0),
  deadline_s      int NOT NULL CHECK (deadline_s > 0),
  landing         text NOT NULL CHECK (landing IN ('per_goal', 'per_task')),
  idempotency_key text NOT NULL UNIQUE,
  request_sha256  text NOT NULL,
  created_by      text NOT NULL,
  created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
  archived_at     timestamptz
);

-- Append-only. The version of the plan bundle is max(seq).
CREATE TABLE plans (
  seq        bigserial PRIMARY KEY,
  goal       uuid NOT NULL REFERENCES goals,
  revision   int NOT NULL,
  sha256     text NOT NULL,
  document   text NOT NULL,             -- the exact JSON that sha256 is of
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  UNIQUE (goal, revision)
);

CREATE TABLE goal_runs (
  id             text PRIMARY KEY CHECK (id ~ '^[a-z0-9][a-z0-9]{0,19}$'),
  goal           uuid NOT NULL REFERENCES goals,
  dag_id         text NOT NULL,
  run_id         text NOT NULL,         -- Airflow's
  plan           bigint REFERENCES plans,
  state          text NOT NULL DEFAULT 'SUBMITTED',
  reason         text NOT NULL DEFAULT '',
  base_commit    text,                  -- where the goal branch started
  goal_branch    text NOT NULL,         -- airlock/<id>
  landed_commit  text,
  landing_note   text NOT NULL DEFAULT '', -- what became of a checked-out base branch
  budget_micro   bigint NOT NULL CHECK (budget_micro > 0),
  reserved_micro bigint NOT NULL DEFAULT 0 CHECK (reserved_micro >= 0),
  spent_micro    bigint NOT NULL DEFAULT 0 CHECK (spent_micro >= 0),
  deadline_at    timestamptz NOT NULL,
  created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
  ended_at       timestamptz,
  UNIQUE (dag_id, run_id),
  CHECK (spent_micro + reserved_micro <= budget_micro)      -- overspend is impossible
);

-- Tasks ----------------------------------------------------------------------------------------------------------------
CREATE TABLE task_runs (
  id              text PRIMARY KEY CHECK (id ~ '^[a-z0-9][a-z0-9_-]{0,63}$'),
  goal_run        text NOT NULL REFERENCES goal_runs,
  key             text NOT NULL,
  state           text NOT NULL DEFAULT 'PENDING',
  reason          text NOT NULL DEFAULT '',
  epoch           int NOT NULL DEFAULT 0,   -- only grows
  feedback        text NOT NULL DEFAULT '', -- for the next attempt
  accepted_commit text,                     -- the last accepted commit (an attempt goes on from there)
  merged_commit   text,
  spent_micro     bigint NOT NULL DEFAULT 0,
  created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
  updated_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
  UNIQUE (goal_run, key),
  CHECK ((merged_commit IS NOT NULL) = (state = 'COMPLETED'))
);

CREATE TABLE attempts (
  task_run     text NOT NULL REFERENCES task_runs,
  epoch        int NOT NULL,
  state        text NOT NULL DEFAULT 'SPAWNING',  -- the worker's life
  node         text NOT NULL REFERENCES nodes,
  rung         text NOT NULL,
  step         text NOT NULL DEFAULT '',   -- the worker's own words on what it does now
  commit_id    text,                       -- what the worker says it handed in (a hint until quarantine)
  summary      text NOT NULL DEFAULT '',
  finished_at  timestamptz,                -- task.complete or task.failed is in, with all before it
  failure      text,                       -- class of failure, see include/tasks/models.py
  reason       text NOT NULL DEFAULT '',
  counted      boolean,                    -- null while it lives; false: lost to infrastructure
  created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  ended_at     timestamptz,
  PRIMARY KEY (task_run, epoch)
);

-- Every change of state, written by the trigger, and the worker's milestones.
CREATE TABLE task_events (
  id         bigserial PRIMARY KEY,
  machine    text NOT NULL,                -- goal_run | task_run | attempt
  subject    text NOT NULL,                -- id; for attempts <task run>/<epoch>
  kind       text NOT NULL,                -- transition | milestone
  from_state text,
  to_state   text,
  detail     text NOT NULL DEFAULT '',
  created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX task_events_subject ON task_events (subject, id);

-- Rework: what a step decided, before it asks the door to clear steps.
CREATE TABLE reworks (
  id         uuid PRIMARY KEY,
  task_run   text NOT NULL REFERENCES task_runs,
  epoch      int NOT NULL,
  ti_id      text NOT NULL,                -- the deciding step's Airflow task-instance id: the fencing token
  steps      text[] NOT NULL,              -- {admit,start,lease,verify,merge} or {verify,merge}
  reason     text NOT NULL,
  feedback   text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  cleared_at timestamptz,
  UNIQUE (task_run, epoch, ti_id)
);

-- Leases ---------------------------------------------------------------------------------------------------------------
CREATE TABLE leases (
  id             uuid PRIMARY KEY,
  kind           text NOT NULL CHECK (kind IN ('work', 'verify')),
  sandbox        text NOT NULL UNIQUE CHECK (sandbox ~ '^airlock-[a-z0-9][a-z0-9_-]{0,99}$'), -- container and directory name
  goal_run       text REFERENCES goal_runs,
  task_run       text REFERENCES task_runs,
  epoch          int,
  node           text NOT NULL REFERENCES nodes,
  capabilities   text[] NOT NULL DEFAULT '{}',
  input_commit   text NOT NULL,            -- bundles/<commit>.bundle goes into the sandbox
  spec           jsonb NOT NULL DEFAULT '{}', -- for the program inside (verify: which checks to run)
  max_tokens     bigint NOT NULL DEFAULT 0,
  tokens_used    bigint NOT NULL DEFAULT 0,
  max_micro      bigint NOT NULL DEFAULT 0,
  reserved_micro bigint NOT NULL DEFAULT 0 CHECK (reserved_micro >= 0),
  spent_micro    bigint NOT NULL DEFAULT 0 CHECK (spent_micro >= 0),
  ti_id          text NOT NULL,            -- the Airflow task instance that holds it (trap: on_kill of an old one)
  granted_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
  started_at     timestamptz,              -- the warden started the sandbox
  expires_at     timestamptz NOT NULL,
  heartbeat_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  watched_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
  revoked_at     timestamptz,
  revoke_reason  text,
  grace          interval NOT NULL DEFAULT '3 seconds',
  ended_at       timestamptz,              -- the warden: evidence stored, sandbox removed
  CHECK (spent_micro + reserved_micro <= max_micro OR kind = 'verify'),
  CHECK ((kind = 'work') = (epoch IS NOT NULL AND task_run IS NOT NULL) OR kind = 'verify'),
  FOREIGN KEY (task_run, epoch) REFERENCES attempts
);
-- At most one live lease to work per task run.
CREATE UNIQUE INDEX one_live_work_lease ON leases (task_run) WHERE kind = 'work' AND revoked_at IS NULL AND ended_at IS NULL;
CREATE INDEX leases_live ON leases (node) WHERE ended_at IS NULL;

-- Stored by the warden before anything is removed; the first one wins.
CREATE TABLE evidence (
  lease          uuid PRIMARY KEY REFERENCES leases,
  exit_code      int,                      -- null: never started, or lost with the engine
  out_of_memory  boolean NOT NULL DEFAULT false,
  log            bytea NOT NULL DEFAULT '',-- capped, may hold any byte
  handin_sha256  text,                     -- handins/<lease> holds the bytes; null: none, see handin_refused
  handin_bytes   bigint,
  handin_refused text,
  because        text NOT NULL DEFAULT '', -- why it ended, when it was over: revoked, expired, unwatched
  created_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Two random keys per attempt, one a direction; deleted with it.
CREATE TABLE attempt_keys (
  lease   uuid PRIMARY KEY REFERENCES leases,
  in_key  bytea NOT NULL CHECK (length(in_key) = 32),
  out_key bytea NOT NULL CHECK (length(out_key) = 32)
);

-- Messages -------------------------------------------------------------------------------------------------------------
CREATE TABLE processed_messages (
  task_run        text NOT NULL,
  epoch           int NOT NULL,
  seq             bigint NOT NULL,
  idempotency_key text NOT NULL UNIQUE,
  message_id      uuid NOT NULL,
  type            text NOT NULL,
  body_sha256     text NOT NULL,
  created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (task_run, epoch, seq)       -- a sequence number is taken once
);

CREATE TABLE outbox (
  id              bigserial PRIMARY KEY,
  agent           text NOT NULL REFERENCES agents,
  task_run        text NOT NULL,
  epoch           int NOT NULL,
  seq             bigint NOT NULL,
  idempotency_key text NOT NULL UNIQUE,
  type            text NOT NULL,
  body            bytea NOT NULL,          -- the exact bytes of the envelope
  signature       text NOT NULL,
  created_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
  sent_at         timestamptz,
  UNIQUE (task_run, epoch, seq)
);
CREATE INDEX outbox_unsent ON outbox (agent, id) WHERE sent_at IS NULL;

-- Models and money -----------------------------------------------------------------------------------------------------
-- A step of Airflow leaves a request; the agent's broker answers it.
CREATE TABLE model_requests (
  id         uuid PRIMARY KEY,
  agent      text NOT NULL REFERENCES agents,
  goal_run   text NOT NULL REFERENCES goal_runs,
  purpose    text NOT NULL,                -- plan | advice | review
  address    text NOT NULL,                -- metadata.user_id: <goal run>/<purpose>/<n>
  body       jsonb NOT NULL,               -- {"model", "system", "messages", "schema" | null, "max_tokens"}
  state      text NOT NULL DEFAULT 'requested' CHECK (state IN ('requested', 'done', 'failed')),
  response   jsonb,                        -- {"text", "stop_reason"}
  error_kind text,
  error      text,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  done_at    timestamptz
);
CREATE INDEX model_requests_open ON model_requests (agent) WHERE state = 'requested';

CREATE TABLE model_calls (
  id                 uuid PRIMARY KEY,
  agent              text NOT NULL REFERENCES agents,
  goal_run           text NOT NULL REFERENCES goal_runs,
  task_run           text,
  epoch              int,
  lease              uuid REFERENCES leases,
  request            text NOT NULL UNIQUE, -- what asked: model_requests.id, or the llm.request message's idempotency key
  purpose            text NOT NULL,
  model              text NOT NULL,
  address            text NOT NULL,
  offline            boolean NOT NULL,
  state              text NOT NULL DEFAULT 'reserved' CHECK (state IN ('reserved', 'sent', 'settled', 'released', 'unknown')),
  owner              text NOT NULL,        -- the broker process
  reserved_micro     bigint NOT NULL CHECK (reserved_micro >= 0),
  cost_micro         bigint CHECK (cost_micro >= 0),
  input_tokens       bigint,
  output_tokens      bigint,
  cache_read_tokens  bigint,
  cache_write_tokens bigint,
  http_attempts      int NOT NULL DEFAULT 0,
  price_table        text NOT NULL,
  error              text,
  reserved_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
  sent_at            timestamptz,
  settled_at         timestamptz
);
CREATE INDEX model_calls_run ON model_calls (goal_run, task_run);
CREATE INDEX model_calls_day ON model_calls (agent, reserved_at);

CREATE TABLE transcripts (
  task_run   text NOT NULL,
  epoch      int NOT NULL,
  position   int NOT NULL,
  role       text NOT NULL CHECK (role IN ('user', 'assistant')),
  content    jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (task_run, epoch, position)
);

CREATE TABLE questions (
  message_id uuid PRIMARY KEY,
  task_run   text NOT NULL,
  epoch      int NOT NULL,
  question   text NOT NULL,
  options    jsonb NOT NULL,
  context    text NOT NULL,
  urgency    text NOT NULL,
  answer     text,
  decided_by text,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  answered_at timestamptz
);

-- Decisions, results, verdicts, merges -----------------------------------------------------------------------------------
CREATE TABLE decisions (
  id            uuid PRIMARY KEY,
  goal_run      text NOT NULL REFERENCES goal_runs,
  task_run      text,
  epoch         int,
  action        text NOT NULL,             -- admit, or a capability
  decision      text NOT NULL CHECK (decision IN ('permit', 'forbid', 'review')),
  decided_by    text NOT NULL,
  rules         text[] NOT NULL,
  reason        text NOT NULL,
  policy_sha256 text NOT NULL,
  inputs        jsonb NOT NULL,
  created_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE artifacts (
  id         uuid PRIMARY KEY,
  goal_run   text NOT NULL REFERENCES goal_runs,
  task_run   text,
  epoch      int,
  type       text NOT NULL CHECK (type IN ('file_diff', 'test_result', 'build_result', 'log', 'cost_report', 'review')),
  source     text NOT NULL CHECK (source IN ('worker', 'verifier', 'broker', 'warden')),
  tree       text,
  sha256     text NOT NULL,
  data       jsonb NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX artifacts_task ON artifacts (task_run, epoch);

-- One row is both the request to the gatekeeper and its answer.
CREATE TABLE verdicts (
  id           uuid PRIMARY KEY,
  goal_run     text NOT NULL REFERENCES goal_runs,
  task_run     text REFERENCES task_runs,  -- null: the landing of the goal run
  epoch        int,
  tree         text NOT NULL,
  suite        text NOT NULL,
  suite_sha256 text,
  facts        jsonb NOT NULL,             -- the row that the suite judges, see include/gate/models.py
  green        boolean,                    -- null: not judged
  findings     jsonb,                      -- [{"expectation", "message", "severity"}]
  requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  judged_at    timestamptz,
  UNIQUE NULLS NOT DISTINCT (goal_run, task_run, epoch, tree, suite)
);
CREATE INDEX verdicts_open ON verdicts (requested_at) WHERE green IS NULL;

-- A branch merges at most once; a goal run lands at most once.
CREATE TABLE merges (
  task_run   text PRIMARY KEY REFERENCES task_runs,
  epoch      int NOT NULL,
  target     text NOT NULL,                -- the ref that moved
  commit_id  text NOT NULL,
  tree       text NOT NULL,
  verdict    uuid NOT NULL REFERENCES verdicts,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- What holds it --------------------------------------------------------------------------------------------------------
CREATE FUNCTION guard_transition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.state IS DISTINCT FROM OLD.state AND NOT EXISTS (
    SELECT FROM transitions WHERE machine = TG_ARGV[0] AND from_state = OLD.state AND to_state = NEW.state)
  THEN
    RAISE EXCEPTION 'illegal transition of a %: % -> %', TG_ARGV[0], OLD.state, NEW.state USING ERRCODE = 'AL001';
  END IF;
  RETURN NEW;
END $$;

CREATE FUNCTION write_event() RETURNS trigger LANGUAGE plpgsql AS $$
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
END $$;

DO $$
DECLARE m text[];
BEGIN
  FOREACH m SLICE 1 IN ARRAY ARRAY[['goal_run','goal_runs'], ['task_run','task_runs'], ['attempt','attempts']] LOOP
    EXECUTE format('CREATE TRIGGER guard BEFORE UPDATE OF state ON %I FOR EACH ROW EXECUTE FUNCTION guard_transition(%L)', m[2], m[1]);
    EXECUTE format('CREATE TRIGGER event AFTER INSERT OR UPDATE ON %I FOR EACH ROW EXECUTE FUNCTION write_event(%L)', m[2], m[1]);
  END LOOP;
END $$;

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'AL002'; END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON plans FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON decisions FOR EACH ROW EXECUTE FUNCTION refuse_change();

CREATE FUNCTION grow_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.epoch < OLD.epoch THEN RAISE EXCEPTION 'an epoch only grows: % -> %', OLD.epoch, NEW.epoch USING ERRCODE = 'AL003'; END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER epoch_grows BEFORE UPDATE OF epoch ON task_runs FOR EACH ROW EXECUTE FUNCTION grow_only();

-- Who is told what -----------------------------------------------------------------------------------------------------
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE row_ jsonb := to_jsonb(NEW);
BEGIN
  PERFORM pg_notify(TG_ARGV[0] || CASE WHEN TG_NARGS > 1 THEN '_' || (row_->>TG_ARGV[1]) ELSE '' END, COALESCE(row_->>'id', row_->>'lease'));
  RETURN NULL;
END $$;
CREATE TRIGGER tell_warden     AFTER INSERT OR UPDATE OF revoked_at, expires_at ON leases FOR EACH ROW EXECUTE FUNCTION tell('warden', 'node');
CREATE TRIGGER tell_broker     AFTER INSERT ON model_requests FOR EACH ROW EXECUTE FUNCTION tell('broker', 'agent');
CREATE TRIGGER tell_outbox     AFTER INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION tell('outbox', 'agent');
CREATE TRIGGER tell_lease      AFTER INSERT OR UPDATE OF revoked_at ON leases FOR EACH ROW EXECUTE FUNCTION tell('leases');
CREATE TRIGGER tell_gatekeeper AFTER INSERT ON verdicts FOR EACH ROW EXECUTE FUNCTION tell('gatekeeper');
CREATE TRIGGER tell_evidence   AFTER INSERT ON evidence FOR EACH ROW EXECUTE FUNCTION tell('evidence');
CREATE TRIGGER tell_request    AFTER UPDATE OF state ON model_requests FOR EACH ROW EXECUTE FUNCTION tell('model_request');

-- What is over: the one function by which the warden kills ----------------------------------------------------------------
-- Revoked and past its grace first. Then, not within the calm period after PostgreSQL came back, expired or unwatched.
CREATE FUNCTION what_is_over(the_node text, calm interval, unwatched interval)
RETURNS TABLE (lease uuid, sandbox text, because text) LANGUAGE sql STABLE AS $$
  SELECT id, sandbox, CASE
      WHEN revoked_at + grace <= clock_timestamp() THEN 'revoked: ' || COALESCE(revoke_reason, '')
      WHEN expires_at <= clock_timestamp() THEN 'expired'
      ELSE 'unwatched' END
  FROM leases
  WHERE node = the_node AND ended_at IS NULL AND (
    revoked_at + grace <= clock_timestamp()
    OR (clock_timestamp() > pg_postmaster_start_time() + calm
        AND (expires_at <= clock_timestamp() OR watched_at + unwatched <= clock_timestamp())))
$$;

-- Seconds until something on this node may be over (null: nothing lives).
CREATE FUNCTION next_due_s(the_node text, calm interval, unwatched interval) RETURNS float LANGUAGE sql STABLE AS $$
  SELECT extract(epoch FROM min(due) - clock_timestamp()) FROM (
    SELECT CASE WHEN revoked_at IS NOT NULL THEN revoked_at + grace
                ELSE greatest(least(expires_at, watched_at + unwatched), pg_postmaster_start_time() + calm) END AS due
    FROM leases WHERE node = the_node AND ended_at IS NULL) AS lives
$$;

-- Rights: each process has its own role --------------------------------------------------------------------------------
GRANT USAGE ON SCHEMA public TO airlock_airflow, airlock_broker, airlock_warden, airlock_gatekeeper, airlock_cli;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO airlock_cli, airlock_airflow;
REVOKE SELECT ON attempt_keys FROM airlock_cli, airlock_airflow;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO airlock_airflow, airlock_broker, airlock_warden;

GRANT INSERT ON repositories TO airlock_cli;
GRANT UPDATE (listed) ON repositories TO airlock_cli;
GRANT UPDATE (archived_at) ON goals TO airlock_cli;
GRANT INSERT ON task_events TO airlock_cli;
GRANT USAGE ON SEQUENCE task_events_id_seq TO airlock_cli;
GRANT UPDATE (revoked_at, revoke_reason, grace) ON leases TO airlock_cli;
GRANT UPDATE (state, reason, ended_at) ON goal_runs TO airlock_cli;
GRANT UPDATE (state, reason, updated_at) ON task_runs TO airlock_cli;
GRANT UPDATE (state, reason, failure, counted, ended_at) ON attempts TO airlock_cli;

GRANT INSERT ON goals, plans, goal_runs, task_runs, attempts, task_events, reworks, leases, attempt_keys, model_requests,
  decisions, artifacts, verdicts, merges, base_results TO airlock_airflow;
GRANT UPDATE ON goals, goal_runs, task_runs, attempts, reworks, leases TO airlock_airflow;

GRANT SELECT ON agents, goals, goal_runs, task_runs, attempts, leases, attempt_keys, processed_messages, outbox,
  model_requests, model_calls, transcripts, questions, decisions, artifacts, plans, transitions, evidence TO airlock_broker;
GRANT INSERT ON task_events, processed_messages, outbox, model_calls, transcripts, questions, decisions, artifacts TO airlock_broker;
GRANT UPDATE ON model_requests, model_calls, outbox, questions TO airlock_broker;
GRANT UPDATE (state, step, commit_id, summary, finished_at, failure, reason) ON attempts TO airlock_broker;
GRANT UPDATE (state, reason, spent_micro, updated_at) ON task_runs TO airlock_broker;
GRANT UPDATE (reserved_micro, spent_micro) ON goal_runs TO airlock_broker;
GRANT UPDATE (tokens_used, reserved_micro, spent_micro, heartbeat_at) ON leases TO airlock_broker;

GRANT SELECT ON leases, attempts, task_runs, nodes, evidence, attempt_keys, transitions TO airlock_warden;
GRANT INSERT, UPDATE ON nodes TO airlock_warden;
GRANT INSERT ON evidence, task_events TO airlock_warden;
GRANT DELETE ON attempt_keys TO airlock_warden;
GRANT UPDATE (started_at, ended_at, heartbeat_at) ON leases TO airlock_warden;
GRANT UPDATE (state, reason, failure) ON attempts TO airlock_warden;

GRANT SELECT ON verdicts TO airlock_gatekeeper;
GRANT UPDATE (green, findings, suite_sha256, judged_at) ON verdicts TO airlock_gatekeeper;
