-- name: insert_places | a repository and a node for the benchmark's rows
WITH repository AS (INSERT INTO repositories VALUES ('bench', '/nowhere', true) ON CONFLICT DO NOTHING)
INSERT INTO nodes (name, capacity, rung) VALUES ('bench', 1000, 'none') ON CONFLICT DO NOTHING;

-- name: insert_goal | one goal of jarvis
INSERT INTO goals (id, dag_id, title, text, repository, base_branch, agent, budget_micro, deadline_s, landing, idempotency_key, request_sha256, created_by)
VALUES (%(goal)s, %(run)s, 'bench', 'bench', 'bench', 'main', 'jarvis', 1000000000, 36000, 'per_goal', %(run)s, '', 'bench');

-- name: insert_run | its plan and its run
WITH plan AS (INSERT INTO plans (goal, revision, sha256, document) VALUES (%(goal)s, 1, %(run)s, %(document)s) RETURNING seq)
INSERT INTO goal_runs (id, goal, dag_id, run_id, plan, goal_branch, budget_micro, deadline_at)
SELECT %(run)s, %(goal)s, %(run)s, 'bench', seq, 'airlock/' || %(run)s, 1000000000, now() + interval '10 hours' FROM plan;

-- name: insert_task | in its first state
INSERT INTO task_runs (id, goal_run, key, epoch) VALUES (%(task_run)s, %(run)s, %(key)s, 1);

-- name: move_task | to its next state
UPDATE task_runs SET state = %(state)s WHERE id = %(task_run)s;

-- name: insert_attempt | the first try
INSERT INTO attempts (task_run, epoch, node, rung) VALUES (%(task_run)s, 1, 'bench', 'none');

-- name: insert_lease | for a worker that the benchmark plays
INSERT INTO leases (id, kind, sandbox, goal_run, task_run, epoch, node, capabilities, input_commit, max_tokens, max_micro, ti_id, expires_at)
VALUES (%(lease)s, 'work', 'airlock-' || %(task_run)s || '-1', %(run)s, %(task_run)s, 1, 'bench', '{test}', '', 1000000, 1000000000, 'bench',
  now() + interval '10 hours');

-- name: insert_keys | of the attempt
INSERT INTO attempt_keys VALUES (%(lease)s, %(in_key)s, %(out_key)s);

-- name: end_leases | of a goal run
UPDATE leases SET ended_at = clock_timestamp() WHERE goal_run = %(run)s;

-- name: numbers_in | how many messages of a goal run are in
SELECT COALESCE(sum(upper(part) - lower(part)), 0)::bigint AS messages
FROM leases l CROSS JOIN LATERAL unnest(l.taken) AS part WHERE l.goal_run = %(run)s;

-- name: take_number | one message as it is in the comparison: the first of three statements
INSERT INTO processed_messages (task_run, epoch, seq, idempotency_key, message_id, type, body_sha256)
VALUES (%(task_run)s, 1, %(seq)s, %(key)s, %(id)s, %(type)s, %(digest)s) ON CONFLICT DO NOTHING RETURNING seq;

-- name: keep_event | the second
INSERT INTO task_events (machine, subject, kind, detail) VALUES ('attempt', %(task_run)s || '/1', 'milestone', %(detail)s);

-- name: keep_beat | the third
UPDATE leases SET heartbeat_at = clock_timestamp(), taken = taken + int8multirange(int8range(%(seq)s, %(seq)s + 1)) WHERE id = %(lease)s;

-- name: all_well | heartbeats of a goal run's workers that nobody has to give
UPDATE leases SET heartbeat_at = clock_timestamp() + interval '1 hour' WHERE goal_run = %(run)s;

-- name: owned_by_a_sensor | how many leases of a goal run a lease step owns
SELECT count(*) AS owned FROM leases WHERE goal_run = %(run)s AND ti_id <> 'bench';

-- name: due_by_deadline | when it expires
UPDATE leases SET expires_at = clock_timestamp() + interval '0.5 s' WHERE id = %(lease)s RETURNING extract(epoch FROM expires_at)::float AS due;

-- name: due_by_tokens | more used than granted, from now on
UPDATE leases SET tokens_used = max_tokens + 1 WHERE id = %(lease)s RETURNING extract(epoch FROM clock_timestamp())::float AS due;

-- name: due_by_silence | its last heartbeat was now
UPDATE leases SET heartbeat_at = clock_timestamp() WHERE id = %(lease)s
RETURNING extract(epoch FROM heartbeat_at + make_interval(secs => %(timeout)s))::float AS due;

-- name: due_now | PostgreSQL's time
SELECT extract(epoch FROM clock_timestamp())::float AS due;

-- name: revoke_all | what still lives of a goal run
UPDATE leases SET revoked_at = clock_timestamp(), grace = '0 s' WHERE goal_run = %(run)s AND ended_at IS NULL AND revoked_at IS NULL;

-- name: living | how many leases of a goal run have not ended
SELECT count(*) AS living FROM leases WHERE goal_run = %(run)s AND ended_at IS NULL;

-- name: bench_rows | a goal run with one task run
WITH a AS (INSERT INTO agents VALUES ('bench', 'p', 'w', 'a', '{}', 0, 0) RETURNING name),
  p AS (INSERT INTO repositories VALUES ('bench', '/bench', false) RETURNING name),
  g AS (INSERT INTO goals (id, dag_id, title, text, repository, base_branch, agent, budget_micro, deadline_s, landing, idempotency_key, request_sha256, created_by)
    SELECT %(goal)s, 'bench', 'bench', 'bench', p.name, 'main', a.name, 1, 1, 'per_goal', 'bench', 'bench', 'bench' FROM a, p RETURNING id),
  r AS (INSERT INTO goal_runs (id, goal, dag_id, run_id, goal_branch, budget_micro, deadline_at)
    SELECT 'gbench', id, 'bench', 'bench', 'airlock/bench', 1, clock_timestamp() FROM g RETURNING id)
INSERT INTO task_runs (id, goal_run, key) SELECT id || '-a', id, 'a' FROM r
