-- name: record | append an entry; it is chained when the transaction commits
INSERT INTO audit_log (actor, action, subject, detail) VALUES (%(actor)s, %(action)s, %(subject)s, %(detail)s)

-- name: links | the whole chain, as its hashes cover it
SELECT position, previous, hash, id::text, (extract(epoch FROM at) * 1000000)::bigint AS at_micros, actor, action, subject, detail::text AS detail
FROM audit_log ORDER BY position NULLS LAST

-- name: newest | the newest entries, the last first
SELECT position, at, actor, action, subject, detail, hash FROM audit_log ORDER BY position DESC NULLS FIRST LIMIT %(limit)s
