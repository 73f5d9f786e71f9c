# shared_preload_libraries is not needed.  It sets the place of the shared
# struct aside, and changes nothing else: the same 128 bytes, the same answers,
# and a leader keeps its term when a server is restarted with or without it,
# or crashes with it.

use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $long = 600_000;    # outlives the test

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', q{
restart_after_crash = on
leader_election.sweep_interval = 1h
});
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION leader_election');

is( $node->safe_psql('postgres', qq{
		SELECT le_try_acquire(1, 'a', $long), le_renew(1, 'a')}),
	't|t',
	'a leader');
my $token = $node->safe_psql('postgres', q{SELECT le_token(1, 'a')});
my %epochs = ($node->safe_psql('postgres', 'SELECT epoch FROM le_info()') => 1);

sub allocations
{
	return $node->safe_psql('postgres', q{
		SELECT name, size FROM pg_shmem_allocations
		 WHERE name LIKE 'leader_election%'});
}

# The leader's term goes on, and elections work.
sub goes_on
{
	my ($lock) = @_;
	is( $node->safe_psql('postgres', qq{
			SELECT le_try_acquire(1, 'b'), le_renew(1, 'a', $token),
				   le_token(1, 'a') = $token;
			SELECT le_try_acquire($lock, 'a', $long);
			SELECT le_try_acquire($lock, 'b'), le_renew($lock, 'a'),
				   le_release($lock, 'a');
			SELECT le_try_acquire($lock, 'b', $long)}),
		"f|t|t\nt\nf|t|t\nt",
		'the leader keeps its term, and others can be elected');
	is(allocations(), 'leader_election|128', 'in 128 bytes');

	my $epoch = $node->safe_psql('postgres', 'SELECT epoch FROM le_info()');
	ok(!$epochs{$epoch}++, 'a new epoch');
	return;
}

sub restart_with
{
	my ($libraries) = @_;
	$node->append_conf('postgresql.conf',
		"shared_preload_libraries = '$libraries'");
	$node->restart;
	return;
}

is(allocations(), 'leader_election|128', 'in 128 bytes');

subtest 'preloaded' => sub {
	restart_with('leader_election');
	is(allocations(), 'leader_election|128', 'set aside before the first call');
	goes_on(2);
};

subtest 'a backend is killed' => sub {
	my $offset = -s $node->logfile;
	my $checkpointer = $node->safe_psql('postgres',
		q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'}
	);
	ok(kill('KILL', $checkpointer) == 1, 'killed');
	$node->wait_for_log(
		qr/all server processes terminated; reinitializing/, $offset);
	$node->poll_query_until('postgres', 'SELECT 1', '1')
	  or die 'the server did not come back';
	goes_on(3);
};

subtest 'not preloaded any more' => sub {
	restart_with('');
	is(allocations(), '', 'nothing set aside before the first call');
	goes_on(4);
};

subtest 'and preloaded again' => sub {
	restart_with('leader_election');
	goes_on(5);
};

$node->stop;
done_testing();
