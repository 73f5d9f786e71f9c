# What pg_dump and pg_upgrade make of an election.  A dump carries no lease,
# because whoever leads here does not lead there, but it carries the last
# token: a restored database must never hand out one that was seen before.
# pg_upgrade moves the files to another cluster and is a promotion to an
# election: nobody leads, and nobody gets in before the grace has passed.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $long = 600_000;    # outlives the test
my $far = 7_000_000_000_000_000;    # a token that the clock has not reached

my $old = PostgreSQL::Test::Cluster->new('old');
$old->init(allows_streaming => 1);
$old->start;
$old->safe_psql('postgres', q{
	CREATE SCHEMA election;
	CREATE EXTENSION leader_election SCHEMA election;});

# All tokens from here on are ahead of the clock, so that only the sequence
# can tell which have been drawn.
$old->safe_psql('postgres', "SELECT setval('election.le_token_seq', $far)");
is( $old->safe_psql('postgres', qq{
		SET search_path = election;
		SELECT le_try_acquire(1, 'a', $long);
		SELECT le_renew(1, 'a');}),
	"t\nt",
	'a leader');
my $token =
  $old->safe_psql('postgres', q{SELECT election.le_token(1, 'a')});
cmp_ok($token, '>', $far, 'its token is ahead of the clock');

subtest 'dump and restore' => sub {
	my $dump = $old->backup_dir . '.sql';
	$old->command_ok([ 'pg_dump', '-f', $dump, 'postgres' ], 'dump');
	unlike(slurp_file($dump), qr/le_lease/, 'says nothing about leases');

	$old->safe_psql('postgres', 'CREATE DATABASE restored');
	$old->command_ok(
		[ 'psql', '-X', '-v', 'ON_ERROR_STOP=1', '-f', $dump, 'restored' ],
		'restore');

	is( $old->safe_psql('restored', qq{
			SET search_path = election;
			SELECT count(*) FROM leader_lease;
			SELECT le_renew(1, 'a', $token), le_leader(1) IS NULL;
			SELECT le_try_acquire(1, 'b', $long);
			SELECT le_token(1, 'b') > $token;}),
		"0\nf|t\nt\nt",
		'the lock is vacant there, and the next token is larger');
	is( $old->safe_psql('postgres', qq{
			SET search_path = election;
			SELECT le_renew(1, 'a', $token), le_leader(1);}),
		't|a',
		'here the leader has not noticed');
	$old->safe_psql('postgres', 'DROP DATABASE restored');

	# a protected table: its rows come first, then its fence
	$old->safe_psql('postgres', q{
		CREATE TABLE work (step text);
		INSERT INTO work VALUES ('old');
		CREATE ROLE worker;
		ALTER TABLE work OWNER TO worker;
		SELECT election.le_protect('work', 1);});
	$old->command_ok([ 'pg_dump', '-f', $dump, 'postgres' ],
		'dump with a protected table');
	$old->safe_psql('postgres', 'CREATE DATABASE restored');
	$old->command_ok(
		[ 'psql', '-X', '-v', 'ON_ERROR_STOP=1', '-f', $dump, 'restored' ],
		'restore');
	is( $old->safe_psql('restored', q{
			SELECT * FROM election.leader_protected;
			SELECT * FROM work;}),
		"work|1|protected\nold",
		'it is protected there');
	my ($rc, undef, $err) = $old->psql('restored',
		"\\set VERBOSITY sqlstate\nINSERT INTO work VALUES ('new')");
	like($err, qr/ERROR:  LE002/, 'indeed');
	$old->safe_psql('postgres', 'DROP DATABASE restored; DROP TABLE work');

	# a database's owner dumps it, who need not be a superuser
	$old->safe_psql('postgres', q{
		CREATE ROLE app LOGIN;
		GRANT USAGE ON SCHEMA election TO app;});
	$old->command_ok([ 'pg_dump', '-U', 'app', '-f', $dump, 'postgres' ],
		'dump by another role');
	like(slurp_file($dump), qr/setval\('election.le_token_seq', $token, true\)/,
		'with the last token');
};

