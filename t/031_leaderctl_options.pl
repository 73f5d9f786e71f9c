# What leaderctl run does besides leading and keeping: it hands over to a larger
# priority, when its work is ill and when its term is long enough; tells a file,
# systemd and its command who leads; finds the server that answers among
# several; gives up when it shall.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use IO::Select;
use IO::Socket::UNIX;
use JSON::PP;
use Leaderctl;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Proxy;
use Session;
use Socket qw(SOCK_DGRAM SOCK_STREAM);
use Test::More;

Leaderctl::build();

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->start;
$node->safe_psql('postgres', 'CREATE SCHEMA election; CREATE EXTENSION leader_election SCHEMA election');
my $connstr = $node->connstr('postgres');
my @timing = ('--lease', '2s', '--renew', '400ms', '--jitter', '100ms', '--kill-after', '1s');

sub sql { my ($sql) = @_; return $node->safe_psql('postgres', "SET search_path = election; $sql") }

# leaderctl run for this lock; without a command of one's own: it sleeps
sub lead
{
	my ($name, $lock, $options, @command) = @_;
	@command = ('sleep', '1000') unless @command;
	return Leaderctl->start($name, 'run', '-d', $connstr, '-l', $lock, @timing, @{$options}, '--', @command);
}

subtest 'a larger priority' => sub {
	my $polite = lead('polite', 1, ['--yield']);
	my $stays = lead('stays', 2, []);
	$_->says(qr/leads lock/) foreach ($polite, $stays);
	my $equal = lead('equal', 1, []);
	ok( Leaderctl::met(sub { sql('SELECT count(*) FROM leader_waiting WHERE lock_id = 1') == 1 }),
		'somebody waits with the same priority');
	my $beats = sql('SELECT renewals FROM leader_lease WHERE id = 1');
	ok( Leaderctl::met(sub { (sql('SELECT max(renewals) FROM leader_lease WHERE id = 1') || 0) > $beats + 2 }),
		'which is no reason to go');
	my @larger = map { lead("larger$_", $_, [ '--priority', 5 ]) } (1, 2);
	$larger[0]->says(qr/leads lock/);
	$polite->says(qr/ends the command: a larger priority waits\n.*\n.*has handed lock 1 over/);
	ok( Leaderctl::met(sub { sql('SELECT count(*) FROM leader_waiting WHERE lock_id = 2 AND priority = 5') == 1 }),
		'a larger priority waits for the other, too');
	$beats = sql('SELECT renewals FROM leader_lease WHERE id = 2');
	ok(Leaderctl::met(sub { sql('SELECT max(renewals) FROM leader_lease WHERE id = 2') > $beats + 2 }), 'and waits on');
	unlike($stays->said, qr/ends the command/, 'as nobody has told that one to yield');
	is($_->stop, 0, "$_->{name} stops") foreach ($polite, $equal, @larger, $stays);
	is(sql('SELECT count(*) FROM leader_lease'), 0, 'and nobody leads');
};

