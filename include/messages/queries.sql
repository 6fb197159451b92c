-- name: lock_outboxes | one writer at a time an attempt, so that numbers have no gap and ids follow the commits; always in this order
SELECT pg_advisory_xact_lock(hashtextextended('outbox ' || task_run || '/' || epoch::text, 0))
FROM (SELECT * FROM unnest(%(task_runs)b::text[], %(epochs)b::int[]) AS w(task_run, epoch) ORDER BY task_run COLLATE "C", epoch OFFSET 0) AS ordered;

-- name: last_messages | the last number of each attempt and its key; an attempt whose keys are gone is over, and not among them
SELECT l.task_run, l.epoch, k.in_key,
  COALESCE((SELECT max(o.seq) FROM outbox o WHERE o.task_run = l.task_run AND o.epoch = l.epoch), 0) AS last
FROM unnest(%(task_runs)b::text[], %(epochs)b::int[]) AS w(task_run, epoch)
JOIN leases l ON l.kind = 'work' AND l.task_run = w.task_run AND l.epoch = w.epoch JOIN attempt_keys k ON k.lease = l.id;

-- name: known_keys | of these, what was queued before
SELECT idempotency_key FROM outbox WHERE idempotency_key = ANY(%(keys)s);

-- name: queue_messages | into the outbox, ids in the order of the numbers
INSERT INTO outbox (agent, task_run, epoch, seq, idempotency_key, type, body, signature)
SELECT %(agent)s, task_run, epoch, seq, key, type, body, signature
FROM unnest(%(task_runs)b::text[], %(epochs)b::int[], %(seqs)b::bigint[], %(keys)b::text[], %(types)b::text[], %(bodies)b::bytea[],
            %(signatures)b::text[]) WITH ORDINALITY AS w(task_run, epoch, seq, key, type, body, signature, place) ORDER BY place;

-- name: lock_sender | one sender at a time an agent, so that messages keep their order; its mark may be lost in a crash, for then they go out twice
SELECT pg_try_advisory_xact_lock(hashtextextended('sender ' || %(agent)s, 0)) AS mine, set_config('synchronous_commit', 'off', true) AS quick;

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
