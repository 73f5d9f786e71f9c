# The extension is dropped and created anew, its database dropped, under load.
# Whoever is in the middle of a call gets its answer or an error that tells
# what has happened, the server goes on, and the tokens of a lock grow from
# one extension to the next.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Session;
use Test::More;

my $contenders = 4;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', q{
log_statement = none
deadlock_timeout = 100ms
leader_election.sweep_interval = 100ms
leader_election.sweep_jitter = 0
});
$node->start;

# The errors that a call may get while its extension is dropped.  A drop locks
# all that it drops in an order of its own, so it can meet a transition
# crosswise, as it can with any table.
my %may_happen = map { $_ => 1 } (
	'42883',    # no such function
	'42P01',    # no such table
	'3F000',    # no such schema
	'40P01',    # deadlock
);

# Contenders that lead each lock in turn, for as long as they can.  One psql
# does a whole life, so that the load does not depend on the test's own speed.
sub contend
{
	my ($db) = @_;
	my @sessions;
	foreach my $n (1 .. $contenders)
	{
		my $session = Session->new($node->connstr($db));
		$session->send(
			join(';', map { "
				SELECT le_try_acquire($_ % 3, '$n', 100), le_renew($_ % 3, '$n'),
					   le_token($_ % 3, '$n'), le_leader($_ % 3);
				SELECT count(*) FROM leader_lease;
				SELECT le_renew($_ % 3, '$n');
				SELECT le_release($_ % 3, '$n')" } 1 .. 1000));
		push @sessions, $session;
	}
	return @sessions;
}

# All that the sessions say is an answer or one of the errors above.
sub answers_are_clean
{
	my ($name, @sessions) = @_;
	my (%seen, @strange, $answers);
	foreach my $session (@sessions)
	{
		foreach my $line (split /\n/, $session->receive)
		{
			if ($line =~ /^ERROR:\s+(\w{5})$/)
			{
				$seen{$1}++;
				push @strange, $line unless $may_happen{$1};
			}
			elsif ($line =~ /^(?:[tf]|\d|\|)/) { $answers++ }
			else { push @strange, $line }
		}
		$session->quit;
	}
	is("@strange", '', "$name: no strange answer");
	cmp_ok($answers, '>', 0, "$name: and some good ones");
	note("$answers answers, errors: "
		  . join(', ', map { "$_: $seen{$_}" } sort keys %seen));
	return;
}

subtest 'the extension is dropped and created' => sub {
	$node->safe_psql('postgres', 'CREATE EXTENSION leader_election');
	my ($dropped, $shrunk, $last) = (0, 0, 0);

	# how many drops come through under one load is the machine's choice
	while ($dropped <= 3)
	{
		my @sessions = contend('postgres');
		while (grep { !$_->done } @sessions)
		{
			my ($rc) = $node->psql('postgres', 'DROP EXTENSION leader_election');
			$node->psql('postgres', 'CREATE EXTENSION IF NOT EXISTS leader_election');

			# a lock of the test's own
			my $token = $node->safe_psql('postgres', q{
				SELECT le_try_acquire(99, le_instance(), 1);
				SELECT token FROM leader_lease WHERE id = 99;});
			$token =~ s/^[tf]\n//;
			$dropped++ if $rc == 0;
			$shrunk++ if $token <= $last;
			$last = $token;
		}
		answers_are_clean('under load', @sessions);
	}
	is($shrunk, 0, 'tokens grow from one extension to the next');
	is( $node->safe_psql('postgres', q{
			SELECT count(*) FROM pg_locks
			 WHERE locktype = 'advisory' AND objsubid IN (19525, 19526)}),
		'0',
		'no lock is left');
};

subtest 'the database is dropped' => sub {
	$node->safe_psql('postgres', 'CREATE DATABASE doomed');
	$node->safe_psql('doomed', qq{
		CREATE EXTENSION leader_election;});
	is( $node->safe_psql('doomed', q{
			SELECT count(*) FILTER (WHERE le_try_acquire(id, 'a', 300000))
			  FROM generate_series(1, 100) AS id}),
		'100',
		'live leases');
	is( $node->safe_psql('doomed', q{
			SELECT count(*) FILTER (WHERE le_renew(id, 'a'))
			  FROM generate_series(1, 100) AS id}),
		'100',
		'with heartbeats');
	is( $node->psql('postgres', 'DROP DATABASE doomed'),
		0, 'do not stand in the way of a drop');

	# heartbeats of old must not be taken for those of a new database
	$node->safe_psql('postgres', 'CREATE DATABASE doomed');
	$node->safe_psql('doomed', 'CREATE EXTENSION leader_election');
	is( $node->safe_psql('doomed', q{
			SELECT le_leader(1) IS NULL, le_renew(1, 'a'),
				   le_try_acquire(1, 'b', 300000)}),
		't|f|t',
		'a new database of that name knows nothing of them');
	my @sessions = contend('doomed');
	is($node->psql('postgres', 'DROP DATABASE doomed WITH (FORCE)'),
		0, 'dropped under load');
	foreach my $session (@sessions)
	{
		eval { $session->quit };
	}
	is( $node->safe_psql('postgres', q{
			SELECT le_try_acquire(1, 'x', 300000), le_renew(1, 'x')}),
		't|t',
		'elections go on elsewhere');
};

unlike(
	slurp_file($node->logfile),
	qr/PANIC|TRAP|terminated by signal/,
	'no process has crashed');
$node->stop;
done_testing();
