-- name: beat | this process reads the streams and reaches the database
SELECT beat('broker/' || %(agent)s, make_interval(secs => %(gap)s));

-- name: agent | an agent's models
SELECT name, planner_model, worker_model, advice_model FROM agents WHERE name = %(agent)s;

-- name: live_task_runs | those of an agent whose newest attempt has a sandbox that has not ended
SELECT l.task_run FROM leases l JOIN goal_runs r ON r.id = l.goal_run JOIN goals g ON g.id = r.goal
JOIN task_runs t ON t.id = l.task_run AND t.epoch = l.epoch
WHERE g.agent = %(agent)s AND l.kind = 'work' AND l.ended_at IS NULL
ORDER BY l.task_run;

-- name: lock_attempts | each task run before its lease, in one order, before anything else is written: from here on, one consumer at a time an attempt
SELECT l.id FROM task_runs t JOIN leases l ON l.task_run = t.id AND l.kind = 'work' AND l.ended_at IS NULL
WHERE t.id = ANY(%(task_runs)s) ORDER BY t.id, l.id FOR NO KEY UPDATE OF t, l;

-- name: lock_task_run | before its attempt, its lease or its outbox
SELECT id FROM task_runs WHERE id = %(task_run)s FOR NO KEY UPDATE;

-- name: attempts_of | by what the messages of these task runs are judged: the live attempt of the newest epoch, its key, the numbers that are in
SELECT l.id AS lease, l.task_run, l.epoch, l.goal_run, l.capabilities, l.granted_at, l.taken, k.out_key, a.state
FROM leases l JOIN attempt_keys k ON k.lease = l.id JOIN task_runs t ON t.id = l.task_run AND t.epoch = l.epoch
JOIN attempts a ON a.task_run = l.task_run AND a.epoch = l.epoch
WHERE l.kind = 'work' AND l.ended_at IS NULL AND l.task_run = ANY(%(task_runs)s);

-- name: take_messages | insert first: what comes back is new, everything else was taken before
INSERT INTO processed_messages (task_run, epoch, seq, idempotency_key, message_id, type, body_sha256)
SELECT * FROM unnest(%(task_runs)b::text[], %(epochs)b::int[], %(seqs)b::bigint[], %(keys)b::text[], %(ids)b::uuid[], %(types)b::text[],
                     %(digests)b::text[])
ON CONFLICT DO NOTHING RETURNING task_run, epoch, seq;

-- name: taken | what was taken before under these numbers; of heartbeats only the number is kept
SELECT p.task_run, p.epoch, p.seq, p.idempotency_key, p.body_sha256
FROM processed_messages p JOIN unnest(%(task_runs)b::text[], %(epochs)b::int[], %(seqs)b::bigint[]) AS w(task_run, epoch, seq)
  USING (task_run, epoch, seq);

-- name: keep_questions | until they are answered
INSERT INTO questions (message_id, task_run, epoch, question, options, context, urgency)
SELECT id, task_run, epoch, question, options::jsonb, context, urgency
FROM unnest(%(ids)b::uuid[], %(task_runs)b::text[], %(epochs)b::int[], %(questions)b::text[], %(options)b::text[], %(contexts)b::text[],
            %(urgencies)b::text[]) AS w(id, task_run, epoch, question, options, context, urgency);

-- name: question | one question
SELECT question, options, context FROM questions WHERE message_id = %(id)s;

-- name: answer_question | once
UPDATE questions SET answer = %(answer)s, decided_by = %(decided_by)s, answered_at = clock_timestamp()
WHERE message_id = %(id)s AND answered_at IS NULL;

-- name: open_questions | blocking ones that an attempt still waits for
SELECT count(*) FROM questions WHERE task_run = %(task_run)s AND epoch = %(epoch)s AND urgency = 'blocking' AND answered_at IS NULL;

-- name: transcript | of an attempt, from the start
SELECT role, content FROM transcripts WHERE task_run = %(task_run)s AND epoch = %(epoch)s ORDER BY position;

-- name: write_turn | a position is written once
INSERT INTO transcripts (task_run, epoch, position, role, content) VALUES (%(task_run)s, %(epoch)s, %(position)s, %(role)s, %(content)s)
ON CONFLICT DO NOTHING;

