# The owner of a database installs the extension, who is not a superuser.  The
# objects belong to the bootstrap superuser; he can elect, let others elect, look,
# sweep, dump, restore and drop, but not touch what the elections rest on.  What
# he sets for his database does not reach the sweeper, which works for him with
# the rights of a superuser.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $long = 600_000;    # outlives the test
my $owner = q{own'er "$1"};    # in need of quotes, wherever it is used
my $owner_sql = q{"own'er ""$1"""};

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', q{
leader_election.sweep_interval = 1s
leader_election.sweep_jitter = 0
});
$node->start;
my $superuser = $node->safe_psql('postgres', 'SELECT current_user');
$node->safe_psql('postgres', qq{
	CREATE ROLE $owner_sql LOGIN CREATEDB;
	CREATE ROLE app LOGIN;
	CREATE ROLE monitor LOGIN;
	CREATE DATABASE shop OWNER $owner_sql;});

# Statements of a role, and what they say.
sub as
{
	my ($role, $sql, $database) = @_;
	return $node->safe_psql($database // 'shop', $sql,
		extra_params => [ '-U', $role ]);
}

# The SQLSTATE that a statement of a role fails with.
sub refused
{
	my ($role, $sql) = @_;
	my (undef, undef, $err) = $node->psql('shop',
		"\\set VERBOSITY sqlstate\n$sql", extra_params => [ '-U', $role ]);
	return $err =~ /ERROR: +(\w+)/ ? $1 : 'not refused';
}

subtest 'installation' => sub {
	is(refused('app', 'CREATE EXTENSION leader_election'),
		'42501', 'not by anybody');
	as($owner, q{
		CREATE SCHEMA election;
		CREATE EXTENSION leader_election SCHEMA election;
		GRANT USAGE ON SCHEMA election TO PUBLIC;});
	is( as($owner, q{
			SELECT rolname FROM pg_extension JOIN pg_roles r ON r.oid = extowner
			 WHERE extname = 'leader_election'}),
		$owner, 'the extension is his');
	is( as($owner, q{
			SELECT DISTINCT rolname
			  FROM pg_depend LEFT JOIN pg_class c ON c.oid = objid AND classid = 'pg_class'::regclass
			       LEFT JOIN pg_proc p ON p.oid = objid AND classid = 'pg_proc'::regclass
				   JOIN pg_roles r ON r.oid IN (relowner, proowner)
			 WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
			   AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'leader_election')}),
		$superuser, 'and nothing in it');
	is( as($owner, q{
			SELECT relname, privilege_type, is_grantable
			  FROM pg_class, aclexplode(relacl)
			 WHERE relnamespace = 'election'::regnamespace
			   AND grantee = quote_ident(current_user)::regrole
			 ORDER BY 1, 2}),
		"le_token_seq|SELECT|t\nle_token_seq|UPDATE|t\n"
		  . join("\n", map { "leader_$_|SELECT|t" } qw(history lease protected stat waiting)),
		'what he may do with the relations');
	is( as($owner, q{
			SELECT count(*) > 10, every(is_grantable) FROM pg_proc, aclexplode(proacl)
			 WHERE pronamespace = 'election'::regnamespace
			   AND grantee = quote_ident(current_user)::regrole}),
		't|t', 'and the functions: anything');
};

