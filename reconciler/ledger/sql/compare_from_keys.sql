FROM (SELECT DISTINCT unnest($3::text[]) AS key) k
LEFT JOIN public."Conquest" c ON c.id = k.key
LEFT JOIN hub h ON h.key = k.key
LEFT JOIN edge e ON e.key = k.key
