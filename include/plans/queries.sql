-- name: agent | one agent
SELECT * FROM agents WHERE name = %(name)s

-- name: insert_plan | a plan of a goal; the same revision once
INSERT INTO plans (goal, revision, sha256, document) VALUES (%(goal)s, %(revision)s, %(sha256)s, %(document)s)
ON CONFLICT (goal, revision) DO NOTHING

-- name: newest_plan | the plan that a new run follows
SELECT * FROM plans WHERE goal = %(goal)s ORDER BY seq DESC LIMIT 1

-- name: set_plan | the plan that a run follows
UPDATE goal_runs SET plan = %(plan)s WHERE id = %(goal_run)s

-- name: insert_model_request | a question to the agent's broker
INSERT INTO model_requests (id, agent, goal_run, purpose, address, body) VALUES (%(id)s, %(agent)s, %(goal_run)s, %(purpose)s, %(address)s, %(body)s)

-- name: model_request | by its address
SELECT * FROM model_requests WHERE address = %(address)s
