# What docs/drivers.md says of psql.  $1: what is to be, $2: what is.
fact() { if [ "$2" = "$3" ]; then echo "ok $1"; else echo "not ok $1: wanted $2, got $3"; fi; }
ask() { psql -XAtq -c "$1"; }

ask "SELECT le_try_acquire(9, 'x')" > /dev/null
cat > lose.sql <<'SQL'
SELECT le_guard(9, 'x') \gset
CREATE TEMP TABLE t (n int);
\! psql -XAtqc "SELECT le_release(9, 'x')" > /dev/null
SQL
status=0
psql -XAtq -1 -f lose.sql 2> error || status=$?
fact 'psql -1 says nothing of a COMMIT that fails' 0 "$status"
fact 'but on its standard error' 1 "$(grep -c 'no longer leads' error)"
ask "SELECT le_try_acquire(9, 'x')" > /dev/null
status=0
psql -XAtq -v ON_ERROR_STOP=1 -1 -f lose.sql 2> error || status=$?
fact 'with ON_ERROR_STOP it does' 3 "$status"
fact 'several statements in one -c are one transaction' 1 "$(
	psql -XAtq -v VERBOSITY=sqlstate -c "SELECT 1; SELECT le_try_acquire(9, 'x')" 2>&1 | grep -c 25001)"
fact 'several -c are not' t "$(psql -XAtq -c "SELECT 1" -c "SELECT le_try_acquire(9, 'x')" | tail -n 1)"
fact 'but with -1 they are' 1 "$(
	psql -XAtq -1 -v VERBOSITY=sqlstate -c "SELECT le_try_acquire(8, 'x')" 2>&1 | grep -c 25001)"
fact 'AUTOCOMMIT off is a transaction' 1 "$(
	psql -XAtq -v AUTOCOMMIT=off -v VERBOSITY=sqlstate -c "SELECT le_try_acquire(8, 'x')" 2>&1 | grep -c 25001)"
fact 'NULL is an empty line' '' "$(ask "SELECT le_token(8, 'x')")"
