-- name: lock_outbox | one writer at a time an attempt, so that numbers have no gap and ids follow the commits
SELECT pg_advisory_xact_lock(hashtextextended('outbox ' || %(task_run)s || '/' || %(epoch)s::text, 0));

-- name: next_message | the next number of the attempt and its key; nothing if the key is known or the attempt's keys are gone
SELECT COALESCE((SELECT max(seq) FROM outbox WHERE task_run = %(task_run)s AND epoch = %(epoch)s), 0) + 1 AS seq, k.in_key
FROM leases l JOIN attempt_keys k ON k.lease = l.id
WHERE l.kind = 'work' AND l.task_run = %(task_run)s AND l.epoch = %(epoch)s
  AND NOT EXISTS (SELECT FROM outbox WHERE idempotency_key = %(key)s);

-- name: queue_message | into the outbox
INSERT INTO outbox (agent, task_run, epoch, seq, idempotency_key, type, body, signature)
VALUES (%(agent)s, %(task_run)s, %(epoch)s, %(seq)s, %(key)s, %(type)s, %(body)s, %(signature)s);

-- name: lock_sender | one sender at a time an agent, so that messages keep their order
SELECT pg_try_advisory_xact_lock(hashtextextended('sender ' || %(agent)s, 0)) AS mine;

-- name: unsent | the oldest messages that wait
SELECT id, task_run, body, signature FROM outbox WHERE agent = %(agent)s AND sent_at IS NULL ORDER BY id LIMIT %(limit)s;

-- name: mark_sent | after the streams took them
UPDATE outbox SET sent_at = clock_timestamp() WHERE id = ANY(%(ids)s);

-- name: send_again | what was sent to these attempts a while ago goes out once more: the streams were wiped
UPDATE outbox o SET sent_at = NULL FROM leases l
WHERE l.kind = 'work' AND l.ended_at IS NULL AND l.task_run = o.task_run AND l.epoch = o.epoch
  AND o.task_run = ANY(%(task_runs)s) AND o.sent_at IS NOT NULL;

-- name: answer_again | the worker asks again for what was answered a while ago
UPDATE outbox SET sent_at = NULL WHERE idempotency_key = ANY(%(keys)s) AND sent_at < clock_timestamp() - interval '5 seconds';
