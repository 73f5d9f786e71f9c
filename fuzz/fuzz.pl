#!/usr/bin/env perl

# Random calls from several sessions, and a model of what each must answer.
#
#   fuzz.pl --socket PATH [--seed N] [--steps N] [--sessions N] [--seconds N]
#           [--log FILE]
#
# scripts/fuzz starts it with a server of its own.  One statement runs at a
# time, but for those that the model says wait, or sleep in a call with a wait_ms;
# when their wait ends all of them are collected before the next statement.  So
# each answer is determined, and a seed repeats its run, tokens, times, and who
# is a deadlock's victim or the fastest candidate apart.

use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use Digest::SHA qw(sha256);
use Getopt::Long;
use List::Util qw(max min shuffle);
use Storable qw(dclone);
use Time::HiRes qw(sleep time);

use Model;
use Session;

my %opt = (seed => int(rand(1_000_000_000)), steps => 20_000, sessions => 5, seconds => 300);
GetOptions(\%opt, 'socket=s', 'seed=i', 'steps=i', 'sessions=i', 'seconds=i', 'log=s')
  && $opt{socket} && $opt{sessions} >= 2 && $opt{seconds} <= 3000
  or die "usage: fuzz.pl --socket PATH [--seed N] [--steps N] [--sessions N>1] [--seconds N<=3000] [--log FILE]\n";
srand($opt{seed});

my $PATIENCE = 60;       # seconds until an answer is late
my $SHORT_MS = 5;        # a term up to that long is let run out at once
my $SCENE_MS = 300;      # a term that is guarded before it runs out
my $LONG_MS = 60_000;    # a wait that ends when it has an answer, or is cancelled
my $BATCH = 300;         # steps between two looks at everything
my $LATEST = 40;         # steps shown after a failure

my $admin_index = $opt{sessions};
my $model = Model->new($opt{sessions} + 1);
my @sessions;            # the last one is the administrator's
my %pending;             # session => terms whose tokens are not read yet
my %compound;            # session => what to send after a bounded wait
my @latest;
my $step = 0;
my $skipped = 0;
my ($log, $started) = (undef, time());
my $prepared = 0;

if ($opt{log})
{
	open($log, '>', $opt{log}) or die "$opt{log}: $!\n";
	$log->autoflush(1);
}
STDOUT->autoflush(1);

# ---- Random values ----

sub chance { return rand(100) < $_[0] }
sub pick   { return $_[int(rand(@_))] }

# pick_weighted(weight => thing, ...)
sub pick_weighted
{
	my (@pairs) = @_;
	my $sum = 0;
	for (my $i = 0; $i < @pairs; $i += 2) { $sum += $pairs[$i] }
	my $r = rand($sum);
	for (my $i = 0; $i < @pairs; $i += 2)
	{
		$r -= $pairs[$i];
		return $pairs[$i + 1] if $r < 0;
	}
	return $pairs[-1];
}

sub quote
{
	my ($string) = @_;
	$string =~ s/'/''/g;
	return "'$string'";
}

my ($MAX, $MIN) = ('9223372036854775807', '-9223372036854775808');
# the halves of 4294967296 are those of 1, the other way round
my @locks = (1, 2, 3, 0, -1, 4294967296, $MAX, $MIN);
my @instances = map { {sql => quote($_), str => $_} } 'a', 'b', 'c', 'A', " n\x{c3}\x{a4}me \"%s\\'\n ";
my @long_instances = (
	{sql => q{repeat('x', 127)}, str => 'x' x 127},
	{sql => qq{repeat('\x{c3}\x{b6}', 63) || 'x'}, str => "\x{c3}\x{b6}" x 63 . 'x'},
	{sql => q{repeat('x', 126)}, str => 'x' x 126});
my @bad_instances = (
	{sql => 'NULL', str => undef},
	{sql => q{''}, str => ''},
	{sql => q{repeat('x', 128)}, str => 'x' x 128},
	{sql => qq{repeat('\x{c3}\x{b6}', 64)}, str => "\x{c3}\x{b6}" x 64},
	{sql => qq{'x' || repeat('\x{e2}\x{82}\x{ac}', 50)}, str => 'x' . "\x{e2}\x{82}\x{ac}" x 50},
	{sql => q{repeat('y', 100000)}, str => 'y' x 100000},
	{sql => q{repeat('y', 20000000)}, str => 'y' x 128});
my @infos = (
	{sql => 'NULL', str => undef}, {sql => q{''}, str => ''},
	map { {sql => quote($_), str => $_} } 'http://10.0.0.1:8080', "n\x{c3}\x{a4}me, (\"%s\\'\n ", 'NULL');
my @long_infos = (
	{sql => q{repeat('i', 512)}, str => 'i' x 512},
	{sql => q{repeat('i', 513)}, str => 'i' x 513},
	{sql => qq{repeat('\x{c3}\x{b6}', 257)}, str => "\x{c3}\x{b6}" x 257},
	{sql => q{repeat('i', 20000000)}, str => 'i' x 513});

