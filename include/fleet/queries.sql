-- name: register | a node, as its warden found it
INSERT INTO nodes (name, capacity, rung, notice) VALUES (%(name)s, %(capacity)s, %(rung)s, %(notice)s)
ON CONFLICT (name) DO UPDATE SET capacity = EXCLUDED.capacity, rung = EXCLUDED.rung, notice = EXCLUDED.notice, heartbeat_at = clock_timestamp()

-- name: beat | the warden of a node is alive
UPDATE nodes SET heartbeat_at = clock_timestamp() WHERE name = %(name)s

-- name: one_at_a_time | two placements of workers cannot take the last place
SELECT pg_advisory_xact_lock(hashtext('airlock grant'))

-- name: alive | the live nodes, with what lives on them
SELECT n.name, n.rung, n.capacity, count(l.id) FILTER (WHERE l.kind = 'work') AS workers, count(l.id) AS sandboxes
FROM nodes n LEFT JOIN leases l ON l.node = n.name AND l.ended_at IS NULL
WHERE n.heartbeat_at > clock_timestamp() - make_interval(secs => %(alive)s)
GROUP BY n.name

-- name: every_node | the nodes and what holds their sandboxes
SELECT name, rung, notice, capacity, heartbeat_at > clock_timestamp() - make_interval(secs => %(alive)s) AS alive FROM nodes ORDER BY name
