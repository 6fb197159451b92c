-- name: insert_artifact | a typed result; the same bytes from the same source on the same tree once
INSERT INTO artifacts (id, goal_run, task_run, epoch, type, source, tree, sha256, data)
SELECT %(id)s, %(goal_run)s, %(task_run)s, %(epoch)s, %(type)s, %(source)s, %(tree)s, %(sha256)s, %(data)s
WHERE NOT EXISTS (SELECT FROM artifacts WHERE goal_run = %(goal_run)s AND task_run IS NOT DISTINCT FROM %(task_run)s
  AND epoch IS NOT DISTINCT FROM %(epoch)s AND source = %(source)s AND tree IS NOT DISTINCT FROM %(tree)s AND sha256 = %(sha256)s)

-- name: spent | what an attempt cost, by model, from the broker's meter
SELECT model, bool_or(offline) AS offline, count(*) AS calls, COALESCE(sum(cost_micro), 0)::bigint AS cost_micro,
       COALESCE(sum(COALESCE(input_tokens, 0) + COALESCE(cache_read_tokens, 0) + COALESCE(cache_write_tokens, 0)), 0)::bigint AS input_tokens,
       COALESCE(sum(output_tokens), 0)::bigint AS output_tokens
FROM model_calls WHERE task_run = %(task_run)s AND epoch = %(epoch)s AND state <> 'released' GROUP BY model ORDER BY model

-- name: insert_hints | as workers saw them
INSERT INTO artifacts (id, goal_run, task_run, epoch, type, source, sha256, data)
SELECT id, goal_run, task_run, epoch, type, 'worker', sha256, data::jsonb
FROM unnest(%(ids)b::uuid[], %(goal_runs)b::text[], %(task_runs)b::text[], %(epochs)b::int[], %(types)b::text[], %(digests)b::text[], %(datas)b::text[])
  AS w(id, goal_run, task_run, epoch, type, sha256, data)