# The number of a timeline comes back: pg_upgrade makes a new cluster, whose
# first is 1.  Fail over before, so that the old cluster has been on the
# timeline that a later failover of the new one arrives at.
subtest 'pg_upgrade' => sub {
	my $bin = $old->config_data('--bindir');
	my $short = 2000;

	$old->stop;
	$old->append_conf('postgresql.conf',
		'leader_election.promotion_grace = 0');
	$old->set_standby_mode;
	$old->start;
	$old->promote;
	is( $old->safe_psql('postgres', qq{
			SELECT timeline FROM election.le_info();
			SELECT election.le_try_acquire(2, 'a', $short);
			SELECT election.le_try_acquire(3, 'a', $long);}),
		"2\nt\nt",
		'a term on timeline 2');
	$old->stop;

	my $new = PostgreSQL::Test::Cluster->new('new');
	$new->init(allows_streaming => 1);
	# it keeps its logs in the current directory
	chdir($PostgreSQL::Test::Utils::tmp_check) or die "chdir: $!";
	command_ok(
		[
			'pg_upgrade', '--no-sync',
			'-d', $old->data_dir, '-D', $new->data_dir,
			'-b', $bin, '-B', $bin,
			'-s', $new->host, '-p', $old->port, '-P', $new->port
		],
		'upgraded');
	$new->append_conf('postgresql.conf',
		"leader_election.promotion_grace = ${short}ms");
	$new->start;

	# another cluster: nobody leads, and nobody gets in within the grace
	is( $new->safe_psql('postgres', qq{
			SET search_path = election;
			SELECT le_try_acquire(4, 'b', $long), le_try_acquire(1, 'b', $long),
				   le_renew(3, 'a'), le_leader(3) IS NULL,
				   (SELECT string_agg(state, ' ') FROM leader_lease),
				   timeline FROM le_info()}),
		'f|f|f|t|grace grace grace|1',
		'nobody leads after an upgrade, and nobody becomes leader at once');
	foreach my $lock (4, 2)
	{
		ok( $new->poll_query_until('postgres',
				"SELECT election.le_try_acquire($lock, 'b', $long)"),
			"lock $lock has a leader again");
		is( $new->safe_psql('postgres', qq{
				SET search_path = election;
				SELECT le_token($lock, 'b') > $token,
					   (SELECT extract(epoch FROM created_at - epoch_start) * 1000
							>= $short * 11 / 10 * 0.999
						  FROM leader_lease, le_info() WHERE id = $lock);}),
			't|t',
			'by a term with a larger token, not before the grace has passed');
	}

	# a standby of the new cluster misses a grant and is promoted: timeline 2
	$new->backup('backup');
	my $standby = PostgreSQL::Test::Cluster->new('standby');
	$standby->init_from_backup($new, 'backup', has_streaming => 1);
	$standby->start;
	$new->wait_for_catchup($standby);
	$standby->stop;
	is( $new->safe_psql('postgres',
			"SELECT election.le_try_acquire(5, 'a', $short)"),
		't',
		'a grant that the standby never hears of');
	$new->stop('immediate');
	$standby->start;
	$standby->promote;
	is( $standby->safe_psql('postgres', qq{
			SET search_path = election;
			SELECT le_try_acquire(5, 'b', $long), le_try_acquire(6, 'b', $long),
				   le_leader(4) IS NULL, le_leader(3) IS NULL, timeline
			  FROM le_info()}),
		'f|f|t|t|2',
		'on timeline 2 again, nobody leads and nobody becomes leader');
	ok( $standby->poll_query_until('postgres',
			"SELECT election.le_try_acquire(5, 'b', $long)"),
		'a leader again');
	is( $standby->safe_psql('postgres', qq{
			SELECT extract(epoch FROM created_at - epoch_start) * 1000
				   >= $short * 11 / 10 * 0.999
			  FROM election.leader_lease, election.le_info() WHERE id = 5;
			DROP EXTENSION leader_election;}),
		't',
		'not before the grace has passed');
	$standby->stop;
};

done_testing();
