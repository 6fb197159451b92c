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

-- name: goal_over | a goal run has come to its end
SELECT run_id, state, ended_at IS NOT NULL AS over FROM goal_runs WHERE id = %(run)s

-- name: goal_plan | the plan that a goal run follows
SELECT p.document FROM goal_runs r JOIN plans p ON p.seq = r.plan WHERE r.id = %(run)s

-- name: goal_moments | every moment of a goal run that our tables know: of a task run (or of the goal: null), what it is, and a detail
WITH of_run AS (SELECT id, key FROM task_runs WHERE goal_run = %(run)s)
SELECT t.key, m.at, m.kind, '' AS detail FROM leases l LEFT JOIN of_run t ON t.id = l.task_run LEFT JOIN evidence e ON e.lease = l.id
  CROSS JOIN LATERAL (VALUES (l.granted_at, l.kind || '.granted'), (l.started_at, l.kind || '.started'), (e.created_at, l.kind || '.evidence')) m(at, kind)
  WHERE l.goal_run = %(run)s
UNION ALL SELECT t.key, e.created_at, 'worker.ready', '' FROM task_events e JOIN of_run t ON t.id = split_part(e.subject, '/', 1)
  WHERE e.machine = 'attempt' AND e.to_state = 'READY'
UNION ALL SELECT t.key, e.created_at, 'task.' || e.to_state, '' FROM task_events e JOIN of_run t ON t.id = e.subject
  WHERE e.machine = 'task_run' AND e.to_state IN ('VERIFYING', 'MERGE_QUEUE')
UNION ALL SELECT t.key, p.created_at, CASE p.type WHEN 'llm.request' THEN 'worker.asks' ELSE 'worker.ends' END, ''
  FROM processed_messages p JOIN of_run t ON t.id = p.task_run WHERE p.type IN ('llm.request', 'task.complete', 'task.failed')
UNION ALL SELECT t.key, c.sent_at, 'model.sent', '' FROM model_calls c LEFT JOIN of_run t ON t.id = c.task_run WHERE c.goal_run = %(run)s
UNION ALL SELECT t.key, c.settled_at, 'model.settled', COALESCE((SELECT string_agg(DISTINCT b ->> 'name', ', ') FROM (
    SELECT content FROM transcripts s WHERE s.task_run = c.task_run AND s.epoch = c.epoch AND s.role = 'assistant' AND s.created_at >= c.settled_at
    ORDER BY s.position LIMIT 1) turn CROSS JOIN LATERAL jsonb_array_elements(turn.content) b WHERE b ->> 'type' = 'tool_use'), '')
  FROM model_calls c LEFT JOIN of_run t ON t.id = c.task_run WHERE c.goal_run = %(run)s
UNION ALL SELECT t.key, a.created_at, 'tests.' || a.source, a.data ->> 'duration_ms' FROM artifacts a JOIN of_run t ON t.id = a.task_run
  WHERE a.type = 'test_result' AND a.source IN ('worker', 'verifier')
UNION ALL SELECT t.key, m.at, m.kind, '' FROM verdicts v LEFT JOIN of_run t ON t.id = v.task_run
  CROSS JOIN LATERAL (VALUES (v.requested_at, 'verdict.asked'), (v.judged_at, 'verdict.judged')) m(at, kind) WHERE v.goal_run = %(run)s
UNION ALL SELECT t.key, m.at, m.kind, array_to_string(r.steps, ',') FROM reworks r JOIN of_run t ON t.id = r.task_run
  CROSS JOIN LATERAL (VALUES (r.created_at, 'rework.decided'), (r.cleared_at, 'rework.cleared')) m(at, kind)
UNION ALL SELECT NULL, m.at, m.kind, '' FROM goal_runs r JOIN goals g ON g.id = r.goal LEFT JOIN plans p ON p.seq = r.plan
  LEFT JOIN base_results b ON b.repository = g.repository AND b.commit_id = r.base_commit
  CROSS JOIN LATERAL (VALUES (p.created_at, 'plan.stored'), (b.created_at, 'base.known')) m(at, kind) WHERE r.id = %(run)s
ORDER BY at

-- name: airflow_moments | (Airflow's own database) when the steps of some runs began and ended, those of earlier tries too
WITH tries AS (
  SELECT dag_id, run_id, task_id, start_date, end_date FROM task_instance WHERE run_id = ANY(%(runs)s)
  UNION SELECT dag_id, run_id, task_id, start_date, end_date FROM task_instance_history WHERE run_id = ANY(%(runs)s))
SELECT run_id, task_id, m.at, m.kind FROM tries CROSS JOIN LATERAL (VALUES (start_date, 'starts'), (end_date, 'ends')) m(at, kind) WHERE m.at IS NOT NULL
UNION ALL SELECT run_id, '', m.at, m.kind FROM dag_run
  CROSS JOIN LATERAL (VALUES (queued_at, 'queued'), (start_date, 'starts'), (end_date, 'ends')) m(at, kind) WHERE run_id = ANY(%(runs)s) AND m.at IS NOT NULL
ORDER BY at

-- name: goal_names | what Airflow calls a goal run, and the key that it was submitted with
SELECT r.run_id, g.idempotency_key AS key FROM goal_runs r JOIN goals g ON g.id = r.goal WHERE r.id = %(run)s
