-- name: insert_verdict | a request to the gatekeeper; the same attempt, tree and suite once
INSERT INTO verdicts (id, goal_run, task_run, epoch, tree, suite, facts)
VALUES (%(id)s, %(goal_run)s, %(task_run)s, %(epoch)s, %(tree)s, %(suite)s, %(facts)s)
ON CONFLICT (goal_run, task_run, epoch, tree, suite) DO NOTHING

-- name: verdict | request and answer
SELECT id, goal_run, task_run, epoch, tree, suite, facts, green, findings FROM verdicts
WHERE goal_run = %(goal_run)s AND task_run IS NOT DISTINCT FROM %(task_run)s AND epoch IS NOT DISTINCT FROM %(epoch)s
  AND tree = %(tree)s AND suite = %(suite)s

-- name: open_verdicts | what is not judged yet, oldest first
SELECT id::text AS id, suite, facts FROM verdicts WHERE green IS NULL ORDER BY requested_at LIMIT 500

-- name: judge | the first answer wins; whoever waits for it is told
WITH judged AS (
  UPDATE verdicts SET green = %(green)s, findings = %(findings)s, suite_sha256 = %(suite_sha256)s, judged_at = clock_timestamp()
  WHERE id = %(id)s AND green IS NULL RETURNING id)
SELECT pg_notify('judged', id::text) FROM judged

-- name: base_result | the base's own test run
SELECT tests, problem FROM base_results WHERE repository = %(repository)s AND commit_id = %(commit)s

-- name: insert_base_result | once per commit
INSERT INTO base_results (repository, commit_id, tests, problem) VALUES (%(repository)s, %(commit)s, %(tests)s, %(problem)s)
ON CONFLICT (repository, commit_id) DO NOTHING