subtest 'health' => sub {
	my ($sick, $checks, $slow) = map { Leaderctl::path($_) } qw(sick checks slow);
	my $check = "echo \$LEADER_TOKEN >> $checks; test ! -e $slow || exec sleep 1000; test ! -e $sick";
	my $leader = lead('healthy', 3, [ '--health', $check, '--health-every', '1s', '--health-failures', '3',
			'--sit-out', '1500ms' ]);
	my $count = sub { -e $checks ? scalar(() = slurp_file($checks) =~ /^\d+$/mg) : 0 };
	ok(Leaderctl::met(sub { $count->() >= 3 }), 'it is looked at');
	unlike($leader->said, qr/failed|ends/, 'is well');
	my ($token) = slurp_file($checks) =~ /^(\d+)/;
	is($token, sql('SELECT token FROM leader_lease WHERE id = 3'), 'and the check knows the term');

	append_to_file($sick, '');
	$leader->says(qr/check has failed, 1 of 3: status 1/);
	unlink $sick;
	my $was = $count->();
	ok(Leaderctl::met(sub { $count->() >= $was + 4 }), 'goes on after one failure');
	my @failed = $leader->said =~ /check has failed, (\d)/g;
	cmp_ok(scalar(@failed), '<', 3, 'and is well again');

	append_to_file($sick, '');
	$leader->says(qr/check has failed, 3 of 3: status 1\n.*ends the command: it does not work/);
	is(scalar(() = $leader->said =~ /check has failed, 1 of 3/g), 2, 'counted from the last one that was well');
	$leader->says(qr/has released lock 3/);
	unlink $sick;
	$leader->says(qr/leads lock 3/, 'leads again', 2);
	is( sql(q{SELECT l.created_at - h.ended >= '1500 ms' AND h.ended_how = 'released'
			  FROM leader_lease l JOIN leader_history h ON lock_id = id WHERE id = 3}),
		't', 'not before it has sat out');
	$was = $count->();
	ok(Leaderctl::met(sub { $count->() > $was }), 'is looked at again');
	append_to_file($slow, '');
	$leader->says(qr/check has failed, 1 of 3: ended by signal/, 'a check that hangs has failed', 1);
	is($leader->stop, 0, 'stops');
	is(Leaderctl::processes("test ! -e $slow"), 0, 'and leaves no check behind');
	unlink $slow;

	my $checked = Leaderctl::path('checked');
	my $out = `printf 'a\nb\n' | @{[ Leaderctl::path('leaderctl') ]} run -q -d "$connstr" -l 3 --once --health 'read x; touch $checked' -- sh -c 'until test -e $checked; do sleep 0.05; done; cat'`;
	is($out, "a\nb\n", 'and a check reads nothing of what is for the command');
};

subtest 'a term that is long enough' => sub {
	my $leader = lead('long', 4, [ '--max-term', '1s' ]);
	$leader->says(qr/leads lock 4, .*\n.*ends the command: its term has been long enough/);
	$leader->says(qr/leads lock 4/, 'leads again, alone', 2);
	is($leader->stop, 0, 'stops');
};

# The file as it is now, which is never half a file
sub state_in
{
	my ($file) = @_;
	return -e $file ? decode_json(slurp_file($file)) : {};
}

