-- name: ensure_task_run | the task run of a key in a goal run, made if it is the first time
INSERT INTO task_runs (id, goal_run, key) VALUES (%(id)s, %(goal_run)s, %(key)s) ON CONFLICT (goal_run, key) DO NOTHING

-- name: lock_task_run | one task run, locked until the transaction ends
SELECT id, goal_run, key, state, reason, epoch, feedback, accepted_commit, merged_commit, resume_from
FROM task_runs WHERE goal_run = %(goal_run)s AND key = %(key)s FOR NO KEY UPDATE

-- name: lock_by_id | one task run by its id, locked until the transaction ends
SELECT id, goal_run, key, state, reason, epoch, feedback, accepted_commit, merged_commit, resume_from
FROM task_runs WHERE id = %(task_run)s FOR NO KEY UPDATE

-- name: unmerged | which of the named tasks have not merged in this goal run
SELECT k.key FROM unnest(%(keys)s::text[]) AS k(key)
LEFT JOIN task_runs t ON t.goal_run = %(goal_run)s AND t.key = k.key
WHERE t.state IS DISTINCT FROM 'COMPLETED'

-- name: set_state | a transition; the trigger refuses what the table of transitions does not hold
UPDATE task_runs SET state = %(state)s, reason = %(reason)s, updated_at = clock_timestamp() WHERE id = %(task_run)s

-- name: next_epoch | the fencing number grows
UPDATE task_runs SET epoch = epoch + 1, state = 'LEASED', reason = '', due_at = NULL, due_ti = NULL, resume_from = NULL,
  updated_at = clock_timestamp()
WHERE id = %(task_run)s RETURNING epoch

-- name: insert_attempt | the row of a new attempt
INSERT INTO attempts (task_run, epoch, node, rung, resumed_from, admit_tries)
VALUES (%(task_run)s, %(epoch)s, %(node)s, %(rung)s, %(resumed_from)s, %(admit_tries)s)

-- name: cleared_since | was the admit step cleared after it granted this attempt? A clear allows a step more tries, a retry does not
SELECT %(tries)s > admit_tries AS cleared FROM attempts WHERE task_run = %(task_run)s AND epoch = %(epoch)s

-- name: attempt | one attempt
SELECT state, summary, failure, reason, finished_at FROM attempts WHERE task_run = %(task_run)s AND epoch = %(epoch)s

-- name: end_attempt | an attempt's end; the first one wins
UPDATE attempts SET state = %(state)s, failure = %(failure)s, reason = %(reason)s, counted = %(counted)s, ended_at = clock_timestamp()
WHERE task_run = %(task_run)s AND epoch = %(epoch)s AND ended_at IS NULL RETURNING epoch

-- name: attempt_done | the worker handed in
UPDATE attempts SET state = 'DONE' WHERE task_run = %(task_run)s AND epoch = %(epoch)s AND state = 'COMPLETING'

-- name: history | of the attempts before one: how many counted, how many were lost, how many of the newest failed alike
SELECT count(*) FILTER (WHERE counted) AS counted, count(*) FILTER (WHERE NOT counted AND failure <> 'person') AS lost,
  count(*) FILTER (WHERE epoch > (SELECT COALESCE(max(o.epoch), 0) FROM attempts o
    WHERE o.task_run = %(task_run)s AND o.epoch < %(epoch)s AND o.failure IS DISTINCT FROM %(failure)s)) AS in_a_row
FROM attempts WHERE task_run = %(task_run)s AND epoch < %(epoch)s

-- name: insert_rework | a step's decision; at most one a step, epoch and task instance
INSERT INTO reworks (id, task_run, epoch, ti_id, steps, reason, feedback)
VALUES (%(id)s, %(task_run)s, %(epoch)s, %(ti_id)s, %(steps)s, %(reason)s, %(feedback)s)

-- name: rework_of | what this task instance has already decided
SELECT id, task_run, epoch, ti_id, steps, reason, feedback FROM reworks WHERE task_run = %(task_run)s AND epoch = %(epoch)s AND ti_id = %(ti_id)s

-- name: undone_rework | the newest decision about this attempt that no door has carried out
SELECT steps, reason, feedback FROM reworks WHERE task_run = %(task_run)s AND epoch = %(epoch)s AND cleared_at IS NULL
ORDER BY created_at DESC LIMIT 1

-- name: rework_for_epoch | was the attempt of this epoch given up by a step (and not by a person)?
SELECT EXISTS (SELECT FROM reworks WHERE task_run = %(task_run)s AND epoch = %(epoch)s AND 'admit' = ANY(steps)) AS by_a_step

-- name: prepare | when the next attempt is due, from where it goes on, and what it should know
UPDATE task_runs SET feedback = %(feedback)s, due_at = clock_timestamp() + make_interval(secs => %(delay_s)s), due_ti = NULL,
  resume_from = %(resume_from)s, accepted_commit = CASE WHEN %(afresh)s THEN NULL ELSE accepted_commit END
WHERE id = %(task_run)s

-- name: wait_until_due | the first task instance that asks is the one that waits
UPDATE task_runs SET due_ti = COALESCE(due_ti, %(ti_id)s) WHERE id = %(task_run)s AND state = 'PENDING_RETRY' AND due_at > clock_timestamp()
RETURNING due_ti = %(ti_id)s AS mine, ceil(extract(epoch FROM due_at - clock_timestamp()))::int AS seconds

