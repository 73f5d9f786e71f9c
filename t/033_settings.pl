# What an operator writes for a setting before the library is loaded the server
# takes unseen.  le_info() tells what came of it: a text that makes no sense is
# ignored, and a lease that a promotion's grace does not cover is none that can
# be had, where max_lease says so.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Session;
use Test::More;

sub warnings_of
{
	my ($node) = @_;
	return $node->safe_psql('postgres',
		q{SELECT unnest(warnings) FROM le_info() EXCEPT SELECT 'fsync is off' ORDER BY 1});
}

foreach my $preload ('', 'leader_election')
{
	my $how = $preload ? 'preloaded' : 'untouched';
	my $node = PostgreSQL::Test::Cluster->new($how);
	$node->init;
	$node->append_conf('postgresql.conf', qq{
shared_preload_libraries = '$preload'
leader_election.promotion_grace = 'abc'
leader_election.promotion = 'synchronus'
leader_election.sweeper = 'perhaps'
leader_election.sweep_interval = '1ms'
leader_election.memory_limit = '32MB'
});
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION leader_election');
	is(warnings_of($node), join("\n",
		'leader_election.promotion = "synchronus" makes no sense and is ignored, it is asynchronous',
		'leader_election.promotion_grace = "abc" makes no sense and is ignored, it is 10s',
		'leader_election.sweep_interval = "1ms" makes no sense and is ignored, it is 1min',
		'leader_election.sweeper = "perhaps" makes no sense and is ignored, it is on'),
		"$how: what makes no sense is told");
	is( $node->safe_psql('postgres', q{
			SELECT le_leader(1) IS NULL, current_setting('leader_election.promotion_grace'),
				   current_setting('leader_election.memory_limit')}),
		't|10s|32MB', 'and the defaults are in force');

	# a session that has seen the nonsense sees that it is mended
	my $session = Session->new($node->connstr('postgres'));
	like($session->say('SELECT warnings FROM le_info()'), qr/"abc/, 'a session');
	$node->append_conf('postgresql.conf', 'leader_election.promotion_grace = 20s');
	$node->reload;
	my $until = time() + $PostgreSQL::Test::Utils::timeout_default;
	until ($session->say('SHOW leader_election.promotion_grace') eq '20s')
	{
		die 'the setting does not arrive' if time() > $until;
	}
	unlike($session->say('SELECT warnings FROM le_info()'),
		qr/promotion_grace/, 'it is mended');
	$session->quit;

	$node->append_conf('postgresql.conf', q{
leader_election.promotion_grace = 10
leader_election.promotion = asynchronous
leader_election.sweeper = on
leader_election.sweep_interval = 1s
leader_election.max_lease = 60s
});
	$node->restart;
	is( warnings_of($node),
		'leader_election.promotion_grace (10 ms) is shorter than leader_election.max_lease (60000 ms)',
		"$how: a grace that was meant in seconds is told, though there is no lease");
	is( $node->safe_psql('postgres', q{SELECT le_try_acquire(1, 'a', 60000)}),
		't', 'a lease that is not too long');
	my ($rc, $out, $err) = $node->psql('postgres', q{SELECT le_try_acquire(2, 'a', 60001)});
	like($err, qr/ERROR:  lease_ms 60001 is longer than leader_election.max_lease, which is 60000 ms$/m,
		'a longer one is refused');
	($rc, $out, $err) = $node->psql('postgres', q{SELECT elected FROM le_campaign(2, 'a', 60001)});
	like($err, qr/ERROR:  lease_ms 60001 is longer than/, 'also by le_campaign');
	is($node->safe_psql('postgres', 'SELECT count(*) FROM leader_lease'), '1', 'and changes nothing');

	# taken back while a term runs: it goes on, but not with that argument
	$node->append_conf('postgresql.conf', q{
leader_election.promotion_grace = 30s
leader_election.max_lease = 30s
});
	$node->reload;
	ok( $node->poll_query_until('postgres',
			q{SELECT current_setting('leader_election.max_lease') = '30s' FROM le_info()}),
		'a shorter limit');
	is( $node->safe_psql('postgres', q{SELECT le_renew(1, 'a'), lease_ms FROM leader_lease}),
		't|60000', 'a term keeps the length that it has');
	is( warnings_of($node),
		'leader_election.promotion_grace (30000 ms) is shorter than a lease (60000 ms)',
		'which le_info tells, too');
	$node->stop;
}

done_testing();
