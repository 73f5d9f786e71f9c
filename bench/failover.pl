#!/usr/bin/perl
# The measurements of bench/failover, which calls it:
#
#   failover.pl WORK BIN ROUNDS [namespaces]
#
# With "namespaces" it is root in a user and a network namespace.  All times are
# milliseconds of CLOCK_MONOTONIC_RAW.
use strict;
use warnings;
use Time::HiRes qw(usleep);

use constant { CLOCK_REALTIME => 0, CLOCK_MONOTONIC_RAW => 4 };
use constant { LEASE => 2000, RENEW => 500, LIMIT => 30_000 };
use constant { DEAF => -1, AT_ONCE => 0, SLOW => 300 };    # what a command does at SIGTERM
use constant { HERE => '10.99.0.1', THERE => '10.99.0.2' };

my ($work, $bin, $rounds, $namespaces) = @ARGV;
my $there;             # a process in the other network namespace
my $server_runs = 0;
my $lock = 0;          # another one each round
my @started;
my $missed = 0;

sub now { return 1e3 * Time::HiRes::clock_gettime(CLOCK_MONOTONIC_RAW) }

sub await
{
	my ($what, $condition) = @_;
	my $until = now() + LIMIT;
	my $result;
	until ($result = $condition->())
	{
		die "waited in vain for $what\n" if now() > $until;
		usleep(1000);
	}
	return $result;
}

# A process that dies with us
sub spawn
{
	my ($errors, @command) = @_;
	my $pid = fork() // die "fork: $!";
	if (!$pid)
	{
		open(STDIN, '<', '/dev/null') or die;
		open(STDERR, '>>', $errors) or die "$errors: $!";
		exec('setpriv', '--pdeathsig', 'KILL', @command) or die "setpriv: $!";
	}
	push @started, $pid;
	return $pid;
}

sub run
{
	my @command = @_;
	system(@command) == 0 or die "failed: @command\n";
	return;
}

sub sql
{
	my ($query) = @_;
	my $answer = `$bin/psql -XAtq -h $work -p 5432 -U postgres -d postgres -c "$query"`;
	die "failed: $query\n" if $?;
	chomp $answer;
	return $answer;
}

# ---- The set-up ----

