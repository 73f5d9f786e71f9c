# leaderctl run: hundreds of faults, in an order that a seed decides, and at no
# instant do two commands of one lock run, nor one past its deadline, nor after
# its term was given up.
#
# Many locks side by side, with two leaderctls each.  Their servers are a primary
# and a standby that is promoted and made anew, both in one connection string; a
# server behind a network of its own, two namespaces joined by a cable that is
# cut, both ways or one way; and one behind a pooler in transaction mode.
#
# LE_SEED repeats a schedule (what it hits is the machine's choice), LE_SECONDS
# is how long it takes.

use strict;
use warnings;

use File::Path qw(rmtree);
use FindBin;
use lib "$FindBin::RealBin/lib";
use Alive;
use List::Util qw(shuffle sum);
use POSIX qw(:sys_wait_h);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $seed = $ENV{LE_SEED} // int(rand(2**31));
my $seconds = $ENV{LE_SECONDS} // 60;
my $enough = 200;
srand($seed);
diag("LE_SEED=$seed");

# A machine that runs nobody for a tenth of this and 50 ms is no fault of ours.
my $lease = 2.5;
my @usual = ('--lease', "${lease}s", '--renew', '600ms', '--jitter', '150ms', '--kill-after', '250ms');
my @hows = ('', 'deaf', 'fork', 'daemon', 'exit', 'exit daemon', 'deaf daemon', 'deaf fork daemon close');

ok(Alive::build(), 'leaderctl builds') or BAIL_OUT('no leaderctl');
my $build = $Alive::build;
my $user = getpwuid($<);

# ---- Servers ----

my $settings = $Alive::server_settings . qq{
max_connections = 150
fsync = off
restart_after_crash = on
leader_election.promotion_grace = @{[ $lease * 1000 ]}ms
};

my $primary = PostgreSQL::Test::Cluster->new('one');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', $settings);
$primary->start;
$primary->safe_psql('postgres', 'CREATE EXTENSION leader_election');
$primary->backup('first');
my $standby = PostgreSQL::Test::Cluster->new('two');
$standby->init_from_backup($primary, 'first', has_streaming => 1);
$standby->start;
my @pair = ($primary, $standby);
my $both = sprintf('host=%s,%s port=%d,%d user=%s dbname=postgres', (map { $_->host } @pair), (map { $_->port } @pair), $user);

my $cut = PostgreSQL::Test::Cluster->new('cut');
$cut->init;
$cut->append_conf('postgresql.conf', $settings);
my $near = sprintf('host=%s port=%d user=%s dbname=postgres', $cut->host, $cut->port, $user);
my $far = sprintf('host=10.99.0.1 port=%d user=%s dbname=postgres', $cut->port, $user);

# The namespaces are kept by processes that sleep.
my @namespaces;

sub inside
{
	my ($which) = @_;
	return ('nsenter', '-t', $namespaces[$which], '-U', '-n', '--preserve-credentials');
}

# Run a command to its end; what went wrong goes to a file.
sub quietly
{
	return system("@_ >> $build/network 2>&1") == 0;
}

sub make_namespace
{
	my (@command) = @_;
	my $pid = Alive::spawn("$build/network", @command, 'sleep', '400');
	push @namespaces, $pid;
	my $ours = readlink("/proc/self/ns/net");
	foreach (1 .. 500)
	{
		usleep(10_000);
		return 0 if waitpid($pid, WNOHANG);
		open(my $in, '<', "/proc/$pid/comm") or next;
		return 1 if <$in> eq "sleep\n";
	}
	return 0;
}

sub make_network
{
	my $port = $cut->port;
	return make_namespace('unshare', '--user', '--map-root-user', '--net')
	  && make_namespace(inside(0), 'unshare', '--net')
	  && quietly(inside(0), "ip link add cable type veth peer name cable netns $namespaces[1]")
	  && quietly(inside(0), 'ip addr add 10.99.0.1/30 dev cable')
	  && quietly(inside(1), 'ip addr add 10.99.0.2/30 dev cable')
	  && quietly(inside(0), 'ip link set cable up')
	  && quietly(inside(1), 'ip link set cable up');
}

END
{
	local $?;
	kill 'KILL', $_ foreach @namespaces;
}