-- name: way | how far an attempt came with its transcript
SELECT a.epoch, a.resumed_from, a.first_turn, (SELECT count(*) FROM transcripts s
  WHERE s.task_run = a.task_run AND s.epoch = a.epoch AND s.role = 'assistant')::int AS turns
FROM attempts a WHERE a.task_run = %(task_run)s AND a.epoch = %(epoch)s

-- name: plan_of | the plan that a task run is a part of
SELECT t.key, p.document FROM task_runs t JOIN goal_runs r ON r.id = t.goal_run JOIN plans p ON p.seq = r.plan WHERE t.id = %(task_run)s

-- name: left_behind | what an attempt that is resumed began with and left; over: it leaves no more, or its warden had its time for it
SELECT l.task_run, l.epoch, l.id AS lease, l.input_commit, e.handin_sha256 IS NOT NULL AS handed_in, leaves_no_more(l) AS over
FROM leases l LEFT JOIN evidence e ON e.lease = l.id
WHERE l.kind = 'work' AND l.task_run = %(task_run)s AND l.epoch = %(epoch)s

-- name: set_feedback | what the next attempt should know
UPDATE task_runs SET feedback = %(feedback)s WHERE id = %(task_run)s

-- name: set_accepted | the last accepted commit, from which a further attempt goes on
UPDATE task_runs SET accepted_commit = %(commit)s WHERE id = %(task_run)s

-- name: milestones | the worker's milestones since the last look
SELECT id, detail FROM task_events WHERE machine = 'attempt' AND subject = %(subject)s AND kind = 'milestone' AND id > %(after)s ORDER BY id LIMIT 50

-- name: of_goal_run | all task runs of a goal run, locked in the order in which everybody locks them
SELECT id, goal_run, key, state, reason, epoch, feedback, accepted_commit, merged_commit, resume_from
FROM task_runs WHERE goal_run = %(goal_run)s ORDER BY id FOR NO KEY UPDATE

-- name: complete | the end of a task run; the trigger refuses any other state than MERGE_QUEUE before it
UPDATE task_runs SET state = 'COMPLETED', merged_commit = %(commit)s, accepted_commit = COALESCE(accepted_commit, %(commit)s), reason = '',
  updated_at = clock_timestamp() WHERE id = %(task_run)s

-- name: lock_rework | what a step decided, locked, with the epoch that its task run is at now, held still until the clear is committed
SELECT r.id, r.ti_id, r.steps, r.epoch, r.cleared_at, t.epoch AS epoch_now, t.key, g.dag_id, g.run_id
FROM reworks r JOIN task_runs t ON t.id = r.task_run JOIN goal_runs g ON g.id = t.goal_run
WHERE r.id = %(id)s
FOR NO KEY UPDATE OF r FOR SHARE OF t

-- name: mark_cleared | the door has carried it out
UPDATE reworks SET cleared_at = clock_timestamp() WHERE id = %(id)s AND cleared_at IS NULL

-- name: move_attempts | live attempts, each from one of these states to another; one update a batch
UPDATE attempts a SET state = %(to)s FROM unnest(%(task_runs)b::text[], %(epochs)b::int[]) AS w(task_run, epoch)
WHERE a.task_run = w.task_run AND a.epoch = w.epoch AND a.state = ANY(%(from)s)

-- name: move_tasks | as move_attempts, of the task runs whose newest attempts these are
UPDATE task_runs t SET state = %(to)s, updated_at = clock_timestamp() FROM unnest(%(task_runs)b::text[], %(epochs)b::int[]) AS w(task_run, epoch)
WHERE t.id = w.task_run AND t.epoch = w.epoch AND t.state = ANY(%(from)s)

-- name: say_steps | the workers' own words
UPDATE attempts a SET step = w.step FROM unnest(%(task_runs)b::text[], %(epochs)b::int[], %(steps)b::text[]) AS w(task_run, epoch, step)
WHERE a.task_run = w.task_run AND a.epoch = w.epoch AND a.step <> w.step

-- name: insert_milestones | events that a person may want to see
INSERT INTO task_events (machine, subject, kind, detail)
SELECT 'attempt', task_run || '/' || epoch::text, 'milestone', detail
FROM unnest(%(task_runs)b::text[], %(epochs)b::int[], %(details)b::text[]) WITH ORDINALITY AS w(task_run, epoch, detail, place) ORDER BY place

-- name: finish | the worker has said its last word
UPDATE attempts SET finished_at = clock_timestamp(), commit_id = %(commit)s, summary = %(summary)s, failure = COALESCE(%(failure)s, failure),
  reason = CASE WHEN %(reason)s = '' THEN reason ELSE %(reason)s END, state = %(state)s
WHERE task_run = %(task_run)s AND epoch = %(epoch)s AND finished_at IS NULL AND state = ANY(%(from)s)

-- name: set_first_turn | the turn that a resumed attempt's worker asks for first
UPDATE attempts SET first_turn = %(first_turn)s WHERE task_run = %(task_run)s AND epoch = %(epoch)s

-- name: spend | what the task has cost over all its attempts
UPDATE task_runs SET spent_micro = spent_micro + %(cost)s WHERE id = %(task_run)s
