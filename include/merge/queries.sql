-- name: lock_run | the goal run, locked: one merge or landing of it at a time
SELECT r.id, r.goal_branch, r.landing_note, g.title, g.repository, g.base_branch, p.path
FROM goal_runs r JOIN goals g ON g.id = r.goal JOIN repositories p ON p.name = g.repository WHERE r.id = %(goal_run)s FOR NO KEY UPDATE OF r

-- name: run_of_task | which goal run a task run belongs to
SELECT goal_run FROM task_runs WHERE id = %(task_run)s

-- name: merge_of | the merge of a task run, if there is one
SELECT commit_id FROM merges WHERE task_run = %(task_run)s

-- name: green_for_task | the green verdict for exactly this attempt and tree
SELECT id FROM verdicts WHERE task_run = %(task_run)s AND epoch = %(epoch)s AND tree = %(tree)s AND suite = ANY(%(suites)s) AND green

-- name: green_for_run | is there any green verdict of this goal run for exactly this tree?
SELECT EXISTS (SELECT FROM verdicts WHERE goal_run = %(goal_run)s AND tree = %(tree)s AND green) AS green

-- name: insert_merge | a branch merges at most once
INSERT INTO merges (task_run, epoch, target, commit_id, tree, verdict)
VALUES (%(task_run)s, %(epoch)s, %(target)s, %(commit)s, %(tree)s, %(verdict)s)

-- name: merged_keys | the tasks that have merged, in order
SELECT t.key FROM merges m JOIN task_runs t ON t.id = m.task_run WHERE t.goal_run = %(goal_run)s ORDER BY m.created_at, t.key
