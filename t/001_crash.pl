# A crash loses every heartbeat.  The leader must survive it with its token,
# and nobody else may get in before one lease has passed since the server came
# back: the old leader may still be counting on a heartbeat that was forgotten.
use strict;
use warnings;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', 'restart_after_crash = on');
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION leader_election');

sub sql { return $node->safe_psql('postgres', $_[0]) }

# The epoch, and seconds from its start to the start of a lock's term
sub epoch { return sql('SELECT epoch FROM le_info()') }

sub waited
{
	return sql("SELECT extract(epoch FROM created_at - epoch_start)
		FROM leader_lease, le_info() WHERE id = $_[0]");
}

# What must hold after each kind of crash.  Lock 1 has a lease that is much
# longer than the outage, lock 2 one that was over before the server came back.
sub check_after_crash
{
	my ($what, $before) = @_;
	my $short = $before->{short_ms};

	# one statement, so that its first call, which begins the epoch, and its
	# last are within the short lease however slow the machine is
	is( sql("SELECT le_leader(1), le_leader(2),
		le_try_acquire(1, 'other', 600000), le_try_acquire(2, 'other', 600000)"),
		'long|short|f|f',
		"$what: both still lead, nobody else gets in");
	is( sql('SELECT state, renewals FROM leader_lease WHERE id = 1'),
		'grace|0',
		"$what: the lease is in its grace, and the heartbeats are lost");
	isnt(epoch(), $before->{epoch}, "$what: a new epoch has begun");
	is(sql("SELECT le_renew(1, 'long', $before->{long})"),
		't', "$what: the leader renews with its token");
	is( sql("SELECT state, renewals, le_token(1, 'long') = $before->{long}
		FROM leader_lease WHERE id = 1"),
		'live|1|t',
		"$what: it keeps its term");
	is(sql("SELECT le_release(3, 'released', $before->{released})"),
		'f', "$what: what was released stays released");
	is(sql('SELECT le_leader(3) IS NULL, le_leader(4) IS NULL'),
		't|t', "$what: so does what was never committed");
	is(sql("SELECT le_try_acquire(4, 'after', 600000)"),
		't', "$what: and it keeps nobody out");
	is(sql("SELECT le_release(4, 'after')"), 't', "$what: tidied up");

	# the silent leader's lock, one lease after the epoch's start
	ok( $node->poll_query_until('postgres', "SELECT le_try_acquire(2, 'next', $short)"),
		"$what: a challenger gets in at last");
	cmp_ok(waited(2), '>=', $short * 33 / 32 / 1000,
		"$what: but not before its grace");
	is( sql("SELECT token > $before->{short}, leader_id FROM leader_lease WHERE id = 2"),
		't|next',
		"$what: with a larger token");
	is(sql("SELECT le_renew(2, 'short', $before->{short})"),
		'f', "$what: and the late one is refused");
	return;
}

sub prepare
{
	my ($short_ms) = @_;

	sql("SELECT le_release(id, leader_id) FROM leader_lease");
	sql("SELECT le_sweep(0)");
	is(sql("SELECT le_try_acquire(1, 'long', 600000), le_renew(1, 'long')"),
		't|t', 'a leader with a long lease');
	is(sql("SELECT le_try_acquire(3, 'released', 600000)"),
		't', 'one that will be released');
	my %before = (
		short_ms => $short_ms,
		long => sql("SELECT le_token(1, 'long')"),
		released => sql("SELECT le_token(3, 'released')"),
		epoch => epoch());
	is(sql("SELECT le_release(3, 'released')"), 't', 'and is');
	is(sql("SELECT le_try_acquire(2, 'short', $short_ms)"),
		't', 'a leader with a short lease');
	$before{short} = sql("SELECT token FROM leader_lease WHERE id = 2");
	return \%before;
}

# An acquisition that is never committed
sub open_acquisition
{
	my ($in, $out) = ('', '');
	my $session = IPC::Run::start(
		[ 'psql', '-XqAt', '-d', $node->connstr('postgres') ],
		'<', \$in, '>', \$out, '2>', '/dev/null',
		IPC::Run::timeout(180));
	$in .= "SET leader_election.allow_in_transaction = on;\nBEGIN;\n"
	  . "SELECT le_try_acquire(4, 'open', 600000);\nSELECT pg_backend_pid();\n";
	$session->pump until $out =~ /^t\n(\d+)\n/m;
	return ($session, $out =~ /^t\n(\d+)\n/m);
}

# immediate stop; the short lease is over, in wall time, before the restart
{
	my $before = prepare(1000);
	my ($session) = open_acquisition();
	my $end = sql("SELECT extract(epoch FROM expires_at) FROM leader_lease WHERE id = 2");
	$node->stop('immediate');
	$session->finish;
	until (time > $end) { select(undef, undef, undef, 0.05) }
	$node->start;
	check_after_crash('immediate stop', $before);
}

# a backend is killed: the postmaster stays, the shared memory does not
{
	my $before = prepare(1000);
	my ($session, $pid) = open_acquisition();
	is(PostgreSQL::Test::Utils::system_log('pg_ctl', 'kill', 'KILL', $pid),
		0, 'killed a backend');
	$session->finish;
	ok($node->poll_query_until('postgres', 'SELECT true'), 'the server is back');
	check_after_crash('killed backend', $before);
}

# a restart in good order is no different
{
	my $before = prepare(1000);
	$node->restart;
	check_after_crash('restart', $before);
}

$node->stop;
done_testing();