subtest 'use' => sub {
	as($owner, q{
		GRANT EXECUTE ON FUNCTION election.le_try_acquire, election.le_renew,
			election.le_release, election.le_token, election.le_guard TO app;
		GRANT SELECT ON election.leader_lease, election.leader_protected TO monitor;
		GRANT EXECUTE ON FUNCTION election.le_leases, election.le_info TO monitor;
		CREATE TABLE public.work (step text);
		GRANT INSERT ON public.work TO app;});
	is(as($owner, q{SELECT election.le_protect('public.work', 1)}),
		'1', 'the owner protects a table of his');
	is( as('app', qq{
			SELECT election.le_try_acquire(1, 'a', $long), election.le_renew(1, 'a');
			INSERT INTO public.work SELECT 'first' FROM election.le_guard(1, 'a');}),
		't|t', 'the application leads, and works');
	is(refused('app', q{INSERT INTO public.work VALUES ('second')}),
		'LE002', 'under a guard only');
	is( as('monitor', q{
			SELECT id, leader_id, leader_role FROM election.leader_lease;
			SELECT * FROM election.leader_protected;
			SELECT version FROM election.le_info()}),
		"1|a|app\nwork|1|protected\n1.0", 'monitoring looks');
	is(as($owner, 'SELECT election.le_sweep()'), '0', 'the owner may sweep');
	as($owner, 'GRANT EXECUTE ON FUNCTION election.le_sweep TO app');
	is(refused('app', 'SELECT election.le_sweep()'),
		'42501', 'the application may not, whoever has granted it');
	is(refused($owner, "SELECT election.le_release(1, 'a')"),
		'42501', 'the application\'s term is not the owner\'s');
};

subtest 'what the owner cannot do' => sub {
	my %refused = (
		'TABLE election.le_lease' => '42501',
		'DELETE FROM election.le_lease' => '42501',
		'TRUNCATE election.le_lease' => '42501',
		'BEGIN; LOCK TABLE election.le_lease' => '42501',
		'ALTER TABLE election.le_lease RENAME TO lease' => '42501',
		'ALTER TABLE election.le_lease DISABLE TRIGGER ALL' => '42501',
		'CREATE INDEX ON election.le_lease (length(leader_id))' => '42501',
		'CREATE RULE r AS ON DELETE TO election.le_lease DO NOTHING' => '42501',
		'CREATE TRIGGER t AFTER DELETE ON election.le_lease EXECUTE FUNCTION election.le_fence(1)' => '42501',
		'CREATE TABLE public.child () INHERITS (election.le_lease)' => '42501',
		'CREATE PUBLICATION p FOR TABLE election.le_lease' => '42501',
		'SELECT nextval(\'election.le_lineage_seq\')' => '42501',
		'ALTER SEQUENCE election.le_token_seq RESTART' => '42501',
		'CREATE OR REPLACE FUNCTION election.le_leader(lock_id bigint) RETURNS text LANGUAGE sql AS \'SELECT NULL\'' => '42501',
		'ALTER FUNCTION election.le_info() SECURITY DEFINER' => '42501',
		'CREATE OR REPLACE VIEW election.leader_lease AS SELECT 1' => '42501',
		'ALTER EXTENSION leader_election DROP TABLE election.le_lease' => '42501',
		'ALTER EXTENSION leader_election SET SCHEMA public' => '42501',
		'DROP TABLE election.le_lease CASCADE' => '2BP01',
		'ALTER DATABASE shop SET leader_election.promotion_grace = 0' => '42501',
		'CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION f()' => '42501');
	is(refused($owner, $_), $refused{$_}, $_) foreach (sort keys %refused);
};

# It is a superuser's session, in a database that is not a superuser's.
subtest 'the sweeper in his database' => sub {
	as($owner, 'CREATE DATABASE trap', 'postgres');
	as($owner, q{
		CREATE SCHEMA election;
		CREATE EXTENSION leader_election SCHEMA election;
		CREATE SCHEMA trap;
		CREATE VIEW trap.le_lease AS SELECT 1;
		ALTER DATABASE trap SET search_path = trap, pg_catalog;
		ALTER DATABASE trap SET role = monitor;
		ALTER DATABASE trap SET session_authorization = monitor;
		ALTER DATABASE trap SET default_transaction_read_only = on;
		ALTER DATABASE trap SET default_transaction_isolation = serializable;
		ALTER DATABASE trap SET statement_timeout = 1;
		ALTER DATABASE trap SET lock_timeout = 1;
		ALTER DATABASE trap SET local_preload_libraries = missing;
		-- this session does not have them
		SELECT election.le_try_acquire(1, 'a', 1);
		SET statement_timeout = '60s';
		DO $$
		BEGIN
			WHILE EXISTS (SELECT FROM election.leader_lease) LOOP
				PERFORM election.le_leader(1), pg_sleep(0.01);
			END LOOP;
		END $$;}, 'trap');
	pass('sweeps, whatever its settings');
	$node->safe_psql('postgres', 'DROP DATABASE trap');
};

