-- le_info() warns of a publication: what a subscriber's elections have written
-- must not be replaced by another server's.
CREATE EXTENSION leader_election;
CREATE VIEW published AS
	SELECT w AS warning FROM le_info() AS info, unnest(info.warnings) AS w WHERE w ~ 'publication';
SET client_min_messages = error;    -- of wal_level

SELECT * FROM published;
CREATE TABLE other (id int);
CREATE PUBLICATION other FOR TABLE other;
SELECT * FROM published;

CREATE PUBLICATION by_itself FOR TABLE le_lease;
SELECT * FROM published;
DROP PUBLICATION by_itself;
CREATE PUBLICATION by_schema FOR TABLES IN SCHEMA public;
SELECT * FROM published;
DROP PUBLICATION by_schema;
CREATE PUBLICATION of_all FOR ALL TABLES;
SELECT * FROM published;
DROP PUBLICATION of_all;
SELECT * FROM published;

-- 19 has publications of all tables but some, and of all sequences
SELECT current_setting('server_version_num')::int >= 190000 AS is_19 \gset
\if :is_19
CREATE PUBLICATION all_but_it FOR ALL TABLES EXCEPT (TABLE le_lease);
\endif
SELECT * FROM published;
\if :is_19
CREATE PUBLICATION all_but_other FOR ALL TABLES EXCEPT (TABLE other);
\else
CREATE PUBLICATION all_but_other FOR ALL TABLES;
\endif
SELECT * FROM published;
DROP PUBLICATION all_but_other;
SELECT * FROM published;
\if :is_19
CREATE PUBLICATION sequences FOR ALL SEQUENCES;
\endif
SELECT array_agg(warning) IS NOT DISTINCT FROM
	   CASE WHEN :'is_19' THEN ARRAY['le_token_seq and le_lineage_seq are in a publication'] END AS told
FROM published;
\if :is_19
DROP PUBLICATION sequences;
DROP PUBLICATION all_but_it;
\endif
SELECT * FROM published;

DROP PUBLICATION other;
DROP TABLE other;
DROP VIEW published;
DROP EXTENSION leader_election;
