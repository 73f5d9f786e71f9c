# What pg_dump and pg_upgrade make of an election.  A dump carries no lease,
# because whoever leads here does not lead there, but it carries the last
# token: a restored database must never hand out one that was seen before.
# pg_upgrade moves the files of a cluster and is a restart to an election: a
# leader keeps its term, and nobody else gets in before one lease has passed.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $long = 600_000;    # outlives the test
my $far = 7_000_000_000_000_000;    # a token that the clock has not reached

my $old = PostgreSQL::Test::Cluster->new('old');
$old->init;
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

subtest 'pg_upgrade' => sub {
	my $new = PostgreSQL::Test::Cluster->new('new');
	$new->init;
	my $bin = $old->config_data('--bindir');
	my $short = 2000;

	is( $old->safe_psql('postgres',
			"SELECT election.le_try_acquire(2, 'a', $short)"),
		't',
		'a short lease');
	$old->stop;

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
	$new->start;

	is( $new->safe_psql('postgres', qq{
			SET search_path = election;
			SELECT le_leader(1), le_try_acquire(1, 'b'),
				   le_renew(1, 'a', $token), le_token(1, 'a') = $token,
				   le_try_acquire(2, 'b')}),
		'a|f|t|t|f',
		'the leader leads on, in the same term');
	ok( $new->poll_query_until('postgres',
			"SELECT election.le_try_acquire(2, 'b', $long)"),
		'one that does not come back is replaced');
	is( $new->safe_psql('postgres', qq{
			SET search_path = election;
			SELECT le_token(2, 'b') > $token,
				   (SELECT extract(epoch FROM created_at - epoch_start) * 1000
						>= $short * 11 / 10 * 0.999
					  FROM leader_lease, le_info() WHERE id = 2);
			DROP EXTENSION leader_election;}),
		't|t',
		'by a term with a larger token, one lease after the start');
	$new->stop;
};

done_testing();