subtest 'a status file' => sub {
	my @files = map { Leaderctl::path("status$_") } (0, 1);
	my ($status, undef, $err) = Leaderctl::run('run', '-d', $connstr, '-l', 5,
		'--status-file', '/nowhere/file', '--', 'touch', Leaderctl::path('touched'));
	is($status, 2, 'one that cannot be written');
	like($err, qr{could not write --status-file "/nowhere/file": No such file}, 'is named');
	ok(!-e Leaderctl::path('touched'), 'and nothing is started');

	my $leader = lead('filed', 5, [ '--status-file', $files[0], '--instance', 'a "b"' ]);
	ok(Leaderctl::met(sub { state_in($files[0])->{leads} }), 'it leads');
	my $state = state_in($files[0]);
	like($state->{instance}, qr/^a "b":/, 'knows its name');
	is($state->{leader}, $state->{instance}, 'as the leader');
	is($state->{token}, sql('SELECT token FROM leader_lease WHERE id = 5'), 'in this term');
	is( sql("SELECT '$state->{since}' BETWEEN created_at - interval '1 ms' AND now()
			 AND '$state->{until}' BETWEEN created_at + interval '1 s' AND expires_at FROM leader_lease WHERE id = 5"), 't', 'since, until');
	ok(Leaderctl::met(sub { state_in($files[0])->{until} gt $state->{until} }), 'and longer');

	my $follower = lead('follows', 5, [ '--status-file', $files[1] ]);
	ok(Leaderctl::met(sub { (state_in($files[1])->{leader} // '') eq $state->{instance} }), 'another one knows who leads');
	$state = state_in($files[1]);
	ok(!$state->{leads} && !defined $state->{token} && defined $state->{until}, 'and that it does not');
	$leader->signal('KILL');
	$leader->status;
	ok(Leaderctl::met(sub { state_in($files[1])->{leads} }), 'leads when that one is dead');
	$state = state_in($files[0]);
	is(sql("SELECT '$state->{until}' < created_at FROM leader_lease WHERE id = 5"), 't', 'and has said until when');
	is($follower->stop, 0, 'stops');
	ok(!-e $files[1], 'takes its file away');
	is_deeply([ grep { !/\.(err|out)$/ } glob("$files[1]*") ], [], 'and leaves none behind');
};

subtest 'systemd' => sub {
	foreach my $name (PostgreSQL::Test::Utils::tempdir_short() . '/notify', "\0leaderctl-test-$$")
	{
		my $socket = IO::Socket::UNIX->new(Type => SOCK_DGRAM, Local => $name) or die "socket: $!";
		my $next = sub {
			my $text = '';
			ok(IO::Select->new($socket)->can_read($PostgreSQL::Test::Utils::timeout_default), 'a datagram comes');
			$socket->recv($text, 1000);
			return $text;
		};
		my $other = lead('other', 6, []);
		$other->says(qr/leads/);
		local $ENV{NOTIFY_SOCKET} = $name =~ s/^\0/@/r;
		my $leader = lead('unit', 6, [], 'sh', '-c', 'echo "socket <$NOTIFY_SOCKET>"; exec sleep 1000');
		like($next->(), qr/\AREADY=1\nSTATUS=waits for lock 6, which \S+:[0-9a-f]{12} leads\z/, 'is ready when it waits');
		is($other->stop, 0, 'the other goes');
		like($next->(), qr/\AREADY=1\nSTATUS=leads lock 6, token \d+\z/, 'leads');
		ok(Leaderctl::met(sub { slurp_file($leader->{out}) eq "socket <>\n" }), 'its command is not told the socket');
		$leader->signal('TERM');
		is($next->(), 'STOPPING=1', 'stops');
		is($leader->status, 0, 'and is gone');
	}
};

subtest 'what followers are told' => sub {
	my $leader = lead('informs', 7, [ '--info', 'at 10.0.0.1' ]);
	$leader->says(qr/leads/);
	is(sql('SELECT info FROM le_observe(7)'), 'at 10.0.0.1', 'an address');
	is($leader->stop, 0, 'stops');
};

subtest 'servers' => sub {
	# one that accepts connections and is frozen
	my $frozen = PostgreSQL::Test::Utils::tempdir_short();
	my $port = $node->port;
	my $socket = IO::Socket::UNIX->new(Type => SOCK_STREAM, Local => "$frozen/.s.PGSQL.$port", Listen => 100)
	  or die "socket: $!";
	my $leader = Leaderctl->start('frozen', 'run', '-h', "$frozen," . $node->host, '-p', $port, '-d', 'postgres',
		'-l', 8, @timing, '--', 'sh', '-c', 'echo "$PGHOST $PGTARGETSESSIONATTRS"; exec sleep 1000');
	$leader->says(qr/leads lock 8/, 'finds the one that answers');
	ok(Leaderctl::met(sub { slurp_file($leader->{out}) =~ /,.* read-write\n/ }), 'its command is told all of them');
	$node->stop('immediate');
	$node->start;
	my $beats = sub { sql('SELECT coalesce(max(renewals), 0) FROM leader_lease WHERE id = 8') };
	ok(Leaderctl::met(sub { $beats->() > 3 }), 'also after a restart');
	is($leader->stop, 0, 'stops');

	my $nowhere = PostgreSQL::Test::Utils::tempdir_short();
	my ($status, undef, $err) = Leaderctl::run('run', '-h', $nowhere, '-l', 8, '--wait', '100ms', '--', 'true');
	is($status, 3, 'gives up if there is no server, either');
	like($err, qr/connection to server on socket/, 'which it names');

	my $service = Leaderctl::path('service');
	append_to_file($service, "[election]\nhost=" . $node->host . "\nport=$port\ndbname=postgres\n");
	local $ENV{PGSERVICEFILE} = $service;
	local %ENV = %ENV;
	delete @ENV{qw(PGHOST PGPORT PGDATABASE)};
	local $ENV{PGSERVICE} = 'election';
	($status, my $out) = Leaderctl::run('run', '-l', 8, '-d', 'application_name=mine', '--once', '-q', '--', 'sh', '-c',
		q{PGOPTIONS= psql -XAtc "SELECT current_database(), '<$PGSERVICE$PGOPTIONS$PGAPPNAME>',
			election.le_token('$LEADER_LOCK', '$LEADER_INSTANCE') = '$LEADER_TOKEN'"});
	is($status, 0, 'a service file');
	is($out, "postgres|<>|t\n", 'and its command connects without it');

	# what is libpq's default to leaderctl must be so to its command
	local $ENV{PGSSLMODE} = 'require';
	($status, $out) = Leaderctl::run('run', '-l', 8, '-d', 'sslmode=prefer', '--once', '-q', '--', 'sh', '-c', 'echo "<$PGSSLMODE>"');
	is("$status $out", "0 <>\n", 'a default that was asked for is not overruled for the command');
};

subtest 'servers that are not there yet' => sub {
	foreach my $where ('foo=bar', 'port=abc', 'sslmode=often', 'service=none')
	{
		foreach my $arguments ([ 'run', '-l', 16, '--', 'true' ], [ 'watch', '-l', 16, '--', 'true' ], ['status'])
		{
			my ($command, @rest) = @{$arguments};
			my ($status, undef, $err) = Leaderctl::run($command, '-d', $where, @rest);
			is($status, 2, "$command: $where will not be there");
			like($err, qr/error: /, 'says so');
		}
	}

	my $dir = PostgreSQL::Test::Utils::tempdir_short();
	my $socket = "$dir/.s.PGSQL." . $node->port;
	my @there = ('-h', $dir, '-p', $node->port, '-l', 'a-name', '-d', 'postgres');
	my $waits = Leaderctl->start('waits', 'run', @there, @timing, '--', 'sleep', '1000');
	my $watch = Leaderctl->start('watches', 'watch', @there, '--', 'true');
	$_->says(qr/No such file or directory/) foreach ($waits, $watch);
	my $deaf = IO::Socket::UNIX->new(Local => $socket, Listen => 0);
	close($deaf);
	$_->says(qr/Connection refused/, 'another reason is said, too') foreach ($waits, $watch);
	unlink $socket;
	my $proxy = Proxy->new($socket, $node->host . '/.s.PGSQL.' . $node->port);
	$proxy->last_answer;
	$_->says(qr/the server does not answer/, 'one that falls silent') foreach ($waits, $watch);
	like($waits->said . $watch->said, qr/the server does not answer any more/, 'to one of them in the midst of it');
	$proxy->stop;
	unlink $socket;
	$proxy = Proxy->new($socket, $node->host . '/.s.PGSQL.' . $node->port);
	$waits->says(qr/leads lock a-name/, 'is waited for; and a lock is called as it was');
	$watch->says(qr/lock a-name is led by/);
	is($watch->stop, 0, 'stops');
	is($waits->stop, 0, 'stops');
	$proxy->stop;
};

subtest 'told to stop' => sub {
	my $leader = lead('told', 9, [ '--once' ]);
	$leader->says(qr/leads/);
	is($leader->stop, 143, 'the status of a command that was ended');

	# its release waits for another one
	$leader = lead('twice', 9, [], 'sh', '-c', 'echo $LEADER_INSTANCE $LEADER_TOKEN; exec sleep 1000');
	ok(Leaderctl::met(sub { slurp_file($leader->{out}) =~ /\d\n/ }), 'one leads');
	my ($instance, $token) = split ' ', slurp_file($leader->{out});
	my $open = Session->new($connstr);
	$open->say("BEGIN; SELECT election.le_release(9, '$instance', $token)");
	$leader->signal('TERM');
	$leader->says(qr/the command was ended by signal 15/);
	$leader->signal('TERM');
	is($leader->status, 1, 'told twice');
	like($leader->said, qr/leaves lock 9 to the end of its lease/, 'it does not wait for the server');
	$open->say('ROLLBACK');
	$open->quit;
};

subtest 'elected when it is told to stop' => sub {
	my $other = lead('before', 10, []);
	$other->says(qr/leads/);
	my $leader = lead('late', 10, [ '--once', '--at-most-every', '1h' ], 'touch', Leaderctl::path('late'));
	ok(Leaderctl::met(sub { sql('SELECT count(*) FROM leader_waiting WHERE lock_id = 10') == 1 }), 'one waits');
	$leader->signal('STOP');
	is($other->stop, 0, 'and is handed the lock');
	is(sql('SELECT count(*) FROM leader_lease WHERE id = 10 AND remaining_ms > 0'), 1, 'by the server');
	$leader->signal('TERM');
	$leader->signal('CONT');
	is($leader->status, 3, 'stops');
	like($leader->said, qr/has (released|handed) lock 10/, 'gives it back');
	is(sql('SELECT count(*) FROM leader_lease WHERE id = 10'), 0, 'without a hold, as nothing was done');
	ok(!-e Leaderctl::path('late'), 'starts nothing');
};

subtest 'how a command is treated' => sub {
	my $file = Leaderctl::path('treated');
	my $leader = lead('treats', 11, [ '-d', "$connstr application_name=treats", '--lease', '5min', '--kill-after', '4min' ], 'perl', '-e', q{
		my ($file, $terms) = (shift, 0);
		open(my $out, '>', $file); select $out; $| = 1;
		print 'pipe ', $SIG{PIPE} // 'DEFAULT', "\n";
		print 'sockets ', scalar(grep { (readlink("/proc/self/fd/$_") // '') =~ /^socket/ } 3 .. 100), "\n";
		$SIG{TERM} = sub { $terms++ };
		print "ready\n";
		until ($terms) { select undef, undef, undef, 0.01 }
		until (-e "$file.go") { select undef, undef, undef, 0.01 }
		print "terms $terms\n";
	}, $file);
	ok(Leaderctl::met(sub { -e $file && slurp_file($file) =~ /ready/ }), 'it runs');
	my $sessions = sub { sql(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'treats'}) };
	is($sessions->(), 1, 'with one connection');
	$leader->signal('KILL');
	$leader->status;
	ok(Leaderctl::met(sub { $sessions->() == 0 }), 'the server sees its leaderctl die');
	unlike(slurp_file($file), qr/terms/, 'and not by the end of its command');
	append_to_file("$file.go", '');
	ok(Leaderctl::met(sub { slurp_file($file) =~ /terms/ }), 'it is told to end');
	is(slurp_file($file), "pipe DEFAULT\nsockets 0\nready\nterms 1\n",
		'once; it dies of a broken pipe as others do, and has not its connection');
};

subtest 'as the first process of a container' => sub {
	my @container = ('unshare', '--user', '--map-root-user', '--pid', '--fork', '--mount-proc');
	plan skip_all => 'this machine gives us no namespaces' if system("@container true 2> /dev/null") != 0;
	my ($program, $out) = (Leaderctl::path('leaderctl'), '');
	IPC::Run::run([ @container, $program, 'run', '-d', $connstr, '-U', scalar getpwuid($<), '-l', 13, '-q', '--once', '--', 'sh', '-c', 'echo $PPID; exit 5' ],
		'<', \undef, '>', \$out);
	is($? >> 8, 5, 'its command has run');
	is($out, "2\n", 'under the second, the keeper');
};

subtest 'what has not begun' => sub {
	my @job = ('run', '-d', $connstr, '-l', 14, '--once', '--wait', '0s', '--at-most-every', '1h', '--');
	my ($status) = Leaderctl::run(@job, '/no/such/command');
	is($status, 127, 'a command that is not there');
	($status) = Leaderctl::run(@job, 'sh', '-c', 'exit 4');
	is($status, 4, 'keeps nobody else from the job');
	($status) = Leaderctl::run(@job, 'true');
	is($status, 3, 'as one does that has run, and failed');
};

subtest 'its own environment' => sub {
	$node->safe_psql('postgres', q{
		CREATE ROLE worker; CREATE ROLE member LOGIN IN ROLE worker;
		GRANT USAGE ON SCHEMA election TO worker;
		GRANT EXECUTE ON FUNCTION election.le_campaign, election.le_keep_alive, election.le_release, election.le_transfer TO worker;
		REVOKE worker FROM member; ALTER ROLE member NOINHERIT; GRANT worker TO member});
	my $leader = do
	{
		local $ENV{PGOPTIONS} = '-c role=worker';
		lead('options', 15, [ '-U', 'member', '-d', "$connstr application_name=options" ]);
	};
	$leader->says(qr/leads lock 15/);
	my $beats = sub { sql('SELECT coalesce(max(renewals), 0) FROM leader_lease WHERE id = 15') };
	my $was = $beats->();
	sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'options'});
	ok(Leaderctl::met(sub { $beats->() > $was + 2 }), 'connects anew as it has connected before');
	is($leader->stop, 0, 'stops');
};

subtest 'who follows is idle' => sub {
	my $first = lead('first', 16, [ '--health', 'true', '--health-every', '300ms' ]);
	$first->says(qr/leads/);
	my $second = lead('second', 16, []);
	ok(Leaderctl::met(sub { sql('SELECT count(*) FROM leader_waiting WHERE lock_id = 16') == 1 }), 'another one waits');
	sql('SELECT le_request_resign(16)');
	$second->says(qr/leads/);
	ok(Leaderctl::met(sub { sql('SELECT count(*) FROM leader_waiting WHERE lock_id = 16') == 1 }), 'the first one waits');
	my $ticks = sub { (split ' ', slurp_file("/proc/$first->{pid}/stat"))[13] + (split ' ', slurp_file("/proc/$first->{pid}/stat"))[14] };
	my $was = $ticks->();
	my $beats = sub { sql('SELECT coalesce(max(renewals), 0) FROM leader_lease WHERE id = 16') };
	my $beaten = $beats->();
	ok(Leaderctl::met(sub { $beats->() > $beaten + 5 }), 'for two seconds');
	cmp_ok($ticks->() - $was, '<', 50, 'and does not spend them');
	is($_->stop, 0, 'stops') foreach ($first, $second);
};

subtest 'two that tell it to stop' => sub {
	my $leader = lead('both', 17, [], 'perl', '-e', '$SIG{TERM} = sub { select undef, undef, undef, 0.3; exit }; sleep 1 while 1');
	$leader->says(qr/leads/);
	$leader->signal('TERM');
	$leader->signal('HUP');
	is($leader->status, 0, 'are told by one each');
	like($leader->said, qr/has released lock 17/, 'and it hands over');
};

subtest 'nobody reads its messages' => sub {
	my ($program, $file) = (Leaderctl::path('leaderctl'), Leaderctl::path('unread'));
	system("'$program' run -d '$connstr' -l 12 --once -- touch '$file' 2>&1 | exec true");
	ok(Leaderctl::met(sub { -e $file }), 'it does its work all the same');
};

subtest 'a nightly job' => sub {
	my @job = ('run', '-d', $connstr, '-l', 'nightly', '--once', '--wait', '0s', '--at-most-every', '1h', '--');
	my ($status, $out) = Leaderctl::run(@job, 'echo', 'done');
	is("$status $out", "0 done\n", 'is done without waiting');
	($status, $out) = Leaderctl::run(@job, 'echo', 'done');
	is("$status $out", '3 ', 'and not again so soon');
};

subtest 'wrong arguments' => sub {
	foreach my $case (
		[ [ '-l', '' ], qr/lock "" is neither a number nor a name/ ],
		[ [ '-l', 'nightly job' ], qr/"nightly job" is neither .*\n.*A name begins with a letter/ ],
		[ [ '-l', '12a' ], qr/"12a" is neither/ ],
		[ [ '-l', '-9223372036854775809' ], qr/outside the range of bigint/ ],
		[ [ '-l', 1, '--schema', 'public' ], qr/is in schema election, not in "public"/ ],
		[ [ '-l', 1, '--jitter', '4s' ], qr/--jitter 4s is longer than --renew 3s/ ],
		[ [ '-l', 1, '--kill-after', '6s' ], qr/--kill-after 6s leaves no time/ ],
		[ [ '-l', 1, '--lease', '2d' ], qr/--lease 2d is outside the range 100ms to 1d/ ],
		[ [ '-l', 1, '--lease', '-2s' ], qr/"-2s" is not a duration/ ],
		[ [ '-l', 1, '--sit-out', '1s' ], qr/need --health/ ],
		[ [ '-l', 1, '--health', 'true', '--health-failures', '0' ], qr/--health-failures 0 is outside the range 1 to 1000/ ],
		[ [ '-l', 1, '--priority', '3x' ], qr/--priority "3x" is not a number/ ],
		[ [ '-l', 1, '--instance', 'x' x 101 ], qr/has 101 bytes, which is outside the range 1 to 100/ ],
		[ [ '-l', 1, '--info', 'x' x 513 ], qr/has 513 bytes/ ],
		[ [ '-l', 1, '--token', '1' ], qr/unrecognized option '--token'\n.*leaderctl run --help/ ])
	{
		my ($options, $expected) = @{$case};
		my ($status, $out, $err) = Leaderctl::run('run', '-d', $connstr, @{$options}, '--', 'echo', 'started');
		is($status, 2, "status 2: " . substr("@{$options}", 0, 40));
		like($err, $expected, 'says why');
		is($out, '', 'starts nothing');
	}
	foreach my $case (
		[ [], qr/no command was given/ ],
		[ ['lead'], qr/unrecognized command "lead"/ ],
		[ [ 'run', '-l', 1 ], qr/no command to run was given/ ],
		[ [ 'run', 'true' ], qr/no lock was given/ ])
	{
		my ($status, $out, $err) = Leaderctl::run(@{ $case->[0] });
		is($status, 2, "status 2: @{$case->[0]}");
		like($err, $case->[1], 'says why');
	}
	$node->safe_psql('postgres', q{
		CREATE ROLE app LOGIN;
		GRANT EXECUTE ON FUNCTION election.le_campaign, election.le_release, election.le_transfer TO app});
	my @as_app = ('run', '-d', $connstr, '-U', 'app', '-l', 1, '--once', '--yield', '--', 'true');
	my ($status, undef, $err) = Leaderctl::run(@as_app);
	is($status, 2, 'no right to the schema');
	like($err, qr/may not use schema election.*\n.*GRANT USAGE ON SCHEMA election TO app;/, 'says so');
	while ($err =~ /hint: (GRANT .*)/g)
	{
		$node->safe_psql('postgres', $1);
	}
	($status, undef, $err) = Leaderctl::run(@as_app);
	is($status, 2, 'nor to functions and a view');
	like($err, qr/GRANT EXECUTE ON FUNCTION election\.le_keep_alive TO app;\n.*GRANT SELECT ON election\.leader_waiting TO app;\n.*GRANT EXECUTE ON FUNCTION election\.le_waiters/,
		'says all of it');
	$node->safe_psql('postgres', $_) foreach $err =~ /hint: (GRANT .*)/g;
	($status) = Leaderctl::run(@as_app);
	is($status, 0, 'does what it can when all of that is done');
};

subtest 'the grant that --yield needs is taken away while it leads' => sub {
	my $polite = lead('granted', 18, [ '-U', 'app', '--yield' ]);
	$polite->says(qr/leads lock/);
	sql('REVOKE SELECT ON leader_waiting FROM app');
	my $larger = lead('ungranted', 18, [ '--priority', 5 ]);
	$polite->says(qr/permission denied for view leader_waiting/);
	my $beats = sql('SELECT renewals FROM leader_lease WHERE id = 18');
	my $is_over = sub { $polite->said =~ /the command was ended/ };
	ok( Leaderctl::met(sub { $is_over->() || sql('SELECT renewals FROM leader_lease WHERE id = 18') > $beats + 2 }),
		'time goes by');
	ok(!$is_over->(), 'and it has sent its heartbeats');
	is($polite->stop, 0, 'stops');
	$larger->says(qr/leads lock/);
	is($larger->stop, 0, 'and so does the other');
};

done_testing();