my $dump = $node->backup_dir . '.sql';
my $far = 7_000_000_000_000_000;    # a token that the clock has not reached

# What the restored database lets the application do
sub restored_well
{
	my ($database) = @_;
	is( as('app', qq{
			SELECT election.le_try_acquire(1, 'b', $long), election.le_token(1, 'b') > $far;
			INSERT INTO public.work SELECT 'next' FROM election.le_guard(1, 'b');
			}, $database),
		't|t', 'the application elects, with a larger token, and works');
	return;
}

subtest 'dump and restore' => sub {
	as($owner, "SELECT setval('election.le_token_seq', $far)");
	$node->command_ok([ 'pg_dump', '-U', $owner, '-f', $dump, 'shop' ],
		'he dumps his database');

	as($owner, 'CREATE DATABASE his', 'postgres');
	$node->command_ok(
		[ 'psql', '-X', '-U', $owner, '-v', 'ON_ERROR_STOP=1', '-f', $dump, 'his' ],
		'he restores it');
	restored_well('his');

	# A superuser's extension would not be the owner's, who then could not have
	# granted what the dump says that he has.
	$node->command_ok([ 'pg_dump', '-Fc', '-f', $dump, 'shop' ],
		'a superuser dumps it');
	as($owner, 'CREATE DATABASE theirs', 'postgres');
	$node->command_ok(
		[ 'pg_restore', '-e', '-d', 'theirs', "--role=$owner", $dump ],
		'and restores it, in the role of the owner');
	restored_well('theirs');
};

subtest 'the extension goes' => sub {
	is(refused($owner, 'DROP EXTENSION leader_election'),
		'2BP01', 'not by accident, while it protects a table');
	as($owner, q{
		SELECT election.le_unprotect('public.work');
		DROP EXTENSION leader_election;});
	is( as($owner, q{
			SELECT count(*) FROM pg_class WHERE relnamespace = 'election'::regnamespace}),
		'0', 'with all that was in it');
	as($owner, 'CREATE EXTENSION leader_election SCHEMA election');
	is(as($owner, qq{SELECT election.le_try_acquire(1, 'c', $long)}),
		't', 'and comes back');
};

subtest 'pg_upgrade' => sub {
	my $new = PostgreSQL::Test::Cluster->new('new');
	$new->init;
	my $bin = $node->config_data('--bindir');
	$node->stop;

	# it keeps its logs in the current directory
	chdir($PostgreSQL::Test::Utils::tmp_check) or die "chdir: $!";
	command_ok(
		[
			'pg_upgrade', '--no-sync',
			'-d', $node->data_dir, '-D', $new->data_dir,
			'-b', $bin, '-B', $bin,
			'-s', $new->host, '-p', $node->port, '-P', $new->port
		],
		'the cluster is upgraded');
	$node = $new;
	$node->append_conf('postgresql.conf', 'leader_election.promotion_grace = 0');
	$node->start;
	is( as('app', q{SELECT election.le_try_acquire(2, 'b')}, 'his'),
		't', 'the application elects on');
	is( as($owner, q{
			GRANT EXECUTE ON FUNCTION election.le_leader TO monitor;
			SELECT election.le_sweep()}, 'his'),
		'0', 'and the owner has the rights that he had');
};

subtest 'the owner goes' => sub {
	$node->safe_psql($_, qq{
		REASSIGN OWNED BY $owner_sql TO $superuser;
		DROP OWNED BY $owner_sql, app, monitor;})
	  foreach ('shop', 'his', 'theirs');
	is( $node->safe_psql('shop', qq{
			DROP ROLE $owner_sql, app, monitor;
			SELECT election.le_try_acquire(2, 'c'), election.le_release(2, 'c')}),
		't|t', 'and leaves an extension that works');
};

$node->stop;
done_testing();
