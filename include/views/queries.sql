-- name: goal_names | every name that a goal can be called by
SELECT g.id::text AS goal, g.dag_id, g.idempotency_key AS key, r.id AS run FROM goals g LEFT JOIN goal_runs r ON r.goal = g.id

-- name: newest_run | the newest run of a goal
SELECT id FROM goal_runs WHERE goal = %(goal)s ORDER BY created_at DESC LIMIT 1

-- name: goal_list | the goals with their newest run, newest first
SELECT g.id::text AS goal, g.dag_id, g.title, g.repository, g.agent, g.created_at, r.id AS run, r.state, r.reason, r.spent_micro, r.landed_commit
FROM goals g LEFT JOIN LATERAL (
  SELECT id, state, reason, spent_micro, landed_commit FROM goal_runs WHERE goal = g.id ORDER BY created_at DESC LIMIT 1) r ON true
WHERE g.archived_at IS NULL ORDER BY g.created_at DESC LIMIT %(limit)s

-- name: goal_by_key | the goal of an idempotency key, with its first run
SELECT g.id::text AS goal, r.id AS run FROM goals g JOIN goal_runs r ON r.goal = g.id
WHERE g.idempotency_key = %(key)s ORDER BY r.created_at LIMIT 1

-- name: goal_run | one run with its goal, its cost and how long it has taken
SELECT r.goal::text AS goal, r.id AS run, r.dag_id, r.run_id, r.state, r.reason, g.title, g.repository, p.path AS repository_path, g.base_branch,
       r.goal_branch, r.base_commit, r.landed_commit, r.landing_note, g.agent, g.landing, r.budget_micro, r.spent_micro,
       COALESCE((SELECT sum(COALESCE(input_tokens, 0) + COALESCE(output_tokens, 0)) FROM model_calls c WHERE c.goal_run = r.id), 0)::bigint AS tokens,
       COALESCE((SELECT bool_or(offline) FROM model_calls c WHERE c.goal_run = r.id), false) AS offline,
       extract(epoch FROM COALESCE(r.ended_at, clock_timestamp()) - r.created_at)::float AS wall_s, r.created_at, r.ended_at, r.deadline_at
FROM goal_runs r JOIN goals g ON g.id = r.goal JOIN repositories p ON p.name = g.repository WHERE r.id = %(run)s

-- name: planned_tasks | the tasks of a run's plan, in its order
SELECT t.value ->> 'key' AS key, t.value ->> 'title' AS title
FROM goal_runs r JOIN plans p ON p.seq = r.plan
CROSS JOIN LATERAL jsonb_array_elements(p.document::jsonb -> 'tasks') WITH ORDINALITY AS t (value, place)
WHERE r.id = %(run)s ORDER BY t.place

-- name: begun_tasks | each task of a run that has begun: where it stands, its newest attempt, its cost
SELECT t.key, t.state, t.reason, t.epoch, COALESCE(a.step, '') AS step, COALESCE(a.state, '') AS attempt_state, COALESCE(a.rung, '') AS rung,
       t.merged_commit, t.spent_micro,
       COALESCE((SELECT sum(COALESCE(input_tokens, 0) + COALESCE(output_tokens, 0)) FROM model_calls c WHERE c.task_run = t.id), 0)::bigint AS tokens
FROM task_runs t LEFT JOIN attempts a ON a.task_run = t.id AND a.epoch = t.epoch WHERE t.goal_run = %(run)s

-- name: verdicts | every judged verdict of a run, in order
SELECT t.key, v.epoch, v.suite, v.tree, v.green, COALESCE(v.findings, '[]') AS findings FROM verdicts v LEFT JOIN task_runs t ON t.id = v.task_run
WHERE v.goal_run = %(run)s AND v.green IS NOT NULL ORDER BY v.judged_at

-- name: live_sandboxes | sandboxes of a run that are still there
SELECT sandbox FROM leases WHERE goal_run = %(run)s AND ended_at IS NULL

-- name: leftovers | what should be gone once nothing is at work; a call is under way while its owner lives, and so long at most
SELECT (SELECT count(*) FROM leases WHERE ended_at IS NULL AND revoked_at IS NOT NULL)
     + (SELECT count(*) FROM leases l JOIN goal_runs r ON r.id = l.goal_run WHERE l.ended_at IS NULL AND l.revoked_at IS NULL AND r.ended_at IS NOT NULL)
       AS leases,
       (SELECT count(*) FROM pg_locks k JOIN pg_stat_activity s USING (pid)
        WHERE k.locktype = 'advisory' AND s.state LIKE 'idle in transaction%%' AND s.state_change < clock_timestamp() - interval '10 seconds') AS locks,
       (SELECT count(*) FROM model_calls c WHERE c.state IN ('reserved', 'sent') AND (c.reserved_at < clock_timestamp() - make_interval(secs => %(call_s)s)
          OR NOT EXISTS (SELECT FROM pg_locks k WHERE k.locktype = 'advisory' AND k.granted AND k.objsubid = 1
            AND k.database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND (k.classid::bigint << 32) | k.objid::bigint = hashtextextended('owner ' || c.owner, 0))))
     + (SELECT count(*) FROM goal_runs r WHERE r.reserved_micro <>
          (SELECT COALESCE(sum(c.reserved_micro), 0) FROM model_calls c WHERE c.goal_run = r.id AND c.state IN ('reserved', 'sent')))
     + (SELECT count(*) FROM leases l WHERE l.reserved_micro <>
          (SELECT COALESCE(sum(c.reserved_micro), 0) FROM model_calls c WHERE c.lease = l.id AND c.state IN ('reserved', 'sent')))
       AS reservations

-- name: live_task_runs | task runs whose streams may be there
SELECT id FROM task_runs WHERE state NOT IN ('COMPLETED', 'FAILED', 'ESCALATED', 'CANCELLED')
