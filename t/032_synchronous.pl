# Where only a synchronous standby is ever promoted, it has every term that
# anybody was told of.  With promotion = synchronous the operator says so, and
# then a promotion is no more than a restart: whoever leads goes on, with his
# token, nothing is waited for, and a lock that nobody has is free at once.
#
# The word counts as it was given before the promotion.  What would break it is
# a leader that the standby has never heard of: a term whose commit has not been
# confirmed leads nobody, however often and by whomever it is asked for.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $long = 600_000;    # outlives the test
my $short = 2000;

# the locks
my ($kept, $silent, $absent, $brief, $released, $revoked, $held, $never) = 1 .. 8;

sub new_primary
{
	my ($name) = @_;
	my $primary = PostgreSQL::Test::Cluster->new($name);
	$primary->init(allows_streaming => 1);
	$primary->append_conf('postgresql.conf', q{
leader_election.promotion = synchronous
leader_election.promotion_grace = 1d
leader_election.sweep_interval = 1h
restart_after_crash = on
});
	$primary->start;
	$primary->safe_psql('postgres', q{
		CREATE EXTENSION leader_election;
		CREATE TABLE ledger (token bigint);});
	return $primary;
}

# A standby that every commit waits for from now on.
sub new_standby
{
	my ($primary, $name) = @_;
	my $standby = PostgreSQL::Test::Cluster->new($name);
	$primary->backup($name);
	$standby->init_from_backup($primary, $name, has_streaming => 1);
	$standby->start;
	$primary->append_conf('postgresql.conf', "synchronous_standby_names = '$name'");
	$primary->reload;
	$primary->poll_query_until('postgres',
		"SELECT sync_state = 'sync' FROM pg_stat_replication WHERE application_name = '$name'")
	  or die "$name did not become synchronous";
	# it is to be the next one that is asked to confirm nothing
	$standby->append_conf('postgresql.conf', "synchronous_standby_names = ''");
	$standby->reload;
	return $standby;
}

my $primary = new_primary('primary');
my $standby = new_standby($primary, 'standby');

is( $primary->safe_psql('postgres', qq{
		SELECT le_try_acquire($kept, 'a', $long), le_renew($kept, 'a');
		SELECT le_try_acquire($silent, 'a', $long), le_try_acquire($absent, 'a', $long);
		SELECT le_try_acquire($brief, 'a', $short);
		SELECT le_try_acquire($released, 'a', $long);
		SELECT le_release($released, 'a');
		SELECT le_try_acquire($revoked, 'a', $long);
		SELECT le_revoke($revoked, immediately => true);
		SELECT le_try_acquire($held, 'a', $short);
		SELECT le_release($held, 'a', hold_ms => $long);}),
	"t|t\nt|t\nt\nt\nt\nt\nt\nt\nt",
	'terms on the primary');
unlike($primary->safe_psql('postgres', 'SELECT warnings FROM le_info()'),
	qr/promotion/, 'nothing to say of promotions');
my $token = $primary->safe_psql('postgres', "SELECT le_token($kept, 'a')");
my $silent_token = $primary->safe_psql('postgres', "SELECT le_token($silent, 'a')");

subtest 'the synchronous standby is promoted' => sub {
	$primary->stop('immediate');
	$standby->promote;

	# the first call begins the epoch; no slow machine lets a grace run out
	is( $standby->safe_psql('postgres', qq{
			SELECT timeline, grace_remaining_ms FROM le_info();
			SELECT le_leader($kept), le_token($kept, 'a'), state
			  FROM leader_lease WHERE id = $kept;
			SELECT le_try_acquire($kept, 'b'), le_renew($kept, 'a', $token);
			SELECT leads, token FROM le_keep_alive($kept, 'a', $token)
			 CROSS JOIN leader_lease WHERE id = $kept;
			SELECT elected, token FROM le_campaign($silent, 'a', $long);
			SELECT le_try_acquire($brief, 'b');
			SELECT le_try_acquire($released, 'b', $long);
			SELECT le_try_acquire($never, 'b', $long);
			SELECT le_try_acquire($revoked, 'a'), le_try_acquire($revoked, 'b', $long);
			SELECT le_try_acquire($held, 'b', $long);}),
		"2|0\na|$token|restarted\nf|t\nt|$token\nt|$silent_token\nf\nt\nt\nf|t\nf",
		'who has led leads, others do not, and what is vacant is free at once');

	is( $standby->safe_psql('postgres', 'SELECT warnings[1] FROM le_info()'),
		'leader_election.promotion is synchronous, and no commit waits for a standby, see synchronous_standby_names',
		'there is no standby yet that could be promoted next');
	is( $standby->safe_psql('postgres', qq{
			BEGIN;
			SELECT le_guard($kept, 'a', $token);
			INSERT INTO ledger VALUES ($token);
			COMMIT;
			SELECT token FROM ledger;}),
		"$token\n$token",
		'its guarded transactions are committed');
	ok( $standby->poll_query_until('postgres', "SELECT le_try_acquire($brief, 'b', $long)"),
		'a short lease is replaced, unless it is renewed');
	is( $standby->safe_psql('postgres', qq{
			SELECT extract(epoch FROM created_at - epoch_start) * 1000
				   BETWEEN $short * 11 / 10 * 0.999 AND $long
			  FROM leader_lease, le_info() WHERE id = $brief}),
		't',
		'after its length');
};