-- name: copy_transcript | what another attempt goes on with, below a position
INSERT INTO transcripts (task_run, epoch, position, role, content)
SELECT task_run, %(epoch)s, position, role, content FROM transcripts
WHERE task_run = %(task_run)s AND epoch = %(resumed_from)s AND position < %(below)s
ON CONFLICT DO NOTHING;

-- name: first_turn | of an attempt
SELECT first_turn FROM attempts WHERE task_run = %(task_run)s AND epoch = %(epoch)s;

-- name: turns_asked | llm.requests of an attempt that have no answer yet
SELECT count(*) FROM processed_messages p
WHERE p.task_run = %(task_run)s AND p.epoch = %(epoch)s AND p.type = 'llm.request' AND p.message_id <> %(id)s
  AND NOT EXISTS (SELECT FROM outbox o WHERE o.idempotency_key = 'reply:' || p.message_id::text);

-- name: assigned_lease | an attempt's lease with all that its prompt is made of
SELECT l.id, t.id AS task_run, t.epoch, t.goal_run, t.key, g.text AS goal_text, p.document AS plan, t.feedback, l.capabilities, l.granted_at,
  l.expires_at, l.max_tokens, l.input_commit, a.resumed_from,
  COALESCE((SELECT o.input_commit <> l.input_commit FROM leases o
    WHERE o.kind = 'work' AND o.task_run = l.task_run AND o.epoch = a.resumed_from), false) AS kept
FROM leases l JOIN task_runs t ON t.id = l.task_run AND t.epoch = l.epoch JOIN goal_runs r ON r.id = t.goal_run JOIN goals g ON g.id = r.goal
JOIN attempts a ON a.task_run = l.task_run AND a.epoch = l.epoch
LEFT JOIN plans p ON p.seq = r.plan
WHERE l.kind = 'work' AND l.task_run = %(task_run)s AND l.epoch = %(epoch)s;

-- name: to_assign | live leases of an agent without an assignment
SELECT l.task_run, l.epoch FROM leases l JOIN goal_runs r ON r.id = l.goal_run JOIN goals g ON g.id = r.goal
JOIN task_runs t ON t.id = l.task_run AND t.epoch = l.epoch
WHERE g.agent = %(agent)s AND l.kind = 'work' AND l.ended_at IS NULL AND l.revoked_at IS NULL
  AND NOT EXISTS (SELECT FROM outbox o WHERE o.idempotency_key = 'assign:' || l.task_run || '/' || l.epoch::text);

-- name: to_cancel | revoked leases of an agent whose worker was assigned and has not been told
SELECT l.task_run, l.epoch, COALESCE(l.revoke_reason, '') AS reason FROM leases l JOIN goal_runs r ON r.id = l.goal_run JOIN goals g ON g.id = r.goal
WHERE g.agent = %(agent)s AND l.kind = 'work' AND l.ended_at IS NULL AND l.revoked_at IS NOT NULL
  AND EXISTS (SELECT FROM outbox o WHERE o.idempotency_key = 'assign:' || l.task_run || '/' || l.epoch::text)
  AND NOT EXISTS (SELECT FROM outbox o WHERE o.idempotency_key = 'cancel:' || l.task_run || '/' || l.epoch::text)
ORDER BY l.task_run COLLATE "C", l.epoch;

-- name: renewed | live leases of an agent that were extended and whose worker was assigned and has not been told
SELECT id, task_run, epoch, capabilities, granted_at, expires_at, max_tokens, key FROM (
  SELECT l.id, l.task_run, l.epoch, l.capabilities, l.granted_at, l.expires_at, l.max_tokens,
    'renew:' || l.id::text || ':' || extract(epoch FROM l.expires_at)::bigint AS key
  FROM leases l JOIN goal_runs r ON r.id = l.goal_run JOIN goals g ON g.id = r.goal
  WHERE g.agent = %(agent)s AND l.kind = 'work' AND l.ended_at IS NULL AND l.revoked_at IS NULL AND l.renewed_at IS NOT NULL
    AND EXISTS (SELECT FROM outbox o WHERE o.idempotency_key = 'assign:' || l.task_run || '/' || l.epoch::text)) AS extended
