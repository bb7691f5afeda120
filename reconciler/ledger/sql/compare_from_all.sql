FROM public."Conquest" c
FULL JOIN hub h ON h.key = c.id
FULL JOIN edge e ON e.key = COALESCE(c.id, h.key)
CROSS JOIN LATERAL (SELECT COALESCE(c.id, h.key, e.key) AS key) k
