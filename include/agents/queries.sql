-- name: upsert_agent | as agents.yaml says
INSERT INTO agents (name, planner_model, worker_model, advice_model, capabilities, day_budget_micro, month_budget_micro)
VALUES (%(name)s, %(planner_model)s, %(worker_model)s, %(advice_model)s, %(capabilities)s, %(day_micro)s, %(month_micro)s)
ON CONFLICT (name) DO UPDATE SET planner_model = EXCLUDED.planner_model, worker_model = EXCLUDED.worker_model,
  advice_model = EXCLUDED.advice_model, capabilities = EXCLUDED.capabilities,
  day_budget_micro = EXCLUDED.day_budget_micro, month_budget_micro = EXCLUDED.month_budget_micro;

-- name: agent_names | all of them
SELECT name FROM agents ORDER BY name;

-- name: raise_budgets | of every agent, a day and a month
UPDATE agents SET day_budget_micro = %(micro)s, month_budget_micro = %(micro)s;

-- name: capabilities | what an agent may grant
SELECT capabilities FROM agents WHERE name = %(name)s;

-- name: insert_request | a question to an agent's broker
INSERT INTO model_requests (id, agent, goal_run, purpose, address, body)
VALUES (%(id)s, %(agent)s, %(goal_run)s, %(purpose)s, %(address)s, %(body)s);

-- name: request_at | what became of the question at an address
SELECT state, error_kind, error, response ->> 'text' AS text, response ->> 'stop_reason' AS stop_reason FROM model_requests WHERE address = %(address)s;

-- name: requested | questions of Airflow's steps that nobody works on
SELECT q.id, q.goal_run, q.purpose, q.address, q.body FROM model_requests q
WHERE q.agent = %(agent)s AND q.state = 'requested' AND q.created_at <= clock_timestamp() - make_interval(secs => %(age_s)s)
  AND NOT EXISTS (SELECT FROM model_calls c WHERE c.request = q.id::text)
ORDER BY q.created_at LIMIT 100;

-- name: end_request | once
UPDATE model_requests SET state = %(state)s, response = %(response)s, error_kind = %(error_kind)s, error = %(error)s, done_at = clock_timestamp()
WHERE id = %(id)s AND state = 'requested';