WHERE NOT EXISTS (SELECT FROM outbox o WHERE o.idempotency_key = extended.key)
ORDER BY task_run COLLATE "C", epoch;

-- name: over_among | of these task runs, those of the agent that have no live work lease
SELECT t.id FROM task_runs t JOIN goal_runs r ON r.id = t.goal_run JOIN goals g ON g.id = r.goal
WHERE g.agent = %(agent)s AND t.id = ANY(%(task_runs)s)
  AND NOT EXISTS (SELECT FROM leases l WHERE l.task_run = t.id AND l.kind = 'work' AND l.ended_at IS NULL);

-- name: to_answer | messages of live attempts that a model answers, of these types, that nobody works on
SELECT p.task_run, p.epoch, p.message_id, p.type, p.idempotency_key, p.seq
FROM processed_messages p JOIN leases l ON l.kind = 'work' AND l.task_run = p.task_run AND l.epoch = p.epoch
JOIN goal_runs r ON r.id = l.goal_run JOIN goals g ON g.id = r.goal
WHERE g.agent = %(agent)s AND p.type = ANY(%(types)s) AND l.ended_at IS NULL AND l.revoked_at IS NULL
  AND p.created_at <= clock_timestamp() - make_interval(secs => %(age_s)s)
  AND NOT EXISTS (SELECT FROM outbox o WHERE o.idempotency_key = 'reply:' || p.message_id::text)
  AND NOT EXISTS (SELECT FROM model_calls c WHERE c.request = p.idempotency_key)
ORDER BY p.created_at LIMIT 200;

-- name: lock_budget | one reservation at a time an agent: sums over its calls cannot be locked row by row
SELECT pg_advisory_xact_lock(hashtextextended('budget ' || %(agent)s, 0));

-- name: is_taken_up | was a call made for a request, or was it answered without one? A request with a lease is a message, one without a step's
SELECT EXISTS (SELECT FROM model_calls WHERE request = %(request)s)
  OR EXISTS (SELECT FROM model_requests WHERE id = CASE WHEN %(lease)s::uuid IS NULL THEN %(request)s::uuid END AND state <> 'requested')
  OR EXISTS (SELECT FROM processed_messages p JOIN outbox o ON o.idempotency_key = 'reply:' || p.message_id::text
    WHERE p.idempotency_key = %(request)s);

-- name: lock_goal_run | its money
SELECT budget_micro AS most, reserved_micro + spent_micro AS taken FROM goal_runs WHERE id = %(goal_run)s FOR NO KEY UPDATE;

-- name: lock_lease | its money and tokens, with those of calls under way; nothing if it is revoked or over
SELECT l.max_micro, l.reserved_micro + l.spent_micro AS taken_micro, l.max_tokens, l.tokens_used
FROM leases l WHERE l.id = %(lease)s AND l.revoked_at IS NULL AND l.ended_at IS NULL FOR NO KEY UPDATE;

-- name: tokens_under_way | worst cases of a lease's open calls
SELECT COALESCE(sum(input_tokens + output_tokens), 0)::bigint AS tokens FROM model_calls WHERE lease = %(lease)s AND state IN ('reserved', 'sent');

-- name: agent_taken | an agent's money of this day and this month (UTC), open calls at their worst case
SELECT a.day_budget_micro, a.month_budget_micro,
  COALESCE(sum(COALESCE(c.cost_micro, c.reserved_micro)) FILTER (WHERE c.reserved_at >= date_trunc('day', clock_timestamp(), 'UTC')), 0)::bigint AS day,
  COALESCE(sum(COALESCE(c.cost_micro, c.reserved_micro)), 0)::bigint AS month
FROM agents a LEFT JOIN model_calls c ON c.agent = a.name AND c.state <> 'released'
  AND c.reserved_at >= date_trunc('month', clock_timestamp(), 'UTC')
WHERE a.name = %(agent)s GROUP BY a.name;

-- name: insert_call | one for each request
INSERT INTO model_calls (id, agent, goal_run, task_run, epoch, lease, request, purpose, model, address, offline, owner, reserved_micro,
  input_tokens, output_tokens, price_table)