sub make_network
{
	run(qw(ip link add le0 type veth peer name le1));
	$there = spawn("$work/errors", qw(unshare --net sleep infinity));
	my $ours = readlink('/proc/self/ns/net');
	await('a network namespace', sub { (readlink("/proc/$there/ns/net") // $ours) ne $ours });
	run('ip', 'link', 'set', 'le1', 'netns', $there);
	run('ip', 'address', 'add', HERE . '/24', 'dev', 'le0');
	run(qw(ip link set le0 up));
	run(over_there('ip', 'address', 'add', THERE . '/24', 'dev', 'le1'));
	run(over_there(qw(ip link set le1 up)));
	return;
}

sub over_there { return ('nsenter', "--net=/proc/$there/ns/net", @_) }

# A server does not run as root, not even as that of a namespace.
sub pg_ctl
{
	my @arguments = @_;
	run(($namespaces ? qw(unshare --user --map-user=1 --map-group=1) : ()),
		"$bin/pg_ctl", '-D', "$work/cluster", '-w', '-s', '-l', "$work/cluster.log", @arguments);
	return;
}

sub start_server
{
	my $addresses = $namespaces ? HERE : '';
	pg_ctl('-o', "-p 5432 -c listen_addresses='$addresses' -c unix_socket_directories='$work'", 'start');
	$server_runs = 1;
	sql('CREATE EXTENSION leader_election');
	return;
}

# ---- Contenders ----

sub start
{
	my ($name, $ends_ms, $is_there) = @_;
	my $self = { log => "$work/$name-$lock" };
	my @command = ("$work/src/leaderctl/leaderctl", 'run', '-h', $is_there ? HERE : $work, '-p', 5432, '-U', 'postgres',
		'-d', 'postgres', '--lock', $lock, '--instance', $name, '--lease', LEASE . 'ms', '--renew', RENEW . 'ms',
		'--jitter', '100ms', '--quiet', '--', "$work/command", $self->{log}, 0, $ends_ms);
	$self->{pid} = spawn("$work/errors", $is_there ? over_there(@command) : @command);
	return $self;
}

# When the command has written a line of this kind, first and last; in ms
sub times_of
{
	my ($self, $kind) = @_;
	open(my $in, '<', $self->{log}) or return;
	my @times = map { /^$kind (\d+) .*\n/ ? $1 / 1000 : () } <$in>;
	return @times[ 0, -1 ] if @times;
	return;
}

sub begun
{
	my ($self) = @_;
	return (await('a command', sub { [ times_of($self, 'L') ]->[0] }));
}

sub end
{
	my ($self, $signal) = @_;
	kill $signal, $self->{pid};
	waitpid($self->{pid}, 0);
	return;
}

# One leads, another one waits, at any time between two heartbeats.
sub set_up
{
	my ($ends_ms, $is_there) = @_;
	$lock++;
	my $leader = start('leader', $ends_ms, $is_there);
	begun($leader);
	my $next = start('next', AT_ONCE);
	await('one that waits', sub { sql("SELECT count(*) FROM leader_waiting WHERE lock_id = $lock") eq '1' });
	usleep(1000 * (2 * RENEW + rand RENEW));
	return ($leader, $next);
}

# ---- Measuring ----

sub show
{
	my ($what, $target, @ms) = @_;
	@ms = sort { $a <=> $b } @ms;
	my $ok = $ms[-1] <= $target;
	$missed++ unless $ok;
	printf "%-58s %4d %8.1f %8.1f %8.1f %7d %s\n", $what, scalar @ms, $ms[ $#ms / 2 ], $ms[ $#ms * 0.99 ], $ms[-1],
	  $target, $ok ? '' : 'MISSED';
	return;
}

sub show_least
{
	my ($what, @ms) = @_;
	my ($least) = sort { $a <=> $b } @ms;
	$missed++ if $least <= 0;
	printf "%-58s %4d %35.1f %s\n", $what, scalar @ms, $least, $least > 0 ? '> 0' : '> 0 MISSED';
	return;
}

# The leader is silent from some moment on, which $silence brings about.
sub measure_silence
{
	my ($what, $is_there, $silence, $undo) = @_;
	my (@total, @after_end, @before_deadline, @apart);

	foreach (1 .. $rounds)
	{
		my ($leader, $next) = set_up(DEAF, $is_there);
		my $from = now();
		$silence->($leader);

		# no heartbeat comes any more, so these stay; wall time
		my ($renewed, $end) = map { 1e3 * $_ - 1e3 * Time::HiRes::clock_gettime(CLOCK_REALTIME) + now() }
		  split /\|/,
		  sql("SELECT extract(epoch FROM renewed_at), extract(epoch FROM expires_at) FROM leader_lease WHERE id = $lock");
		my $successor = begun($next);
		my $last = (times_of($leader, 'H'))[1];
		push @total, $successor - $from;
		push @after_end, $successor - $end;
		push @before_deadline, $renewed + LEASE - $last;
		push @apart, $successor - $last;
		end($leader, 'KILL');
		end($next, 'TERM');
		$undo->();
	}
	show("$what -> next command runs", 1.1 * LEASE + 50, @total);
	show('    after the lease and a tenth of it', 50, @after_end);
	show_least('    old command gone before its deadline, least', @before_deadline);
	show_least('    old command gone before the next one runs, least', @apart);
	return;
}

sub measure_term
{
	my ($what, $ends_ms) = @_;
	my $first = $lock + 1;
	my @found;

	foreach (1 .. $rounds)
	{
		my ($leader, $next) = set_up($ends_ms);
		kill 'TERM', $leader->{pid};
		my $successor = begun($next);
		push @found, $successor - (times_of($leader, 'Q'))[1];
		waitpid($leader->{pid}, 0);
		end($next, 'TERM');
	}
	show("SIGTERM, $what: its exit -> next one runs", 20, @found);
	my ($handed_over, $leaderless) = split /\|/,
	  sql("SELECT sum(transferred), extract(epoch FROM max(leaderless_longest)) * 1000
		FROM leader_stat WHERE lock_id BETWEEN $first AND $lock");
	die "only $handed_over of $rounds were handed over\n" if $handed_over != $rounds;

	# the two times are read one after the other in the transaction that hands over
	show("    without a leader, by leader_stat", 0, $leaderless);
	return;
}

sub load
{
	open(my $in, '<', '/proc/loadavg') or die $!;
	return join ' ', (split ' ', <$in>)[ 0 .. 2 ];
}

END
{
	my $status = $?;
	kill 'KILL', $_ foreach @started;
	eval { pg_ctl('-m', 'immediate', 'stop') } if $server_runs;
	$? = $status;
}
$SIG{$_} = sub { exit 1 } foreach qw(INT TERM);

make_network() if $namespaces;
start_server();
chomp(my $processors = `nproc`);
printf "lease %d ms, renewed every %d ms, %d processors, load %s\n", LEASE, RENEW, $processors, load();
printf "%-58s %4s %8s %8s %8s %7s\n", 'milliseconds', 'n', 'median', '99%', 'max', 'target';
measure_silence('kill -9', 0, sub { end($_[0], 'KILL') }, sub { });
measure_term('command ends at once', AT_ONCE);
measure_term('command takes 300 ms', SLOW);
if ($namespaces)
{
	measure_silence('network cut', 1, sub { run(qw(ip link set le0 down)) }, sub { run(qw(ip link set le0 up)) });
}
else { print "network cut: not measured, as network namespaces cannot be had here\n" }
printf "load at the end %s\n", load();
print $missed ? "targets missed: $missed\n" : "all targets met\n";
exit($missed ? 1 : 0);