# The server's user there is who he is outside.
my $has_network = make_network();
if ($has_network)
{
	$cut->append_conf('postgresql.conf', "listen_addresses = '10.99.0.1'");
	$cut->append_conf('pg_hba.conf', 'host all all 10.99.0.0/30 trust');
	$has_network = quietly(inside(0), "unshare --user --map-user=$< --map-group=" . ($( + 0),
		'pg_ctl -w -D', $cut->data_dir, '-l', $cut->logfile, 'start');
	$cut->_update_pid($has_network);
}
if (!$has_network)
{
	diag('no network namespaces here, so no connection is cut: ' . slurp_file("$build/network"));
	$cut->start;
}
$cut->safe_psql('postgres', 'CREATE EXTENSION leader_election');

my $pgbouncer = '/usr/sbin/pgbouncer';
my $pooler;    # pid
my $pooler_port = PostgreSQL::Test::Cluster::get_free_port();
my $pooled = sprintf('host=%s port=%d user=%s dbname=postgres', $cut->host, $pooler_port, $user);

sub start_pooler
{
	$pooler = Alive::spawn("$build/pooler", $pgbouncer, "$build/pgbouncer.ini");
	return;
}

if (-x $pgbouncer)
{
	append_to_file("$build/users", qq{"$user" ""\n});
	append_to_file("$build/pgbouncer.ini", qq{
[databases]
postgres = host=@{[ $cut->host ]} port=@{[ $cut->port ]}
[pgbouncer]
unix_socket_dir = @{[ $cut->host ]}
listen_port = $pooler_port
auth_type = trust
auth_file = $build/users
pool_mode = transaction
default_pool_size = 30
server_round_robin = 1
});
	start_pooler();
}
else
{
	diag('no pooler: pgbouncer is not installed');
}

END
{
	local $?;
	kill 'KILL', $pooler if $pooler;
}

# ---- Locks and their leaderctls ----

my (@locks, %faults, @asked, @failures, %excused);
my $generation = 0;

sub start
{
	my ($lock, $place) = @_;
	my $side = $lock->{sides}[$place];
	my $self = Alive->new(
		name => sprintf('%s%d%s%d', $lock->{server}, $lock->{id}, $place ? 'b' : 'a', ++$generation),
		lock => $lock->{id},
		how => $hows[ rand @hows ],
		around => $side->{around} // [],
		options => [ '-d', $side->{connstr}, @usual, @{ $side->{options} // [] } ]);
	$lock->{members}[$place] = $self;
	push @{ $lock->{all} }, $self;
	return $self;
}

sub add_locks
{
	my ($number, $server, @sides) = @_;
	foreach (1 .. $number)
	{
		my $lock = { id => 100 + @locks, server => $server, sides => \@sides, all => [], undo => [] };
		push @locks, $lock;
		start($lock, $_) foreach (0, 1);
		settle($lock);
	}
	return;
}

# Wait until somebody leads; with a command that has begun after that time.
sub settle
{
	my ($lock, $anew) = @_;
	$lock->{settles} = Alive::now();
	$lock->{anew} = $anew // 0;
	$lock->{strikes} = undef;
	return;
}

add_locks(18, 'pair', { connstr => $both }, { connstr => $both });
add_locks(
	6, 'cut',
	{ connstr => $far, around => [ inside(1) ], options => [ '--priority', 5 ] },
	{ connstr => $near, options => ['--yield'] }) if $has_network;
add_locks(5, 'pool', { connstr => $pooled }, { connstr => $pooled }) if $pooler;

sub count
{
	my ($kind) = @_;
	$faults{$kind}++;
	return;
}

# Ask a lock's server, without waiting; it counts if the answer is "t".
sub ask
{
	my ($kind, $lock, $sql) = @_;
	my $file = "$build/asked" . @asked;
	my $connstr = $lock->{server} eq 'pair' ? "$both target_session_attrs=read-write" : $near;
	push @asked, { kind => $kind, file => $file };
	Alive::spawn($file, 'psql', '-XAtq', '-d', $connstr, '-c', $sql);
	return;
}

# What is to be done to a lock at another time
sub later
{
	my ($lock, $after, $what) = @_;
	push @{ $lock->{undo} }, [ Alive::now() + $after, $what ];
	return;
}

# What is done to the leader, or to the other one.  Who is about to end what a
# dead keeper has left is not killed: that is where the promise ends.
my %strike = (
	'kill leaderctl' => sub {
		my ($lock, $leader) = @_;
		$leader->signal('KILL');
	},
	'kill keeper' => sub {
		my ($lock, $leader, $other, $keeper, $seen) = @_;
		kill 'KILL', $keeper;
		# until leaderctl has seen it nothing else must happen to that; it may have
		# gone by itself by now, and the next command have begun
		settle($lock, $seen);
	},
	'stop leaderctl' => sub {
		my ($lock, $leader) = @_;
		$leader->signal('STOP');
		later($lock, $lease * (0.2 + rand(1.5)), sub { $leader->signal('CONT') });
	},
	'stop keeper' => sub {
		my ($lock, $leader, $other, $keeper) = @_;
		kill 'STOP', $keeper;
		later($lock, $lease * (0.5 + rand(1)), sub { kill 'CONT', $keeper if $leader->is_ours($keeper) });
	},
	'stop keeper, then term' => sub {
		my ($lock, $leader, $other, $keeper) = @_;
		kill 'STOP', $keeper;
		$leader->signal('TERM');
		later($lock, $lease * 1.2, sub { kill 'CONT', $keeper if $leader->is_ours($keeper) });
	},
	'stop keeper, then kill leaderctl' => sub {
		my ($lock, $leader, $other, $keeper) = @_;
		kill 'STOP', $keeper;
		$leader->signal('KILL');
	},
	'stop both' => sub {
		my ($lock, $leader, $other, $keeper) = @_;
		$leader->signal('STOP');
		kill 'STOP', $keeper;
		# nobody is there to end it in time
		my $token = $leader->newest->{token};
		later($lock, $lease * (1.2 + rand(0.5)), sub {
			$excused{$token} = Alive::now();
			$leader->signal('CONT');
			kill 'CONT', $keeper if $leader->is_ours($keeper);
		});
	},
	'term' => sub {
		my ($lock, $leader) = @_;
		$leader->signal('TERM');
	},
	'kill who waits' => sub {
		my ($lock, $leader, $other) = @_;
		$other->signal('KILL');
	},
	'stop who waits' => sub {
		my ($lock, $leader, $other) = @_;
		$other->signal('STOP');
		# handed over to one that is frozen
		$leader->signal('TERM') if rand() < 0.7;
		later($lock, $lease * (0.2 + rand(1.5)), sub { $other->signal('CONT') });
	},
	'term both' => sub {
		my ($lock, $leader, $other) = @_;
		$_->signal('TERM') foreach ($leader, $other);
	},
	'terminate backend' => sub {
		my ($lock, $leader) = @_;
		ask('terminate backend', $lock,
			"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '$leader->{name}'");
	},
	'resign' => sub {
		my ($lock) = @_;
		ask('resign', $lock, "SELECT le_request_resign($lock->{id})");
	},
	'revoke' => sub {
		my ($lock) = @_;
		ask('revoke', $lock, "SELECT le_revoke($lock->{id})");
	});
my %counted_when_answered = map { $_ => 1 } ('terminate backend', 'resign', 'revoke');
my @deck;

sub strike
{
	my ($lock, $leader, $other) = @_;
	my $seen = Alive::now();
	my $keeper = $leader->keeper;
	@deck = shuffle(sort keys %strike) unless @deck;
	# a command that exits at once has no keeper to be hit
	my ($i) = grep { $keeper || $deck[$_] !~ /keeper|both$/ } 0 .. $#deck;
	return unless defined $i && $leader->is_kept && $other->is_kept;
	my ($kind) = splice(@deck, $i, 1);
	note(sprintf('%.3f %s: %s', Alive::now(), $kind, $leader->{name}));
	settle($lock);
	$strike{$kind}->($lock, $leader, $other, $keeper, $seen);
	count($kind) unless $counted_when_answered{$kind};
	return;
}

# May it have exited so?
sub is_fair
{
	my ($self, $status) = @_;
	my $said = $self->said;
	return 1 if $status == 0 || $status == 137;

	# told to stop before it has done anything
	return 1 if $status == 143 && $said eq '';

	# it lost the server while it looked whether all is there, or when told to
	# stop twice it could not give the lock back
	return $status == 1 && ($said !~ /leads lock/ || $said =~ /leaves lock/);
}

# One look at a lock
sub look_at
{
	my ($lock, $may_strike) = @_;
	my $now = Alive::now();

	foreach my $due (grep { $_->[0] <= $now } @{ $lock->{undo} })
	{
		note(sprintf('%.3f goes on: lock %d', Alive::now(), $lock->{id}));
		$due->[1]->();
	}
	my @left = grep { $_->[0] > $now } @{ $lock->{undo} };
	settle($lock, $lock->{anew}) if @left < @{ $lock->{undo} };
	$lock->{undo} = \@left;

	foreach my $place (0, 1)
	{
		my $self = $lock->{members}[$place];
		my $status = $self->status;
		next unless defined $status;
		push @failures, "$self->{name} has exited with status $status: " . $self->said unless is_fair($self, $status);
		start($lock, $place);
	}
	return if @left;
	if (!$lock->{strikes})
	{
		my ($leader) = grep { $_->works_since($lock->{settles}) && $_->newest->{first} > $lock->{anew} } @{ $lock->{members} };
		if (!$leader)
		{
			push @failures, "nobody leads lock $lock->{id}: "
			  . join('', map { "$_->{name}:\n" . $_->said . join('', $_->processes) } @{ $lock->{members} })
			  if $now - $lock->{settles} > $Alive::limit;
			return;
		}
		$lock->{strikes} = $now + 0.1 + rand(0.3);
	}
	elsif ($may_strike && $now >= $lock->{strikes})
	{
		my $since = $now - 0.1;
		my ($leader) = grep { $_->works_since($since) } @{ $lock->{members} };
		return settle($lock) unless $leader;
		strike($lock, $leader, (grep { $_ != $leader } @{ $lock->{members} })[0]);
	}
	return;
}

# ---- Faults of servers, the network, the pooler ----

# Each a list of steps, [seconds after the one before, what to do]; a step may
# return 0: again a little later.  Only of what is there, or it would never end.
my %agenda = (pair => [ [ 4, sub { 1 } ] ]);
$agenda{cut} = [ [ 4, sub { 1 } ] ] if $has_network;
$agenda{pool} = [ [ 3, sub { 1 } ] ] if $pooler;
my $basebackup;
my @server_deck;

sub make_standby
{
	rmtree($standby->data_dir);
	$basebackup = Alive::spawn("$build/basebackup", 'pg_basebackup', '-R', '-c', 'fast', '-X', 'stream',
		'-D', $standby->data_dir, '-d', sprintf('host=%s port=%d user=%s', $primary->host, $primary->port, $user));
	return 1;
}

sub start_standby
{
	return 0 unless waitpid($basebackup, WNOHANG);
	BAIL_OUT('no standby: ' . slurp_file("$build/basebackup")) if $?;
	$standby->append_conf('postgresql.conf', 'port = ' . $standby->port);
	$standby->start;
	return 1;
}

my %server_fault = (
	'immediate stop' => sub {
		return ([ 0, sub { $primary->stop('immediate') } ], [ rand(1.5), sub { $primary->start } ]);
	},
	'restart' => sub {
		return ([ 0, sub { $primary->stop('fast') } ], [ rand(0.5), sub { $primary->start } ]);
	},
	'crash' => sub {
		return ([ 0, sub {
			my ($pid) = split /\n/, $primary->safe_psql('postgres',
				q{SELECT pid FROM pg_stat_activity WHERE application_name ~ '^pair' ORDER BY random()});
			kill 'KILL', $pid;
		} ]);
	},
	'promotion' => sub {
		return ([ 0, sub {
			$primary->stop('immediate');
			$standby->promote;
			($primary, $standby) = ($standby, $primary);
		} ], [ 0, \&make_standby ], [ 0.1, \&start_standby ]);
	});

sub next_pair
{
	@server_deck = shuffle(sort(keys %server_fault), 'promotion') unless @server_deck;
	my $kind = shift @server_deck;
	note(sprintf('%.3f %s', Alive::now(), $kind));
	count($kind);
	return $server_fault{$kind}->();
}

my @cuts = (
	[ 'cut both ways', 0, 'ip link set cable down', 'ip link set cable up' ],
	[ 'cut the replies', 0, 'ip neigh replace 10.99.0.2 lladdr 02:00:00:00:00:99 dev cable nud permanent', 'ip neigh del 10.99.0.2 dev cable' ],
	[ 'cut the requests', 1, 'ip neigh replace 10.99.0.1 lladdr 02:00:00:00:00:99 dev cable nud permanent', 'ip neigh del 10.99.0.1 dev cable' ]);

sub next_cut
{
	my $cut = shift @cuts;
	push @cuts, $cut;
	my ($kind, $side, $do, $undo) = @{$cut};
	note(sprintf('%.3f %s', Alive::now(), $kind));
	count($kind);
	return ([ 0, sub { quietly(inside($side), $do) or die "$do" } ],
		[ $lease * (0.5 + rand(1.2)), sub { quietly(inside($side), $undo) or die "$undo" } ]);
}

sub next_pool
{
	note(sprintf('%.3f pooler restart', Alive::now()));
	count('pooler restart');
	# from its 1.23 on SIGTERM takes nobody on and waits for all that are there to go
	return ([ 0, sub { kill rand() < 0.5 ? 'KILL' : 'TERM', $pooler } ],
		[ 0.3, sub { kill 'KILL', $pooler; 1 } ],
		[ 0.1, sub { return 0 unless waitpid($pooler, WNOHANG); $pooler = undef; return 1 } ],
		[ rand(1), sub { start_pooler(); 1 } ]);
}

sub turn_agenda
{
	my ($who, $next, $pause, $may_strike) = @_;
	my $agenda = $agenda{$who};
	my $now = Alive::now();
	$agenda->[0][2] //= $now + $agenda->[0][0] if @{$agenda};
	if (@{$agenda} && $now >= $agenda->[0][2])
	{
		my $done = $agenda->[0][1]->();
		if (defined $done && $done eq '0') { $agenda->[0][2] = $now + 0.1 }
		else { shift @{$agenda} }
	}
	push @{$agenda}, $next->(), [ $pause + rand(2), sub { 1 } ] if !@{$agenda} && $may_strike;
	return;
}

# ---- The torture ----

my $began = Alive::now();
my $is_over = 0;
for (;;)
{
	my $now = Alive::now();
	my $struck = sum(0, values %faults);
	$is_over ||= $now > $began + $seconds && $struck >= $enough;
	turn_agenda('pair', \&next_pair, 5, !$is_over);
	turn_agenda('cut', \&next_cut, 4, !$is_over) if $agenda{cut};
	turn_agenda('pool', \&next_pool, 4, !$is_over) if $agenda{pool};
	look_at($_, !$is_over) foreach @locks;
	last if @failures;
	last if $is_over && !grep({ @{$_} } values %agenda) && !grep { @{ $_->{undo} } || !$_->{strikes} } @locks;
	usleep(20_000);
}
is(join("\n", @failures), '', 'each lock has a leader again after each fault') or BAIL_OUT('not so');

foreach my $self (map { @{ $_->{members} } } @locks) { $self->signal('TERM') }
foreach my $self (map { @{ $_->{members} } } @locks)
{
	$self->is_over(0, 'ends when it is told to') or BAIL_OUT('it does not');
}
Alive::all_gone(map { @{ $_->{all} } } @locks);

foreach my $asked (@asked)
{
	count($asked->{kind}) if -e $asked->{file} && slurp_file($asked->{file}) =~ /^t$/m;
}
my $calls = Alive::calls(map { $_->logfile } ($primary, $standby, $cut));
my ($terms, @wrong) = (0);
foreach my $lock (@locks)
{
	my ($wrong, $number) = Alive::judge($calls, $lease, \%excused, @{ $lock->{all} });
	push @wrong, @{$wrong};
	$terms += $number;
}
is(join("\n", @wrong), '', 'never two at once, none past its deadline, none after its term was given up');
is(join("\n", Alive::judge_woken(\%excused, map { @{ $_->{all} } } @locks)),
	'', 'frozen together with its keeper: gone at once when they wake');
my $struck = sum(values %faults);
cmp_ok($struck, '>=', $enough, "$struck faults");
diag(sprintf('%d faults in %d s, %d terms of %d locks: %s', $struck, Alive::now() - $began, $terms, scalar @locks,
	join(', ', map { "$_ $faults{$_}" } sort keys %faults)));
done_testing();