# The tame ones raise no error by themselves.
sub random_lock
{
	my ($tame) = @_;
	return undef if !$tame && chance(1.5);
	return pick_weighted(5 => 1, 4 => 2, 3 => 3, map { (1 => $_) } @locks[3 .. $#locks]);
}

sub random_instance
{
	my ($tame) = @_;
	return pick_weighted(6 => $instances[0], 5 => $instances[1], 3 => $instances[2],
		2 => pick(@instances[3 .. $#instances]), 0.7 => pick(@long_instances), $tame ? () : (0.7 => pick(@bad_instances)));
}

sub random_ms
{
	my ($may_be_short, $tame) = @_;
	return pick_weighted(
		10 => 3_600_000, 3 => 7_200_000, 2 => 86_400_000,
		$may_be_short ? (4 => 1 + int(rand($SHORT_MS))) : (),
		1 => 'default',
		$tame ? () : (0.8 => pick(undef, 0, -1, 86_400_001, $MAX, $MIN)));
}

# undef is NULL, 'none' is left out, and $MIN is what stands for that
sub random_token
{
	my ($lock, $tame) = @_;
	my @known = map { $_->[1] } @{$model->{tokens}{$lock // 0} // []};
	return pick_weighted(
		8 => 'none', 0.7 => pick($MAX, $MIN),
		@known ? (6 => $known[-1], 2 => pick(@known), 0.5 => $known[-1] + 1, 0.5 => $known[-1] - 1) : (),
		$tame ? () : (0.8 => undef, 0.8 => pick(0, -1, -$MAX)));
}

# For functions that need the token
sub random_own_token
{
	my ($lock, $tame) = @_;
	my $row = defined $lock ? $model->{committed}{$lock} : undef;
	return $row->{token} if $row && defined $row->{token} && chance(75);
	my $token = random_token($lock, $tame);
	return ($token // '') ne 'none' ? $token : $tame ? 1 : $MIN;
}

sub random_wait
{
	my ($tame) = @_;
	return pick_weighted(6 => 0, 6 => 1 + int(rand(40)), 1 => 100 + int(rand(100)), 10 => $LONG_MS,
		$tame ? () : (1.5 => pick(undef, -1, 60_001, $MAX, $MIN)));
}

sub random_priority
{
	my ($tame) = @_;
	return pick_weighted(10 => int(rand(10)), $tame ? () : (0.5 => pick(undef, -1, 10, -2147483648, 2147483647)));
}

sub random_info
{
	my ($tame) = @_;
	return pick_weighted(6 => $infos[0], 6 => pick(@infos), $tame ? () : (0.7 => pick(@long_infos)));
}

sub random_hold
{
	my ($tame) = @_;
	return pick_weighted(
		10 => 'none', 3 => 0, 3 => 1 + int(rand(3)), 3 => pick(3_600_000, 86_400_000),
		$tame ? () : (0.8 => pick(undef, -1, 86_400_001, $MAX, $MIN)));
}

# ---- Ops: what the model reads, and their SQL ----

sub sql_int
{
	my ($value) = @_;
	return 'NULL' unless defined $value;
	return $value eq $MIN ? "'$value'" : $value;
}

sub call
{
	my ($f, %arg) = @_;
	my $token = $arg{token};
	my $ms = $arg{ms};
	my @sql;
	push @sql, sql_int($arg{lock}) if exists $arg{lock};
	push @sql, $arg{inst}{sql} if $arg{inst};
	push @sql, sql_int($ms) if exists $arg{ms} && ($ms // '') ne 'default';
	push @sql, sql_int($token) if exists $arg{token} && ($token // '') ne 'none';
	push @sql, "hold_ms => " . sql_int($arg{hold}) if exists $arg{hold};
	push @sql, $arg{successor}{sql} if $arg{successor};
	push @sql, sql_int($arg{known}) if exists $arg{known};
	push @sql, !defined $arg{immediately} ? 'NULL' : $arg{immediately} ? 'true' : 'false' if exists $arg{immediately};
	foreach my $name (qw(wait info priority))
	{
		next unless exists $arg{$name};
		my $argument = $name eq 'wait' ? 'wait_ms' : $name;
		push @sql, "$argument => " . ($name eq 'info' ? $arg{info}{sql} : sql_int($arg{$name}));
	}
	$arg{no_wait} = 1 if exists $arg{wait} && !defined $arg{wait};
	$arg{ms} = 10_000 if ($ms // '') eq 'default';
	$arg{token} = $MIN if ($token // '') eq 'none';
	$arg{is_default} = 1 if ($ms // '') eq 'default';
	my $name = $f eq 'acquire' ? 'try_acquire' : $f;
	return {f => $f, sql => "le_$name(" . join(', ', @sql) . ')', %arg};
}

sub instance_of
{
	my ($term) = @_;
	return (grep { $_->{str} eq $term->{inst} } @instances, @long_instances)[0];
}

# Does a session wait for another one?
sub waits_for
{
	my ($s, $other) = @_;
	my $waits = $model->{sessions}[$s]{waits} or return 0;
	return $model->blocker($s, $waits->{lock}, $waits->{mode}) == $other;
}

# Somebody who will have to wait: the leader of a lock that is being changed.
sub random_waiter
{
	my ($s, $f) = @_;
	my @busy = grep { defined $model->blocker($s, $_, 'exclusive') } @locks;
	return unless @busy;
	# better still one that is held by somebody who waits for this session
	my @crosswise = grep { waits_for($model->blocker($s, $_, 'exclusive'), $s) } @busy;
	# or for a guard, at a commit that waits for another one
	my @guarded = grep { !defined $model->blocker($s, $_, 'share') } @busy;
	my $lock = @crosswise && chance(75) ? pick(@crosswise) : @guarded && chance(75) ? pick(@guarded) : pick(@busy);
	my $entry = $model->{entry}{$lock};
	my $term = pick(grep { $_ } $model->{committed}{$lock}, $entry && $entry->{term}) or return;
	my $inst = instance_of($term) or return;
	my $token = (chance(25) ? $term->{token} : undef) // 'none';
	if (!defined $f)
	{
		$f = pick('acquire', 'campaign', 'renew', 'keep_alive', 'release', 'transfer', 'revoke', 'guard', 'guard');
		$f = pick('release', 'transfer', 'revoke') if grep { $_ eq $lock } @guarded;
	}
	return call($f, lock => $lock, inst => $inst, ms => 3_600_000) if $f =~ /^(acquire|campaign)$/;
	return call('revoke', lock => $lock, immediately => chance(50)) if $f eq 'revoke';
	return call($f, lock => $lock, inst => $inst, token => $term->{token} // 1, $f eq 'transfer' ? (successor => pick(@instances)) : ())
	  if $f =~ /^(keep_alive|transfer)$/;
	return call($f, lock => $lock, inst => $inst, token => $token);
}

sub random_call
{
	my ($s, $may_be_short) = @_;
	my $tame = $model->{sessions}[$s]{block} && chance(80);    # or no block would live long
	if (chance(20))
	{
		my $waiter = random_waiter($s);
		return $waiter if $waiter;
	}
	my $lock = random_lock($tame);
	my $inst = random_instance($tame);
	my $barred = defined $lock && $model->{committed}{$lock} && $model->{committed}{$lock}{bars};
	# or all locks would be held or revoked soon
	return call('revoke', lock => $lock, immediately => 1) if $barred && !$tame && chance(25);
	my $is_refused = $tame && !$model->{sessions}[$s]{set}{allow};
	my $f = pick_weighted(
		($is_refused ? 8 : 30) => 'acquire', 22 => 'renew', 18 => 'release', 12 => 'guard', 5 => 'is_leader', 5 => 'leader',
		4 => 'token', 4 => 'sweep', 1 => 'instance', 1 => 'lock_id', 2 => 'noise', $tame ? 0.2 : 3, 'fail',
		($is_refused ? 4 : 15) => 'campaign', 12 => 'keep_alive', 8 => 'observe', 9 => 'transfer', 5 => 'request_resign',
		($tame ? 0.5 : 5) => 'revoke');

	# whoever leads is called more often by its name
	if (chance($f eq 'guard' && $tame || $f =~ /^(acquire|campaign)$/ && $is_refused ? 90 : $f =~ /^(keep_alive|transfer)$/ ? 75 : 40) && defined $lock)
	{
		my $row = $model->{committed}{$lock};
		$inst = instance_of($row) // $inst if $row;
	}
	# and ends the terms that transactions are guarded for, and begins others
	if ($f =~ /^(acquire|release|transfer)$/ && chance(35))
	{
		my @terms = grep { $f ne 'acquire' || !$model->{committed}{$_->{lock}} }
		  map { Model::guards($_) } @{$model->{sessions}};
		my $term = @terms ? pick(@terms) : undef;
		$lock = $term->{lock} if $term;
		$inst = instance_of($term) // $inst if $term;
	}
	return call('acquire', lock => $lock, inst => $inst, ms => random_ms($may_be_short, $tame)) if $f eq 'acquire';
	if ($f eq 'release')
	{
		my $hold = random_hold($tame);
		return call($f, lock => $lock, inst => $inst, token => random_token($lock, $tame), ($hold // '') eq 'none' ? () : (hold => $hold));
	}
	if ($f eq 'campaign')
	{
		return call(
			$f, lock => $lock, inst => $inst, ms => random_ms($may_be_short, $tame),
			chance(25) ? (wait => random_wait($tame)) : (), chance(50) ? (info => random_info($tame)) : (),
			chance(30) ? (priority => random_priority($tame)) : ());
	}
	if ($f eq 'transfer')
	{
		my $successor = chance(70) ? random_instance($tame) : {sql => 'NULL', str => undef};
		$successor = {sql => 'NULL', str => undef} if $tame && ($successor->{str} // '') eq $inst->{str};
		return call($f, lock => $lock, inst => $inst, token => random_own_token($lock, $tame), chance(90) ? (successor => $successor) : ());
	}
	if ($f eq 'observe')
	{
		my $known = chance(50) ? random_own_token($lock, $tame) : undef;
		return call($f, lock => $lock, known => $known, chance(25) ? (wait => random_wait($tame)) : ());
	}
	return call($f, lock => $lock, inst => $inst, token => random_own_token($lock, $tame)) if $f eq 'keep_alive';
	return call($f, lock => $lock, chance(80) ? (immediately => chance(60) ? 1 : $tame || chance(90) ? 0 : undef) : ()) if $f eq 'revoke';
	return call($f, lock => $lock) if $f eq 'request_resign';
	return call($f, lock => $lock, inst => $inst, token => random_token($lock, $tame)) if $f =~ /^(renew|guard|is_leader)$/;
	return call('leader', lock => $lock) if $f eq 'leader';
	return call('token', lock => $lock, inst => $inst) if $f eq 'token';
	return call('sweep', ms => pick(0, 0, 0, 86_400_000, $tame ? () : (86_400_001, -1, undef, $MAX, $MIN))) if $f eq 'sweep';
	return random_name_call($f) if $f eq 'instance' || $f eq 'lock_id';
	return {f => 'fail', error => '22012', sql => '1 / (random() * 0)::int'} if $f eq 'fail';
	return {f => 'noise', sql => pick('pg_advisory_unlock_all()', 'pg_try_advisory_xact_lock(1)',
			'pg_try_advisory_xact_lock(0, 1)', 'pg_advisory_unlock(1)', 'txid_current_if_assigned()')};
}

# A call, and perhaps le_guard() with the same arguments before or behind it
sub random_calls_of_one
{
	my ($s, $may_be_short) = @_;
	my $op = random_call($s, $may_be_short);
	return $op if $op->{f} !~ /^(acquire|campaign|renew|release|transfer)$/ || !chance(20);
	my $guard = call('guard', lock => $op->{lock}, inst => $op->{inst},
		token => $op->{f} =~ /^(acquire|campaign)$/ || chance(70) ? 'none' : $op->{token});
	return chance($op->{f} =~ /^(release|transfer)$/ ? 80 : 20) ? ($guard, $op) : ($op, $guard);
}

sub random_name_call
{
	my ($f) = @_;
	my $name = pick(undef, '', 'worker', "\x{c3}\x{bc}ber", 'z' x 90);
	my $sql = defined $name ? quote($name) : 'NULL';
	return {f => 'instance', prefix => $name, sql => "le_instance($sql)"} if $f eq 'instance';
	# the first 53 bits
	my $result = defined $name ? unpack('Q>', sha256($name)) >> 11 : undef;
	return {f => 'lock_id', result => $result, sql => "le_lock_id($sql)"};
}

# ---- Statements ----

sub control
{
	my ($sql, %op) = @_;
	return {kind => 'control', sql => $sql, ops => [\%op]};
}

sub of_calls
{
	my ($kind, @ops) = @_;
	my $sql =
	  $kind eq 'select' ? 'SELECT ' . join(', ', map { $_->{sql} } @ops)
	  : join('; ', map { "SELECT $_->{sql}" } @ops);
	return {kind => $kind, sql => $sql, ops => \@ops};
}

my $view_op = {
	f => 'view',
	sql => 'SELECT id, leader_id, token, lease_ms, renewals, state, leader_role, renewed_at IS NULL, remaining_ms, expires_at > created_at, info FROM leader_lease'
};

my $info_op = {
	f => 'info',
	sql => 'SELECT version, entries, epoch IS NOT NULL, timeline, grace_remaining_ms FROM le_info()'
};

sub single
{
	my ($op, $sql) = @_;
	return {kind => 'select', sql => $sql // $op->{sql}, ops => [$op]};
}

sub random_do
{
	my ($s) = @_;
	my (@ops, @sql);
	my $depth = 0;
	foreach (1 .. 2 + int(rand(4)))
	{
		if (chance(25) && $depth < 2)
		{
			push @ops, {f => 'try'};
			push @sql, 'BEGIN';
			$depth++;
		}
		foreach my $op (random_calls_of_one($s, chance(30)))
		{
			push @ops, $op;
			push @sql, "RAISE NOTICE '%', $op->{sql};";
			if ($op->{f} =~ /^(acquire|campaign)$/ && ($op->{ms} // 0) >= 1 && $op->{ms} <= $SHORT_MS && defined $op->{lock})
			{
				# longer than such a lease can last
				push @ops, {f => 'expire', lock => $op->{lock}, max_ms => $SHORT_MS};
				push @sql, 'PERFORM pg_sleep(0.01);';
			}
		}
		while ($depth > 0 && chance(50))
		{
			push @ops, {f => 'end_try'};
			push @sql, "EXCEPTION WHEN OTHERS THEN RAISE NOTICE '%', SQLSTATE; END;";
			$depth--;
		}
		if (chance(15))
		{
			my $how = pick('commit', 'rollback');
			push @ops, {f => "do_$how"};
			push @sql, uc($how) . ';';
		}
	}
	foreach (1 .. $depth)
	{
		push @ops, {f => 'end_try'};
		push @sql, "EXCEPTION WHEN OTHERS THEN RAISE NOTICE '%', SQLSTATE; END;";
	}
	return {kind => 'do', sql => 'DO $$ BEGIN ' . join(' ', @sql) . ' END $$', ops => \@ops};
}

sub random_calls
{
	my ($s, $session) = @_;
	my $how = pick_weighted(60 => 'one', 12 => 'select', 14 => 'do', 4 => 'multi', 4 => 'pipeline',
		4 => 'view', 2 => 'info', 1 => 'parse');

	if ($how eq 'one') { return of_calls('select', random_call($s, 1)) }
	if ($how eq 'do') { return random_do($s) }
	if ($how eq 'view') { return single($view_op) }
	if ($how eq 'info') { return single($info_op) }
	if ($how eq 'parse' && !$session->{failed})
	{
		return single(@{pick(
					[{f => 'fail', error => '22003'}, "SELECT le_leader('9223372036854775808')"],
					[{f => 'fail', error => '22003'}, "SELECT le_renew(1, 'a', '-9223372036854775809')"],
					[{f => 'fail', error => '22021'}, "SELECT le_leader(1), '\x{ff}'"],
					[{f => 'fail', error => '22P02'}, "SELECT le_try_acquire('one', 'a')"],
					[{f => 'fail', error => '42883'}, "SELECT le_leader(1.5)"])});
	}
	my @ops = map { random_calls_of_one($s, 0) } 1 .. 2 + int(rand(3));
	if ($how eq 'pipeline' && chance(50))
	{
		# begins a term before the others, which may fail
		my @vacant = grep { !$model->{committed}{$_} || !$model->{committed}{$_}{live} } @locks;
		unshift @ops, call('acquire', lock => pick(@vacant), inst => random_instance(1), ms => 3_600_000) if @vacant;
	}
	return of_calls($how eq 'parse' ? 'select' : $how, @ops);
}

sub allow
{
	my ($value, $local) = @_;
	return control(($local ? 'SET LOCAL' : 'SET') . ' leader_election.allow_in_transaction = ' . ($value ? 'on' : 'off'),
		f => 'set', name => 'allow', value => $value, local => $local, tag => 'SET');
}

sub random_control
{
	my ($s, $session) = @_;
	my $in_block = $session->{block};
	my @guards = Model::guards($session);
	my $is_delayed = grep { defined $model->blocker($s, $_->{lock}, 'share') } @guards;
	my @names = map { $_->{name} // () } @{$session->{levels}};
	my $name = pick('s', 't', 'u');
	my $old_name = @names && chance(85) ? pick(@names) : $name;
	my $what = $in_block
	  ? pick_weighted(
		$session->{failed}
		? (30 => 'rollback', 4 => 'commit', (@names ? 60 : 3) => 'rollback_to')
		: (($is_delayed ? 60 : @guards ? 25 : 14) => 'commit', 8 => 'rollback', (@names ? 12 : 0.3) => 'rollback_to', (@names ? 8 : 0.3) => 'release_savepoint', 3 => 'prepare'),
		16 => 'savepoint', ($session->{set}{allow} ? 3 : 12) => 'allow', 4 => 'role',
		0.7 => 'read_only', 0.5 => 'discard', 1 => 'begin')
	  : pick_weighted(
		45 => 'begin', ($session->{set}{allow} ? 3 : 16) => 'allow', 7 => 'role', 2 => 'user', 1 => 'discard', ($session->{set}{dro} ? 10 : 1) => 'dro', 1 => 'commit', 1 => 'rollback',
		1 => 'savepoint', 1 => 'release_savepoint', 1 => 'rollback_to', 1 => 'prepare', 1 => 'read_only');

	if ($what eq 'begin')
	{
		my $level = $in_block ? '' : pick('', '', ' ISOLATION LEVEL REPEATABLE READ', ' ISOLATION LEVEL SERIALIZABLE');
		my $ro = !$in_block && chance(6) ? 1 : !$in_block && chance(6) ? 0 : undef;
		return control('BEGIN' . $level . (defined $ro ? $ro ? ' READ ONLY' : ' READ WRITE' : ''), f => 'begin', ro => $ro);
	}
	if ($what eq 'commit' || $what eq 'rollback')
	{
		# characteristics of failed transactions are not our business
		my $chain = !$session->{failed} && @{$session->{levels}} < 2 && chance(6);
		return control(uc($what) . ($chain ? ' AND CHAIN' : ''), f => $what, chain => $chain);
	}
	return control("PREPARE TRANSACTION 'p'", f => 'prepare', possible => $prepared) if $what eq 'prepare';
	return control("SAVEPOINT $name", f => 'savepoint', name => $name) if $what eq 'savepoint';
	return control("ROLLBACK TO $old_name", f => 'rollback_to', name => $old_name) if $what eq 'rollback_to';
	return control("RELEASE $old_name", f => 'release_savepoint', name => $old_name) if $what eq 'release_savepoint';
	return control('SET TRANSACTION READ ONLY', f => 'read_only') if $what eq 'read_only';
	return control('DISCARD ALL', f => 'discard') if $what eq 'discard';
	my $local = chance(30) ? 1 : 0;
	my $set = $local ? 'SET LOCAL' : 'SET';
	if ($what eq 'allow')
	{
		return allow(chance(85) ? 1 : 0, $local);
	}
	if ($what eq 'dro')
	{
		my $value = chance(30) ? 1 : 0;
		return control('SET default_transaction_read_only = ' . ($value ? 'on' : 'off'),
			f => 'set', name => 'dro', value => $value, local => 0, tag => 'SET');
	}
	if ($what eq 'role')
	{
		my $role = pick_weighted(9 => undef, 4 => 'app', 3 => 'member', 2 => 'other', 0.6 => 'stranger', 1 => 'postgres');
		return control("$set ROLE " . ($role // 'NONE'), f => 'set', name => 'role', value => $role, local => $local, tag => 'SET');
	}
	my $user = pick(('postgres') x 6, 'app', 'member', 'other', 'stranger');
	return (
		control('SET ROLE NONE', f => 'set', name => 'role', value => undef, local => 0, tag => 'SET'),
		control("SET SESSION AUTHORIZATION $user", f => 'set_user', value => $user, tag => 'SET'));
}

# ---- Running them ----

sub note
{
	my ($s, $text) = @_;
	$text =~ s/\n/\\n/g;
	my $line = sprintf('%6d  %s  %s', $step, $s eq $admin_index ? 'adm' : "s$s ", $text);
	push @latest, $line;
	shift @latest if @latest > 4 * $LATEST;
	print {$log} "$line\n" if $log;
	return;
}

sub show
{
	my ($value) = @_;
	return 'NULL' unless defined $value;
	return $value unless ref $value;
	return 'any value' if $value->{any};
	return 'the token of term ' . $value->{term}{seq} if $value->{term};
	return join(', ', map { "$_: $value->{view}{$_}{term}{inst} $value->{view}{$_}{state} $value->{view}{$_}{renewals}" } sort keys %{$value->{view}}) || 'no row'
	  if $value->{view};
	return '(' . join(', ', map { show($_) } @{$value->{row}}) . ')' if $value->{row};
	if (exists $value->{left})
	{
		return ($value->{maybe_less} ? '0 or ' : '') . join(' to ', bounds_of_left($value));
	}
	return 'any of ' . join(', ', map { show($_) } @{$value->{any_of}}) if $value->{any_of};
	return join(' ', keys %{$value});
}

sub show_outcome
{
	my ($outcome) = @_;
	return "waits for lock $outcome->{wait} in $outcome->{mode} mode" if defined $outcome->{wait};
	return join(' ', map { s/\n/\\n/gr } map { show($_) } @{$outcome->{values}}, $outcome->{tag} // (), $outcome->{error} // ());
}

sub show_answer
{
	my ($answer) = @_;
	return 'no answer' unless $answer;
	return join(' ', (map { '(' . join(', ', map { $_ // 'NULL' } @{$_}) . ')' } @{$answer->{rows}}),
		@{$answer->{notices}}, $answer->{tag}, $answer->{sqlstate} // (), $answer->{message} // (), "[$answer->{status}]");
}

sub failure
{
	my ($s, $expected, $got) = @_;
	my $who = $s == $admin_index ? 'adm' : "s$s";
	print "\nlatest steps:\n", join("\n", @latest > $LATEST ? @latest[-$LATEST .. -1] : @latest), "\n\n";
	print "seed $opt{seed}, step $step, session $who\n  the model: $expected\n  the server: $got\n";
	my $locks = eval {
		$sessions[$admin_index]->query(
			q{SELECT l.pid, l.locktype, l.mode, l.granted, l.classid, l.objid, l.objsubid, a.state, a.wait_event, a.query
			  FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' OR NOT granted}, 5)
	};
	print 'locks: ', show_answer($locks), "\n" if $locks;
	print_summary();
	print "fuzz: FAILED after $step steps\n";
	exit 1;
}

# The columns of a row as the server writes it
sub parse_row
{
	my ($text) = @_;
	my @columns;
	return unless defined $text && $text =~ s/\A\((.*)\)\z/$1/s;
	for (;;)
	{
		if    ($text =~ s/\A"((?:[^"]|"")*)"//s) { push @columns, $1 =~ s/""/"/gr =~ s/\\\\/\\/gr }
		elsif ($text =~ s/\A([^,]+)//s)         { push @columns, $1 }
		else                                    { push @columns, undef }
		last unless $text =~ s/\A,//;
	}
	return $text eq '' ? \@columns : undef;
}

# How much of a time is left, in whole milliseconds, rounded either way
sub bounds_of_left
{
	my ($value) = @_;
	my $least = $value->{least} // 0;
	return ($least, $least) unless $value->{left};
	my ($lo, $hi) = Model::bounds($value->{left});
	my $moment = $value->{moment} // {lo => Model::now()};
	return (max($least, int($lo - ($moment->{hi} // Model::now()) - 2)), max($least, int($hi - $moment->{lo} + 2)));
}

sub wrong_left
{
	my ($value, $got) = @_;
	return 'no time' unless defined $got;
	return if $value->{maybe_less} && $got == 0;
	my ($least, $most) = bounds_of_left($value);
	return $got >= $least && $got <= $most ? undef : "$got ms are not from $least to $most";
}

# A lease and 9/10 of a wait that has begun since, and ended at, these moments
sub wrong_valid
{
	my ($value, $got) = @_;
	my ($since, $moment) = @{$value}{qw(since moment)};
	my $least = $value->{valid} + int(max(0, 0.9 * ($moment->{lo} - ($since->{asleep} // $moment->{lo}) - 1)));
	my $most = $value->{valid} + int(0.9 * ($moment->{hi} - $since->{lo}) + 1);
	return defined $got && $got >= $least && $got <= $most ? undef : "is not valid from $least to $most ms";
}

# Was somebody waiting?
sub wrong_awaited
{
	my ($value, $got) = @_;
	my $moment = $value->{moment};
	my ($surely, $maybe) = (0, $value->{awaited}{maybe});
	foreach my $end (@{$value->{awaited}{ends}})
	{
		my ($lo, $hi) = Model::bounds($end);
		$surely = 1 if $lo > $moment->{hi};
		$maybe = 1 if $hi >= $moment->{lo};
	}
	return $got eq 't' ? $maybe || $surely ? undef : 'nobody waits' : $surely ? 'somebody waits' : undef;
}

sub wrong_row
{
	my ($expected, $got, $moment) = @_;
	my $columns = parse_row($got) or return 'not a row';
	return 'another number of columns' if @{$columns} != @{$expected};
	# to learn a token comes last
	my @order = sort { (ref $expected->[$a] && $expected->[$a]{term} ? 1 : 0) <=> (ref $expected->[$b] && $expected->[$b]{term} ? 1 : 0) } 0 .. $#{$expected};
	foreach my $i (@order)
	{
		my $wrong = wrong_value($expected->[$i], $columns->[$i], $moment);
		return "column $i: $wrong" if $wrong;
	}
	return;
}

# What is wrong with a value, or nothing.  moment is when it was found.
sub wrong_value
{
	my ($expected, $got, $moment) = @_;
	if (!ref $expected)
	{
		return ($expected // "\0") eq ($got // "\0") ? undef : 'another value';
	}
	if ($expected->{term})
	{
		return 'no token' unless defined $got;
		return $model->learn($expected->{term}, $got);
	}
	return wrong_row($expected->{row}, $got, $moment) if $expected->{row};
	if ($expected->{any_of})
	{
		my @wrong;
		foreach my $one (@{$expected->{any_of}})
		{
			my $wrong = wrong_value($one, $got, $moment) or return;
			push @wrong, $wrong;
		}
		return join(', ', @wrong);
	}
	return wrong_left({%{$expected}, moment => $moment}, $got) if exists $expected->{left};
	return wrong_valid({%{$expected}, moment => $moment}, $got) if exists $expected->{valid};
	return wrong_awaited({%{$expected}, moment => $moment}, $got) if exists $expected->{awaited};
	if (exists $expected->{instance})
	{
		my $prefix = defined $expected->{instance} ? quotemeta("$expected->{instance}:") : '';
		return ($got // '') =~ /\A$prefix[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\z/ ? undef : 'not such a name';
	}
	return;
}

sub wrong_view
{
	my ($expected, $rows, $moment) = @_;
	return scalar(@{$rows}) . ' rows' if @{$rows} != keys %{$expected};
	foreach my $row (@{$rows})
	{
		my ($id, $leader, $token, $ms, $renewals, $state, $role, $never, $remaining, $ordered, $info) = @{$row};
		my $e = $expected->{$id} or return "a row for lock $id";
		my $t = $e->{term};
		return "another row for lock $id"
		  if $leader ne $t->{inst} || $ms ne $t->{ms} || $renewals ne $e->{renewals} || $state ne $e->{state}
		  || $role ne $t->{role} || $never ne ($e->{renewals} ? 'f' : 't');
		# the clock is read before the row is written, which may take longer than
		# a short lease
		return "an end before the start for lock $id" if $ordered ne 't' && $ms > $SHORT_MS;
		return "another info for lock $id" if ($info // "\0") ne ($t->{info} // "\0");
		my $wrong = wrong_left({left => $e->{left}, moment => $moment}, $remaining) // $model->learn($t, $token);
		return $wrong if $wrong;
	}
	return;
}

# Compare an answer with an outcome; returns what is wrong, or nothing.
sub wrong_answer
{
	my ($stmt, $outcome, $answer) = @_;
	return 'no answer' unless $answer;
	return 'another SQLSTATE' if ($outcome->{error} // '') ne ($answer->{sqlstate} // '');
	return "transaction status should be $outcome->{status}" if $outcome->{status} ne $answer->{status};
	if ($stmt->{kind} ne 'control')
	{
		my $warnings = grep { $_->{sqlstate} eq '25P01' } @{$answer->{warnings}};
		return "$warnings warnings of a guard without work" if $warnings != $outcome->{warns};
		my @left = map { $_->{message} =~ /believe so for another (\d+) ms/ ? $1 : () } @{$answer->{warnings}};
		return @left . ' warnings of a leader who may not know' if @left != @{$outcome->{warned}};
		foreach my $i (0 .. $#left)
		{
			my $wrong = wrong_left({left => $outcome->{warned}[$i], moment => $outcome->{moment}}, $left[$i]);
			return "a warning: $wrong" if $wrong;
		}
	}
	return 'another tag' if defined $outcome->{tag} && $outcome->{tag} ne $answer->{tag};

	my @values = @{$outcome->{values}};
	return if defined $outcome->{error} && $stmt->{kind} ne 'do';
	if (@values == 1 && ref $values[0] && $values[0]{view})
	{
		return wrong_view($values[0]{view}, $answer->{rows}, $outcome->{moment});
	}
	if (@values == 1 && ref $values[0] && exists $values[0]{info})
	{
		my ($version, $entries, $epoch, $timeline, $grace) = @{$answer->{rows}[0]};
		return "not $values[0]{info} entries" if $entries != $values[0]{info};
		return "$epoch $timeline $grace" eq 't 1 0' && $version =~ /^\d+\.\d+$/ ? undef : 'odd information';
	}
	my @got = $stmt->{kind} eq 'do' ? map { $_ eq '<NULL>' ? undef : $_ } @{$answer->{notices}} : map { @{$_} } @{$answer->{rows}};
	return 'another number of values' if @got != @values;
	foreach my $i (0 .. $#values)
	{
		my $wrong = wrong_value($values[$i], $got[$i], $outcome->{moment});
		return "value $i: $wrong" if $wrong;
	}
	return;
}

sub send_statement
{
	my ($s, $stmt) = @_;
	note($s, "$stmt->{sql};" . ($stmt->{kind} eq 'pipeline' ? '  -- pipelined' : ''));
	if ($stmt->{kind} eq 'pipeline')
	{
		$sessions[$s]->send_pipeline(map { "SELECT $_->{sql}" } @{$stmt->{ops}});
	}
	else
	{
		$sessions[$s]->send_query($stmt->{sql});
	}
	return;
}

my %stmt_of;        # what a session does just now
my $woken_since;    # when the latest step began, which may wake others
my @woken;          # who has been woken and is to be looked after

# A session is done: collect and compare.
sub collect
{
	my ($s, $outcome) = @_;
	my $answer = $sessions[$s]->collect($PATIENCE);
	$outcome->{moment}{hi} = Model::now();
	my $wrong = wrong_answer($stmt_of{$s}, $outcome, $answer);
	failure($s, show_outcome($outcome) . " [$outcome->{status}]", show_answer($answer) . " ($wrong)") if $wrong;
	note($s, '  -- ' . show_outcome($outcome));
	return;
}

# A session waits: look whether it really does, for that lock.
sub confirm_wait
{
	my ($s, $outcome) = @_;
	my ($lock, $mode) = ($outcome->{wait}, ucfirst "$outcome->{mode}Lock");
	my $end = time() + $PATIENCE;
	my $pid = $sessions[$s]->pid;
	note($s, '  -- ' . show_outcome($outcome));
	for (;;)
	{
		my $waits = $sessions[$admin_index]->must(
			qq{SELECT (classid::bigint << 32) | objid::bigint, objsubid, mode FROM pg_locks
			   WHERE pid = $pid AND NOT granted AND locktype = 'advisory'});
		last if @{$waits} && "@{$waits->[0]}" eq "$lock 19525 $mode";
		my $answer = $sessions[$s]->collect(0.002);
		failure($s, show_outcome($outcome), show_answer($answer)) if $answer;
		failure($s, show_outcome($outcome), 'does not wait') if time() > $end;
	}
	return;
}

# A session sleeps until it is woken or its wait_ms is over: look whether it
# really does.
sub confirm_sleep
{
	my ($s) = @_;
	my $end = time() + $PATIENCE;
	my $pid = $sessions[$s]->pid;
	my $since = $model->{sessions}[$s]{stage}{since};
	note($s, '  -- sleeps');
	until ($sessions[$admin_index]->must(
			"SELECT count(*) FROM pg_stat_activity WHERE pid = $pid AND wait_event_type = 'Extension'")->[0][0])
	{
		my $answer = $sessions[$s]->peek(0.001);
		failure($s, 'sleeps', show_answer($answer)) if $answer;
		failure($s, 'sleeps', 'does not') if time() > $end;
	}
	$since->{hi} = $since->{asleep} = Model::now();
	return;
}

# A short wait that nobody ends: its answer comes when it is over.
sub sit_out
{
	my ($s) = @_;
	my $session = $model->{sessions}[$s];
	my $since = $session->{stage}{since};
	my $over = $since->{lo} + $session->{stmt}{ops}[0]{wait};
	my $answer = $sessions[$s]->peek($PATIENCE);
	$since->{hi} = Model::now();
	failure($s, 'waits until its time is over', show_answer($answer)) if $since->{hi} < $over;
	follow($s, scalar $model->resume($s, $over, 1));
	return;
}

# Who sleeps must not have an answer now.
sub check_asleep
{
	foreach my $s ($model->sleepers)
	{
		my $answer = $sessions[$s]->peek(0);
		failure($s, 'sleeps', show_answer($answer)) if $answer;
	}
	return;
}

# Wait for the first answer of several sessions.
sub first_to_answer
{
	my (@candidates) = @_;
	my $end = time() + $PATIENCE;
	for (;;)
	{
		foreach my $s (@candidates)
		{
			return $s if $sessions[$s]->peek(0.001);
		}
		failure($candidates[0], 'one of these is elected: ' . join(' ', @candidates), 'nobody is') if time() > $end;
	}
}

# Go on with those who sleep and have a reason to wake up.  Of several who want
# to lead a lock one does, and its answer tells which; who only observes may see
# the lock before that or after.
sub settle_sleepers
{
	my %seen;
	while (my @ready = grep { $model->is_ready($_) } $model->sleepers)
	{
		my @candidates = grep { $model->{sessions}[$_]{stmt}{ops}[0]{f} eq 'campaign' } @ready;
		if (@candidates)
		{
			my $lock = $model->{sessions}[$candidates[0]]{sleeps}{lock};
			foreach my $s (grep { $model->{sessions}[$_]{sleeps}{lock} eq $lock } @ready)
			{
				push @{$seen{$s}}, $model->answer_now($s) if $model->{sessions}[$s]{stmt}{ops}[0]{f} eq 'observe';
			}
			@candidates = grep { $model->{sessions}[$_]{sleeps}{lock} eq $lock } @candidates;
		}
		my $s = @candidates > 1 ? first_to_answer(@candidates) : @candidates ? $candidates[0] : $ready[0];
		note($s, '  -- wakes up');
		my $outcome = $model->resume($s, $woken_since);
		remember_begun($s);
		$outcome->{values} = [{any_of => [@{$seen{$s}}, @{$outcome->{values}}]}] if $seen{$s};
		collect($s, $outcome);
		push @woken, $s;
	}
	return;
}

# Wait until the lease of a term that this session sees has run out.
sub await_end
{
	my ($s, $term) = @_;
	my $end = time() + $PATIENCE;
	$woken_since = Model::now();
	while (defined $sessions[$s]->must("SELECT le_leader(@{[sql_int($term->{lock})]})")->[0][0])
	{
		failure($s, "term $term->{seq} of lock $term->{lock} runs out", 'it does not') if time() > $end;
		sleep 0.001;
	}
	$model->expire($term);
	note($s, "  -- the lease of $term->{inst} on lock $term->{lock} has run out");
	return;
}

# Read the tokens of the terms that a session has begun, and let run out what
# is short.  Nothing else may be running: a look at a vacant lock holds it for
# an instant.
sub look_after
{
	my ($s) = @_;
	foreach my $term (@{delete $pending{$s} // []})
	{
		my $session = $model->{sessions}[$s];
		my $row = $model->row($session, $term->{lock});
		next unless $row && $row->{seq} == $term->{seq};
		my $who = Model::is_own($session, $term->{lock}) ? $s : $admin_index;
		my $rows = $sessions[$who]->must("SELECT token, leader_id FROM leader_lease WHERE id = @{[sql_int($term->{lock})]}");
		my $wrong = @{$rows} != 1 ? 'no row' : $rows->[0][1] ne $term->{inst} ? "is of $rows->[0][1]" : $model->learn($term, $rows->[0][0]);
		failure($s, "term $term->{seq} of lock $term->{lock}", $wrong) if $wrong;
		await_end($who, $term) if $term->{ms} <= $SHORT_MS && $term->{live};
	}
	my $kept = $model->{tokens};
	foreach my $lock (keys %{$kept}) { shift @{$kept->{$lock}} while @{$kept->{$lock}} > 6 }
	return;
}

sub remember_begun
{
	my ($s) = @_;
	push @{$pending{$s}}, $model->take_begun;
	return;
}

# Go on with all whose wait has ended.
sub settle
{
	my @done;
	my @still;
	while (my ($s, $outcome) = $model->wake)
	{
		remember_begun($s);
		if   (defined $outcome->{wait}) { push @still, [$s, $outcome] }
		else                            { push @done, [$s, $outcome] }
	}
	collect(@{$_}) foreach @done;
	settle_sleepers();
	confirm_wait(@{$_}) foreach @still;
	look_after($_) foreach splice(@woken), map { $_->[0] } @done;
	return;
}

# One answer has come, or the model says that none will.
sub follow
{
	my ($s, $outcome) = @_;
	remember_begun($s);
	if (defined $outcome->{sleep})
	{
		if ($model->{sessions}[$s]{stmt}{ops}[0]{wait} < $LONG_MS)
		{
			sit_out($s);
		}
		else
		{
			confirm_sleep($s);
		}
	}
	elsif (!defined $outcome->{wait})
	{
		collect($s, $outcome);
		# what this one has begun is looked at when nobody runs any more
		settle();
		look_after($s);
	}
	elsif ($outcome->{cycle})
	{
		break_deadlock(@{$outcome->{cycle}});
	}
	else
	{
		confirm_wait($s, $outcome);
	}
	return;
}

sub execute
{
	my ($s, $stmt) = @_;
	$step++;
	$stmt_of{$s} = $stmt;
	$woken_since = Model::now();
	my $outcome = $model->start($s, $stmt);
	send_statement($s, $stmt);
	follow($s, $outcome);
	# a prepared transaction that the model lets pass has done nothing
	$sessions[$admin_index]->must("ROLLBACK PREPARED 'p'")
	  if ($outcome->{tag} // '') eq 'PREPARE TRANSACTION';
	return;
}

# Somebody is the victim, the server decides who.
sub break_deadlock
{
	my (@members) = @_;
	my $end = time() + $PATIENCE;
	my $victim;
	until (defined $victim)
	{
		# the others may get what they wait for as soon as it is gone
		foreach my $s (@members)
		{
			my $answer = $sessions[$s]->peek(0.005);
			$victim = $s if $answer && ($answer->{sqlstate} // '') eq '40P01';
		}
		failure($members[0], 'a deadlock', 'nobody is its victim') if time() > $end;
	}
	note($victim, '  -- is the victim of a deadlock');
	$model->counted('deadlock', 'broken');
	follow($victim, $model->interrupt($victim, '40P01'));
	return;
}

# A statement that will wait, but not for long: lock_timeout or the like
sub execute_bounded
{
	my ($s, $stmt, $at_commit) = @_;
	# the server ends statement_timeout before it commits
	my ($setting, $sqlstate) = $at_commit || chance(60) ? ("lock_timeout = '20ms'", '55P03') : ("statement_timeout = '60ms'", '57014');
	my $in_block = $model->{sessions}[$s]{block};
	$step++;
	$stmt_of{$s} = $stmt;
	my $prefix = ($in_block ? 'SET LOCAL ' : 'SET ') . $setting;
	note($s, "$prefix;");
	$sessions[$s]->must($prefix);
	$woken_since = Model::now();
	$model->start($s, $stmt);
	send_statement($s, $stmt);
	follow($s, $model->interrupt($s, $sqlstate));
	if (!$in_block)
	{
		note($s, 'RESET lock_timeout; RESET statement_timeout;');
		foreach my $name (qw(lock_timeout statement_timeout))
		{
			my $tries = 0;
			while (defined $sessions[$s]->query("RESET $name")->{sqlstate})
			{
				failure($s, "RESET $name", 'fails') if ++$tries > 100;
			}
		}
	}
	return;
}

# ---- Violence ----

sub gone
{
	my ($pid) = @_;
	my $end = time() + $PATIENCE;
	while ($sessions[$admin_index]->must("SELECT count(*) FROM pg_stat_activity WHERE pid = $pid")->[0][0])
	{
		failure($admin_index, "backend $pid ends", 'it does not') if time() > $end;
		sleep 0.001;
	}
	return;
}

sub connect_session
{
	my ($s) = @_;
	$sessions[$s] = Session->new(socket_path => $opt{socket}, name => $s == $admin_index ? 'adm' : "s$s");
	return;
}

sub lose_session
{
	my ($s, $how) = @_;
	my $pid = $sessions[$s]->pid;
	$step++;
	note($s, "-- $how");
	$model->counted($how, $model->{sessions}[$s]{sleeps} ? 'asleep' : $model->is_waiting($s) ? 'waiting' : Model::status($model->{sessions}[$s]));
	$woken_since = Model::now();
	if ($how eq 'terminate')
	{
		$sessions[$admin_index]->must("SELECT pg_terminate_backend($pid)");
		my $answer = $sessions[$s]->collect($PATIENCE);
		failure($s, '57P01', show_answer($answer)) unless $answer && ($answer->{sqlstate} // '') eq '57P01';
	}
	$sessions[$s]->disconnect;
	gone($pid);
	delete $pending{$s};
	$model->disconnect($s);
	settle();
	connect_session($s);
	return;
}

sub cancel
{
	my ($s) = @_;
	$step++;
	note($s, '-- cancel');
	$woken_since = Model::now();
	$sessions[$s]->cancel;
	follow($s, $model->interrupt($s, '57014'));
	return;
}

# ---- The whole ----

sub end_all
{
	cancel($_) foreach $model->sleepers;
	for (;;)
	{
		my @open = grep { $model->{sessions}[$_]{block} && !$model->is_waiting($_) } 0 .. $#sessions;
		last unless @open;
		my $s = pick(@open);
		my $commit = control('COMMIT', f => 'commit');
		execute($s, chance(50) && rehearse($s, $commit) ? $commit : control('ROLLBACK', f => 'rollback'));
	}
	my @waiting = $model->waiting;
	failure($waiting[0], 'nobody has an open transaction', 'and somebody waits') if @waiting;
	return;
}

# Nobody is in a transaction: everything must be as the model says.
sub check_all
{
	end_all();
	execute($admin_index, single($view_op));
	execute($admin_index, single($info_op));

	my $held = $sessions[$admin_index]->must(
		q{SELECT pid, classid, objid, objsubid, mode FROM pg_locks
		  WHERE locktype = 'advisory' AND objsubid IN (19525, 19526)});
	failure($admin_index, 'no lock is held', join(' ', map { $_ // '' } @{$held->[0]})) if @{$held};

	# whoever comes can take what is vacant, and nothing else
	execute($admin_index, control('BEGIN', f => 'begin'));
	execute($admin_index, allow(1, 1));
	my $probe = {sql => q{'probe'}, str => 'probe'};
	execute($admin_index, of_calls('select', map { call('acquire', lock => $_, inst => $probe, ms => 3_600_000) } @locks));
	execute($admin_index, control('ROLLBACK', f => 'rollback'));
	return;
}

sub grant
{
	$sessions[$admin_index]->must($_) foreach
	  'GRANT EXECUTE ON FUNCTION le_try_acquire, le_renew, le_release, le_is_leader, le_leader, le_token, le_guard, le_sweep, le_info, le_leases, le_transfer, le_campaign, le_keep_alive, le_observe TO app, other',
	  'GRANT EXECUTE ON FUNCTION le_request_resign, le_revoke TO app',
	  'GRANT SELECT ON leader_lease TO app, other';
	return;
}

my $schema = 'public';

# What an administrator does to the extension, while nobody is in a transaction
sub administer
{
	my $admin = $sessions[$admin_index];
	my $what = pick_weighted(3 => 'schema', 2 => 'drop', 2 => 'undo');
	$step++;
	note($admin_index, "-- $what");
	$model->counted('administer', $what);
	if ($what eq 'schema')
	{
		$schema = $schema eq 'public' ? 'elsewhere' : 'public';
		$admin->must("ALTER EXTENSION leader_election SET SCHEMA $schema");
	}
	elsif ($what eq 'undo')
	{
		$admin->must($_) foreach 'BEGIN', 'DROP EXTENSION leader_election';
		$admin->must('CREATE EXTENSION leader_election') if chance(50);
		$admin->must('ROLLBACK');
	}
	else
	{
		$admin->must('DROP EXTENSION leader_election');
		$model->drop_extension;
		foreach (1 .. 3)
		{
			my $s = int(rand($opt{sessions}));
			execute($s, chance(20) ? single($view_op) : of_calls('select', random_call($s, 0)));
		}
		$schema = 'public';
		$admin->must('CREATE EXTENSION leader_election');
		$model->create_extension;
		grant();
	}
	return;
}

# ---- Which statement ----

# Will it be over when its wait is?
sub is_simple
{
	my ($session, $stmt) = @_;
	my @guards = Model::guards($session);
	return @{$stmt->{ops}} == 1 && ($session->{waits}{terms} ? @guards == 1 : $session->{block} || !@guards);
}

# With others asleep nothing must happen to their lock that they may or may not
# see: no two steps in one, no term that runs out at once, and nobody who waits
# for the lock itself.
sub may_be_among_sleepers
{
	my ($s, $stmt, $copy, $outcome) = @_;
	my @sleepers = grep { $_ != $s } $copy->sleepers;
	my %of_sleeper = map { $copy->{sessions}[$_]{sleeps}{lock} => 1 } @sleepers;
	return 0 if @sleepers && @{$stmt->{ops}} > 1 && grep { $_->{f} eq 'sweep' || defined $_->{lock} && $of_sleeper{$_->{lock}} } @{$stmt->{ops}};
	return 0 if grep { $_->{ms} <= $SHORT_MS && $of_sleeper{$_->{lock}} } @{$copy->{begun}};
	if (defined $outcome->{wait})
	{
		return 0 if @sleepers && (!is_simple($copy->{sessions}[$s], $stmt) || $of_sleeper{$outcome->{wait}});
	}
	if (defined $outcome->{sleep})
	{
		return 0 if @{$stmt->{ops}} > 1 || $stmt->{kind} ne 'select' || @sleepers > 1;
		return 0 if $stmt->{ops}[0]{is_default} || ($stmt->{ops}[0]{ms} // $LONG_MS) <= $SHORT_MS;
		# two of one name are one leader, and the second would be told of the first
		my $inst = $stmt->{ops}[0]{inst};
		return 0 if $inst && grep { $_ != $s && $copy->{sessions}[$_]{stmt}{ops}[0]{inst}{str} eq $inst->{str} } $copy->candidates($outcome->{sleep});
		foreach my $w ($copy->waiting)
		{
			my $other = $copy->{sessions}[$w];
			return 0 if !is_simple($other, $other->{stmt}) || $other->{waits}{lock} eq $outcome->{sleep};
		}
	}
	return 1;
}

# May a statement that will wait do so?  What is woken runs side by side with
# others that are, and then what one does must not show in what another is
# told; and beside the one that wakes it, which may not yet have let go of all
# its locks, so it must not challenge for another one.  And a deadlock is to
# be one circle.
sub may_wait
{
	my ($stmt, $session) = @_;
	my $lock = $session->{waits}{lock};
	my @waiting = $model->waiting;
	return 0 if grep { $_->{wait} || $_->{f} =~ /^(acquire|campaign|sweep)$/ } @{$stmt->{ops}}[$session->{pc} + 1 .. $#{$stmt->{ops}}];
	return 1 unless @waiting;
	return 0 unless is_simple($session, $stmt);
	foreach my $w (@waiting)
	{
		my $other = $model->{sessions}[$w];
		return 0 unless is_simple($other, $other->{stmt});
		next if $other->{waits}{lock} ne $lock;
		return 0 if grep { $_->{waits}{mode} ne 'share' || $_->{stmt}{ops}[0]{f} =~ /^(acquire|campaign)$/ } $session, $other;
	}
	return 1;
}

# Is this statement one whose answer can be told?  Tries it on a copy of the
# model.  Returns what it will do, or nothing.
sub rehearse
{
	my ($s, $stmt) = @_;
	# of all others only a commit of a guarded transaction can wait
	return {} if $stmt->{kind} eq 'control' && ($stmt->{ops}[0]{f} ne 'commit' || !Model::guards($model->{sessions}[$s]));
	# a hold that short is over by now, unless its term begins just now
	my $is_short = grep { ($_->{hold} // 0) =~ /^[1-3]$/ } @{$stmt->{ops}};
	sleep 0.004 if $is_short;
	my $copy = dclone($model);
	$copy->{ambiguous} = 0;
	my ($is_default) = grep { $_->{is_default} } @{$stmt->{ops}};
	$copy->{begun} = [];
	my $outcome = $copy->start($s, $stmt);
	return if $copy->{ambiguous};
	return unless may_be_among_sleepers($s, $stmt, $copy, $outcome);
	if (defined $outcome->{wait})
	{
		return if $is_short || !may_wait($stmt, $copy->{sessions}[$s]);
		$outcome->{is_simple} = is_simple($copy->{sessions}[$s], $stmt);
		$outcome->{at_commit} = defined $copy->{sessions}[$s]{waits}{terms};
	}

	# a term of ten seconds would run out when it likes
	return if $is_default && (defined $outcome->{wait} || grep { $_->{ms} == 10_000 } @{$copy->{begun}});
	return $outcome;
}

sub generate
{
	my ($s) = @_;
	my $session = $model->{sessions}[$s];
	# a leader who asks in a block, and may find that somebody else leads
	my $waiter = $session->{block} && !$session->{failed} && chance(5) ? random_waiter($s, 'acquire') : undef;
	return (allow(1, 1), of_calls('select', $waiter)) if $waiter;
	my $calls = $session->{failed} ? 8 : $session->{block} ? 62 : 55;
	return random_control($s, $session) unless chance($calls);
	return random_calls($s, $session);
}

# Execute a statement unless its answer cannot be told.
sub try_to_execute
{
	my ($s, $stmt) = @_;
	my $outcome = rehearse($s, $stmt);
	if (!$outcome)
	{
		$skipped++;
		return;
	}
	if ($outcome->{is_simple} && !$outcome->{cycle} && chance(20))
	{
		execute_bounded($s, $stmt, $outcome->{at_commit});
		return;
	}
	execute($s, $stmt);
	return;
}

sub free_sessions
{
	return grep { !$model->is_waiting($_) } 0 .. $opt{sessions} - 1;
}

sub begin_block
{
	my ($s) = @_;
	execute($s, control('SET ROLE NONE', f => 'set', name => 'role', value => undef, local => 0, tag => 'SET'));
	execute($s, control('BEGIN', f => 'begin'));
	return;
}

# Several sessions begin to change different locks, so that others meet them;
# some of them are guarded for what the next one changes, and for what nobody
# changes yet, and some make another instance the leader.
sub scene
{
	my @idle = grep { !$model->{sessions}[$_]{block} } free_sessions();
	my @terms = shuffle(grep { instance_of($_) && !defined $model->blocker($admin_index, $_->{lock}, 'exclusive') }
		  grep { $_ && $_->{live} } map { $model->{committed}{$_} } @locks);
	my @others = splice(@terms, min(@idle + 0, int(@terms * 2 / 3)));
	begin_block($_) foreach @idle[0 .. $#terms];
	foreach my $i (0 .. $#terms)
	{
		next if chance(40);
		my @guarded = (chance(50) ? @others[0 .. min(0, $#others)] : (), $terms[($i + 1) % @terms]);
		execute($idle[$i], of_calls('select', map { call('guard', lock => $_->{lock}, inst => instance_of($_)) } @guarded));
	}
	foreach my $i (0 .. $#terms)
	{
		my $lock = $terms[$i]{lock};
		execute($idle[$i], allow(1, 1)) if chance(40);
		execute($idle[$i], of_calls('select', call('release', lock => $lock, inst => instance_of($terms[$i]))));
		execute($idle[$i], of_calls('select', call('acquire', lock => $lock, inst => pick(@instances), ms => 3_600_000)))
		  if $model->{sessions}[$idle[$i]]{set}{allow};
	}
	return;
}

# Make a lock vacant that nobody waits for and holds.
sub vacate_one
{
	my ($lock) = grep { !defined $model->blocker($admin_index, $_, 'exclusive') && !$model->sleepers($_) } shuffle(@locks);
	return unless defined $lock;
	my $row = $model->{committed}{$lock};
	return $lock unless $row && Model::rests($row);
	if ($row->{live})
	{
		execute($admin_index, of_calls('select', call('release', lock => $lock, inst => instance_of($row))));
		return $lock;
	}
	execute($admin_index, of_calls('select', call('revoke', lock => $lock, immediately => 1))) if $row->{bars};
	# nobody is banned who has been followed
	my $next = {sql => q{'next'}, str => 'next'};
	execute($admin_index, of_calls('select', call('acquire', lock => $lock, inst => $next, ms => 3_600_000)));
	execute($admin_index, of_calls('select', call('release', lock => $lock, inst => $next)));
	return $lock;
}

# A lease runs out under the transactions that are guarded for it, perhaps
# while one of them waits in its commit.  Nobody else may do anything until
# then, and what must be done while it is live is left out if time is short.
sub run_out
{
	my $lock = vacate_one();
	return unless defined $lock;
	my $inst = pick(@instances);

	my $sent = time();
	my $hurry = sub { return time() - $sent > $SCENE_MS / 2000 };
	execute($admin_index, of_calls('select', call('acquire', lock => $lock, inst => $inst, ms => $SCENE_MS)));
	my $term = $model->{committed}{$lock};
	my @guarded;
	foreach my $s (shuffle(grep { !$model->{sessions}[$_]{failed} } free_sessions()))
	{
		last if @guarded == 3;
		begin_block($s) unless $model->{sessions}[$s]{block};
		execute($s, control('SAVEPOINT r', f => 'savepoint', name => 'r')) if chance(50);
		last if $hurry->();
		execute($s, of_calls('select', call('guard', lock => $lock, inst => $inst)));
		next if $model->{sessions}[$s]{failed};
		execute($s, control('RELEASE r', f => 'release_savepoint', name => 'r'))
		  if chance(30) && ($model->{sessions}[$s]{levels}[-1]{name} // '') eq 'r';
		push @guarded, $s;
	}
	if (@guarded && chance(50) && !$hurry->())
	{
		my $s = shift @guarded;
		my $is_undone = chance(40);
		execute($s, control('SAVEPOINT t', f => 'savepoint', name => 't')) if $is_undone;
		execute($s, of_calls('select', call('release', lock => $lock, inst => $inst)));
		try_to_execute(shift @guarded, control('COMMIT', f => 'commit')) if @guarded && chance(60) && !$hurry->();
		execute($s, control('ROLLBACK TO t', f => 'rollback_to', name => 't')) if $is_undone && !$hurry->();
	}
	await_end($admin_index, $term);
	settle();
	return;
}

# What a row rests on ends by itself, and whoever sleeps until then wakes up, not
# sooner.
sub let_end
{
	my ($row, $what) = @_;
	my ($lo, $hi) = Model::bounds($what eq 'live' ? $model->end_of_term($row) : $row->{"${what}_end"});
	my $is_early = sub { return Model::now() < $lo };
	while ($is_early->())
	{
		my @early = grep { $sessions[$_]->peek(0.001) } $model->sleepers($row->{lock});
		failure($early[0], 'sleeps', show_answer($sessions[$early[0]]->peek(0))) if @early && $is_early->();
		sleep 0.001;
	}
	sleep max(0, $hi + 2 - Model::now()) / 1000;
	$woken_since = $lo;
	$model->expire($row, $what);
	note($admin_index, "  -- $row->{inst} on lock $row->{lock}: $what is over");
	settle();
	return;
}

# A lease, a hold, a revocation and a ban end by themselves, and some wait for
# that.  As with run_out(), nobody else does anything.
sub time_passes
{
	my $lock = vacate_one();
	return unless defined $lock;
	my ($inst, @others) = shuffle(@instances);
	my $sent = time();
	my $hurry = sub { return time() - $sent > $SCENE_MS / 2000 };
	my $execute = sub { execute($_[0], of_calls('select', call($_[1], lock => $lock, @_[2 .. $#_]))) };
	$execute->($admin_index, 'acquire', inst => $inst, ms => $SCENE_MS);
	my $how = pick(qw(lease hold hold revoke revoke revoke_now transfer));
	$execute->($admin_index, 'renew', inst => $inst) if chance(50);
	return run_down($lock) if $hurry->();
	$execute->($admin_index, 'release', inst => $inst, hold => $SCENE_MS) if $how eq 'hold';
	$execute->($admin_index, 'revoke') if $how eq 'revoke';
	$execute->($admin_index, 'revoke', immediately => 1) if $how eq 'revoke_now';
	$execute->($admin_index, 'transfer', inst => $inst, token => $model->{committed}{$lock}{token}, successor => $others[0])
	  if $how eq 'transfer';

	foreach my $s (grep { !$model->{sessions}[$_]{block} } shuffle(free_sessions()))
	{
		last if chance(35) || $hurry->();
		my $wants = chance(70);
		try_to_execute($s, of_calls('select', $wants
				? call('campaign', lock => $lock, inst => pick($inst, @others), ms => 3_600_000,
					wait => pick(1 + int(rand(20)), $LONG_MS, $LONG_MS), priority => int(rand(3)))
				: call('observe', lock => $lock, known => $model->{committed}{$lock}{token}, wait => $LONG_MS)));
	}
	$execute->($admin_index, pick('campaign', 'acquire'), inst => $inst, ms => 3_600_000) if chance(50) && !$hurry->();
	$execute->($admin_index, 'observe') unless $hurry->();
	run_down($lock);
	return;
}

# Until nothing rests on the row of a lock, or somebody has begun a long term
sub run_down
{
	my ($lock) = @_;
	for (;;)
	{
		my $row = $model->{committed}{$lock} or return;
		my ($what) = grep { $row->{$_} } qw(live bars bans);
		return if !defined $what || $row->{ms} > $SCENE_MS;
		let_end($row, $what);
	}
}

# A ban of a minute would end when it likes: somebody else leads before.
sub end_bans
{
	my $soon = Model::now() + 20_000;
	foreach my $row (grep { $_ && $_->{state} eq 'i' && $_->{bans} } values %{$model->{committed}})
	{
		next if (Model::bounds($row->{bans_end}))[0] > $soon || defined $model->blocker($admin_index, $row->{lock}, 'exclusive');
		execute($admin_index, of_calls('select', call('acquire', lock => $row->{lock}, inst => {sql => q{'next'}, str => 'next'}, ms => 3_600_000)));
	}
	return;
}

sub one_step
{
	my @waiting = ($model->waiting, $model->sleepers);

	check_asleep();
	if (@waiting && chance(4))
	{
		my $s = pick(@waiting);
		return lose_session($s, 'disconnect') if $model->{sessions}[$s]{sleeps} && chance(5);
		return chance(60) ? cancel($s) : lose_session($s, 'terminate');
	}
	return scene() if chance(1);
	end_bans();
	return run_out() if chance(0.2);
	return time_passes() if chance(0.2);
	my $s = pick(free_sessions());
	return lose_session($s, chance(80) ? 'disconnect' : 'terminate') if chance(0.6);

	try_to_execute($s, $_) foreach generate($s);
	return;
}

sub print_summary
{
	my $count = $model->{count};
	print "\n";
	foreach my $f (sort keys %{$count})
	{
		printf "  %-18s %s\n", $f, join('  ', map { "$_ $count->{$f}{$_}" } sort keys %{$count->{$f}});
	}
	printf "  %d terms, %d waits, %d statements skipped, %.0f s\n", $model->{seq}, $model->{waits}, $skipped, time() - $started;
	return;
}

print "seed $opt{seed}: $opt{steps} steps, $opt{sessions} sessions, at most $opt{seconds} s\n";
connect_session($_) foreach 0 .. $admin_index;
$prepared = $sessions[$admin_index]->must('SHOW max_prepared_transactions')->[0][0];
grant();

eval {
	my $next_check = $BATCH;
	while ($step < $opt{steps} && time() - $started < $opt{seconds})
	{
		one_step();
		next if $step < $next_check;
		check_all();
		administer() if chance(25);
		$next_check = $step + $BATCH;
	}
	check_all();
	1;
} or failure($admin_index, 'no error', $@);

print_summary();
print "fuzz: passed, $step steps\n";