subtest 'the word counts as it was at the start' => sub {
	$standby->append_conf('postgresql.conf',
		'leader_election.promotion = asynchronous');
	$standby->reload;
	ok( $standby->poll_query_until('postgres',
			q{SELECT current_setting('leader_election.promotion') = 'asynchronous'
			  FROM le_info()}),
		'it is taken back');
	is( $standby->safe_psql('postgres', qq{
			SELECT le_leader($kept), le_renew($kept, 'a', $token), le_leader($absent);
			SELECT warnings[1] FROM le_info()}),
		"a|t|a\nleader_election.promotion was synchronous when this server was started or promoted, and counts as that until it is again",
		'which changes nothing yet, and le_info says so');

	$standby->restart;
	is( $standby->safe_psql('postgres', qq{
			SELECT le_leader($kept) IS NULL, le_renew($kept, 'a', $token), state
			  FROM leader_lease WHERE id = $kept;
			SELECT le_leader($never), le_renew($never, 'b');}),
		"t|f|grace\nb|t",
		'after a restart the terms of the old timeline are over, those of this one not');
};
$standby->stop;

# In each of these ways the wait of a commit can be cut short.  The term is in
# the old primary's table; it is not on the standby.  If anybody were told now
# that he leads, there would be two after the promotion.
subtest 'a term that the standby has never heard of' => sub {
	my $old = new_primary('old');
	my $new = new_standby($old, 'new');
	my $walreceiver = $new->safe_psql('postgres', 'SELECT pid FROM pg_stat_wal_receiver');
	my %lock = (pg_cancel_backend => 11, pg_terminate_backend => 12, kill => 13);

	kill STOP => $walreceiver or die $!;
	foreach my $way (sort keys %lock)
	{
		my ($out, $err) = ('', '');
		my $client = IPC::Run::start(
			[
				'psql', '-XAtq', '-d',
				$old->connstr('postgres') . " application_name=$way", '-c',
				"SELECT le_try_acquire($lock{$way}, 'a', $long)"
			],
			'>', \$out, '2>', \$err,
			IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
		my $this = "application_name = '$way'";
		ok( $old->poll_query_until('postgres',
				"SELECT wait_event = 'SyncRep' FROM pg_stat_activity WHERE $this"),
			"$way: a commit waits");
		if ($way eq 'kill')
		{
			# the whole server restarts
			my $offset = -s $old->logfile;
			kill KILL => $old->safe_psql('postgres',
				"SELECT pid FROM pg_stat_activity WHERE $this")
			  or die $!;
			$old->wait_for_log(qr/ready to accept connections/, $offset);
		}
		else
		{
			$old->safe_psql('postgres', "SELECT $way(pid) FROM pg_stat_activity WHERE $this");
		}
		$client->finish;
		is($out, '', 'and nobody is told that he leads');
	}
	foreach my $lock (sort values %lock)
	{
		is($old->safe_psql('postgres', "SELECT le_leader($lock)"),
			'a', "lock $lock: the term is there");
		foreach my $call ("le_try_acquire($lock, 'a', $long)", "le_renew($lock, 'a')")
		{
			my ($rc, $out, $err) = $old->psql('postgres',
				"SET statement_timeout = '500ms'; SELECT $call",
				extra_params => [ '-v', 'VERBOSITY=sqlstate' ]);
			is($out, '', "$call is not told so, either");
		}
		my ($rc, $out) = $old->psql('postgres',
			"SELECT elected FROM le_campaign($lock, 'a', $long, 300)");
		isnt($out, 't', 'nor le_campaign');
	}

	# The old primary is isolated, and not stopped.  What is on the way to the
	# frozen process must not arrive.
	$new->append_conf('postgresql.conf', "primary_conninfo = ''");
	$new->reload;
	my $offset = -s $new->logfile;
	kill KILL => $walreceiver or die $!;
	$new->wait_for_log(qr/ready to accept read-only connections/, $offset);
	$new->promote;
	is( $new->safe_psql('postgres', join('; ',
				map { "SELECT le_try_acquire($_, 'b', $long)" } sort values %lock)),
		"t\nt\nt",
		'the new one elects another at once');
	foreach my $lock (sort values %lock)
	{
		my ($rc, $out) = $old->psql('postgres',
			"SET statement_timeout = '500ms'; SELECT le_renew($lock, 'a')");
		is($out, '', "lock $lock: on the old one nobody believes that he leads");
	}
	$new->stop;
	$old->stop('immediate');
};

done_testing();
