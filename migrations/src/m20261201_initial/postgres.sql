-- Storage parameters of PostgreSQL.

-- Queue rows change three times within seconds: leave free space in each page, and vacuum early.
ALTER TABLE message SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);

-- A pool id changes twice within seconds of its use: vacuum early.
ALTER TABLE form_id SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02);
