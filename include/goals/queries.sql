-- name: listed | may forms and REST name this repository? No row: it is not registered
SELECT listed FROM repositories WHERE name = %(name)s

-- name: repository_names | what a form may name
SELECT name FROM repositories WHERE listed ORDER BY name

-- name: goal_by_key | the goal of an idempotency key
SELECT id, dag_id, title, request_sha256, created_at FROM goals WHERE idempotency_key = %(key)s

-- name: goal_by_dag | the goal of a DAG
SELECT id FROM goals WHERE dag_id = %(dag_id)s

-- name: insert_goal | a new goal; the key is unique
INSERT INTO goals (id, dag_id, title, text, repository, base_branch, agent, budget_micro, deadline_s, landing, idempotency_key, request_sha256, created_by)
VALUES (%(id)s, %(dag_id)s, %(title)s, %(text)s, %(repository)s, %(base_branch)s, %(agent)s, %(budget_micro)s, %(deadline_s)s, %(landing)s,
        %(idempotency_key)s, %(request_sha256)s, %(created_by)s)
ON CONFLICT (idempotency_key) DO NOTHING RETURNING id, dag_id, title, request_sha256, created_at

-- name: first_run | the goal run that a submission made
SELECT run_id FROM goal_runs WHERE goal = %(goal)s ORDER BY created_at LIMIT 1 FOR NO KEY UPDATE

-- name: insert_run | one DAG run of a goal; a second insert of the same run changes nothing
INSERT INTO goal_runs (id, goal, dag_id, run_id, plan, goal_branch, budget_micro, deadline_at)
SELECT %(id)s, g.id, g.dag_id, %(run_id)s, (SELECT max(seq) FROM plans WHERE goal = g.id), 'airlock/' || %(id)s, g.budget_micro,
       clock_timestamp() + make_interval(secs => g.deadline_s)
FROM goals g WHERE g.id = %(goal)s
ON CONFLICT (dag_id, run_id) DO NOTHING

-- name: run | the goal run of a DAG run
SELECT r.id, r.goal, r.dag_id, r.run_id, r.plan, r.state, r.reason, r.base_commit, r.goal_branch, r.landed_commit, r.landing_note, r.ended_at,
       g.title, g.repository, g.base_branch, g.agent, g.landing, r.budget_micro,
       r.budget_micro - r.spent_micro - r.reserved_micro AS left_micro,
       extract(epoch FROM r.deadline_at - clock_timestamp())::float AS seconds_left
FROM goal_runs r JOIN goals g ON g.id = r.goal WHERE r.dag_id = %(dag_id)s AND r.run_id = %(run_id)s

-- name: set_run_state | a transition; the trigger refuses what the table of transitions does not hold
UPDATE goal_runs SET state = %(state)s, reason = %(reason)s, ended_at = CASE WHEN %(ended)s THEN clock_timestamp() END WHERE id = %(goal_run)s

-- name: run_ended | has it ended? Held still until the transaction ends
SELECT ended_at IS NOT NULL AS ended FROM goal_runs WHERE id = %(goal_run)s FOR SHARE

-- name: unfinished | goal runs without an end that were made some time ago, with the key of the submission that made their goal
SELECT r.id, r.dag_id, r.run_id, r.state, g.idempotency_key AS key FROM goal_runs r JOIN goals g ON g.id = r.goal
WHERE r.ended_at IS NULL AND r.created_at < clock_timestamp() - make_interval(mins => %(minutes)s) ORDER BY r.created_at

-- name: set_base | where the goal branch starts
UPDATE goal_runs SET base_commit = %(commit)s WHERE id = %(goal_run)s

-- name: plan_of_run | the plan that a run follows
SELECT p.document FROM plans p JOIN goal_runs r ON r.plan = p.seq WHERE r.id = %(goal_run)s

-- name: summary | one line a task run, for the report
SELECT t.key, t.state, t.reason, t.merged_commit, t.spent_micro,
       (SELECT count(*) FROM attempts a WHERE a.task_run = t.id) AS attempts,
       (SELECT COALESCE(sum(input_tokens + output_tokens), 0)::bigint FROM model_calls c WHERE c.task_run = t.id) AS tokens,
       (SELECT COALESCE(bool_or(offline), false) FROM model_calls c WHERE c.task_run = t.id) AS offline
FROM task_runs t WHERE t.goal_run = %(goal_run)s ORDER BY t.created_at

-- name: prune | one batch of ended goal runs; "runs" is 0 when nothing is left to do
SELECT prune(make_interval(days => %(events)s), make_interval(days => %(transcripts)s), %(most)s) AS counts

-- name: needed_handins | of these leases those whose sandbox or goal run has not ended, or not long ago
SELECT l.id::text AS name FROM leases l LEFT JOIN goal_runs r ON r.id = l.goal_run
WHERE l.id::text = ANY(%(names)s) AND (l.ended_at IS NULL OR (l.goal_run IS NOT NULL AND r.ended_at IS NULL)
  OR r.ended_at >= clock_timestamp() - make_interval(days => %(days)s))

-- name: needed_bundles | of these commits those that a lease begins from whose sandbox or goal run has not ended, or not long ago
SELECT DISTINCT l.input_commit AS name FROM leases l LEFT JOIN goal_runs r ON r.id = l.goal_run
WHERE l.input_commit = ANY(%(names)s) AND (l.ended_at IS NULL OR (l.goal_run IS NOT NULL AND r.ended_at IS NULL)
  OR r.ended_at >= clock_timestamp() - make_interval(days => %(days)s))

-- name: repository_path | where a registered repository is
SELECT path FROM repositories WHERE name = %(name)s

-- name: set_landed | where the goal landed
UPDATE goal_runs SET landed_commit = %(commit)s, landing_note = %(note)s WHERE id = %(goal_run)s

-- name: text_of | what a person wrote
SELECT text FROM goals WHERE id = %(goal)s

-- name: set_plan | the plan that a run follows
UPDATE goal_runs SET plan = %(plan)s WHERE id = %(goal_run)s

-- name: hold | the worst case of a model call
UPDATE goal_runs SET reserved_micro = reserved_micro + %(micro)s WHERE id = %(goal_run)s

-- name: settle | the worst case back, the cost kept
UPDATE goal_runs SET reserved_micro = reserved_micro - %(micro)s, spent_micro = spent_micro + %(cost)s WHERE id = %(goal_run)s