VALUES (%(id)s, %(agent)s, %(goal_run)s, %(task_run)s, %(epoch)s, %(lease)s, %(request)s, %(purpose)s, %(model)s, %(address)s, %(offline)s,
  %(owner)s, %(micro)s, %(input_tokens)s, %(output_tokens)s, %(price_table)s);

-- name: mark_call_sent | committed before the request leaves; nothing comes back if the call or its lease is over. Again, if the commit's answer was lost
UPDATE model_calls c SET state = 'sent', sent_at = clock_timestamp() WHERE c.id = %(id)s AND c.state IN ('reserved', 'sent') AND c.owner = %(owner)s
  AND (c.lease IS NULL OR EXISTS (SELECT FROM leases l WHERE l.id = c.lease AND l.revoked_at IS NULL AND l.ended_at IS NULL)) RETURNING c.id;

-- name: end_call | settled, released or unknown; nothing comes back if somebody else ended it
UPDATE model_calls SET state = %(state)s, cost_micro = %(cost)s, input_tokens = %(input)s, output_tokens = %(output)s,
  cache_read_tokens = %(cache_read)s, cache_write_tokens = %(cache_write)s, http_attempts = %(attempts)s, error = %(error)s,
  settled_at = clock_timestamp()
WHERE id = %(id)s AND state IN ('reserved', 'sent') AND owner = %(owner)s
RETURNING agent, goal_run, task_run, lease, reserved_micro AS micro;

-- name: spent | what a call's lease, goal run and agent have spent, without what is only reserved
SELECT 'lease:' || id AS key, 'the lease of ' || task_run || ', attempt ' || epoch AS what, spent_micro AS spent, max_micro AS most
FROM leases WHERE id = %(lease)s
UNION ALL SELECT 'goal:' || id, 'the budget of goal run ' || id, spent_micro, budget_micro FROM goal_runs WHERE id = %(goal_run)s
UNION ALL SELECT 'day:' || a.name || to_char(clock_timestamp() AT TIME ZONE 'UTC', ':YYYY-MM-DD'), 'the day of agent ' || a.name, s.day, a.day_budget_micro
  FROM agents a, LATERAL (SELECT COALESCE(sum(cost_micro), 0)::bigint AS day FROM model_calls
    WHERE agent = a.name AND reserved_at >= date_trunc('day', clock_timestamp(), 'UTC')) AS s WHERE a.name = %(agent)s
UNION ALL SELECT 'month:' || a.name || to_char(clock_timestamp() AT TIME ZONE 'UTC', ':YYYY-MM'), 'the month of agent ' || a.name, s.month, a.month_budget_micro
  FROM agents a, LATERAL (SELECT COALESCE(sum(cost_micro), 0)::bigint AS month FROM model_calls
    WHERE agent = a.name AND reserved_at >= date_trunc('month', clock_timestamp(), 'UTC')) AS s WHERE a.name = %(agent)s;

-- name: owners_of_open_calls | which processes have calls under way for this agent
SELECT DISTINCT owner FROM model_calls WHERE agent = %(agent)s AND state IN ('reserved', 'sent') AND owner <> %(owner)s;

-- name: hold_owner | for as long as this connection lives, this process is alive
SELECT pg_advisory_lock(hashtextextended('owner ' || %(owner)s, 0));

-- name: owner_is_dead | true if nobody holds its lock
SELECT pg_try_advisory_xact_lock(hashtextextended('owner ' || %(owner)s, 0)) AS dead;

-- name: open_calls_of | of a dead owner, locked
SELECT id, reserved_micro AS micro, input_tokens, output_tokens, agent, owner, request, state = 'sent' AS sent, http_attempts
FROM model_calls WHERE agent = %(agent)s AND owner = %(dead)s AND state IN ('reserved', 'sent') ORDER BY task_run NULLS FIRST, id
FOR NO KEY UPDATE;

-- name: forget_reserved | a call that never left is made anew under a fresh row
UPDATE model_calls SET request = request || ' (released ' || id::text || ')' WHERE id = %(id)s AND state = 'released';

-- name: message_of | which message asked for a call
SELECT task_run, epoch, message_id, type, idempotency_key, seq FROM processed_messages WHERE idempotency_key = %(request)s;
