package Model;

# What the server must answer: the executable specification of one database's
# elections, as seen by several sessions that send one statement at a time.
#
#   term     {lock, inst, ms, role, info, seq, token, live}.  Never changes, but
#            that its token becomes known and that it runs out (live = 0).  The
#            fuzzer says when: see expire().
#   rest     what a hold (state h) or a revocation (r, i) leaves of a term, with
#            a token of its own: {state} and the same as a term, never live.
#            {bars} everybody (h), all but the one it names (r); {bans} the one
#            it names (r, i).  Both end as a term does.
#   row      per lock the committed term or rest, or none ({committed}), and what
#            the transaction of a session has made of it ({levels}, one for the
#            transaction and one for each savepoint).  Who has written the row
#            of a lock holds the lock until that is committed or undone.
#   end      of all these, by the clock of the fuzzer: {moments, plus}, so many ms
#            after one of these moments.  A moment {lo, hi} is the time between
#            sending a statement and having its answer.
#   guard    a term that a transaction depends on, in the order of le_guard()'s
#            calls; no savepoint undoes it.  At commit all locks are taken in
#            share mode, or none, and each term is looked at.  A level notes the
#            terms that it has ended by itself ({ended}).  A call that fails
#            ({refused}) lets no transaction commit that has written ({made}).
#            All are those of SELECTs outside of a block ({alone}): a warning
#            at commit, if nothing was written.
#   entry    per lock the heartbeats in memory: {term, renewals, marked, beats}.
#            It is nobody's transaction.  It speaks without the row while it is
#            not marked and its term is live.  It keeps its place for a term
#            that has had no heartbeat yet ({reserved}), and goes when both
#            terms are no more.  {resign}: the term that was asked to go.
#            {awaited}: until when somebody waits for the lock, and {maybe} if
#            who waits may not have said so.
#   change   a term that a transaction has begun or ended, in order, per level:
#            {begun => term, before => reserved before} or {ended => term}.
#            A commit gives the memory of those that have ended back, and
#            whatever undoes the level that of those that had begun.
#
# A session waits for a lock that another one holds only if the row names it as
# the live holder, or, in le_renew() and le_release(), a marked entry does and
# the row tells of no other term.  For a guard it waits at COMMIT, or whatever commits, and only while all terms that
# are guarded are live.
#
# A session with a wait_ms holds nothing and sleeps ({sleeps}) until its call has
# an answer: is_ready() says when, and resume() what it is.  If several
# candidates are ready, the fuzzer sees who was faster.
#
# A statement is {kind, sql, ops}: kind is control (one op of CONTROL below),
# select (all calls in one SELECT), multi (several statements sent at once),
# pipeline, or do (a PL/pgSQL block).  start() and whatever ends a wait return
# an outcome:
#   {wait => lock, mode => share or exclusive, cycle => [sessions]}
#                                         it waits, perhaps in a deadlock
#   {sleep => lock}                       it sleeps
#   {values => [...]}                     it is done
#   {error => SQLSTATE, values => [...]}  it has failed, after these notices
# each with the transaction {status} that the server reports with it, and whether
# it {warns} of a guard without work.

use strict;
use warnings;
use List::Util qw(max min);
use Time::HiRes qw(clock_gettime);

use constant {
	CLOCK_MONOTONIC_RAW => 4,    # that of the server's leases
	INSTANCE_MAX => 127,
	INFO_MAX => 512,
	LEASE_MS_MAX => 86_400_000,
	WAIT_MS_MAX => 60_000,
	BAN_MS_MAX => 60_000,
	ANY_TOKEN => '-9223372036854775808',
};

# Functions that anybody may execute, those of operators, and all others need
# the grant
my %public = map { $_ => 1 } qw(instance lock_id fail noise expire);
my %for_operators = map { $_ => 1 } qw(request_resign revoke);

# Not caught by EXCEPTION WHEN OTHERS
my %uncaught = map { $_ => 1 } qw(57014 57P01);

sub new
{
	my ($class, $sessions) = @_;
	my $self = bless {
		sessions => [],
		committed => {},
		entry => {},
		orphans => [],  # entries of extensions that were dropped
		exists => 1,    # the extension
		seq => 0,       # terms begun
		waits => 0,
		tokens => {},   # lock => [[seq, token], ...]
		count => {},    # function => outcome => how often
		begun => [],    # terms since the fuzzer last asked
	}, $class;
	$self->connect($_) foreach 0 .. $sessions - 1;
	return $self;
}

# A new connection, as the superuser who owns the extension
sub connect    ## no critic: a session does connect
{
	my ($self, $s) = @_;
	$self->{sessions}[$s] = {
		block => 0,     # BEGIN was sent
		failed => 0,
		levels => [],   # empty: no transaction
		guards => [],
		set => default_settings(),
	};
	return;
}

# Settings as they are now; those with _s are what a COMMIT leaves
sub default_settings
{
	return {
		allow => 0, allow_s => 0, dro => 0, dro_s => 0,
		role => undef, role_s => undef, user => 'postgres', ro => 0
	};
}

# ---- Roles ----

sub role
{
	my ($session) = @_;
	return $session->{set}{role} // $session->{set}{user};
}

sub has_privs_of
{
	my ($role, $other) = @_;
	return $role eq 'postgres' || $role eq $other || ($role eq 'member' && $other eq 'app');
}

sub may_execute
{
	my ($session, $function) = @_;
	return 1 if $public{$function};
	return role($session) =~ ($for_operators{$function} ? qr/^(postgres|app|member)$/ : qr/^(?!stranger)/) ? 1 : 0;
}

# ---- Time, in milliseconds ----

sub now { return 1000 * clock_gettime(CLOCK_MONOTONIC_RAW) }

# The server keeps everything 1/10 longer than its client counts.
sub length_of { return $_[0] * 1.1 }
sub ban_of    { return min(length_of($_[0]), BAN_MS_MAX) }

# The earliest and the latest moment of an end.  Of heartbeats the last one
# counts; in a row some may have been undone.
sub bounds
{
	my ($end) = @_;
	my @lo = map { $_->{lo} } @{$end->{moments}};
	my $lo = $end->{last_counts} ? max(@lo) : min(@lo);
	return ($lo + $end->{plus}, max(map { $_->{hi} // now() } @{$end->{moments}}) + $end->{plus});
}

# The end of a live term, if nobody renews it
sub end_of_term
{
	my ($self, $term) = @_;
	my $entry = $self->{entry}{$term->{lock}};
	return {moments => [@{$entry->{beats}}], plus => length_of($term->{ms}), last_counts => 1}
	  if $entry && same($entry->{term}, $term);
	return {moments => [@{$term->{begun}}], plus => length_of($term->{ms})};
}

# The end of what keeps a lock from an instance (undef: from all others), undef
# if nothing does
sub end_of
{
	my ($self, $row, $inst) = @_;
	my $end;
	if ($row && $row->{state} eq 'l')
	{
		$end = $self->end_of_term($row) if $row->{live};
	}
	elsif ($row)
	{
		my $is_banned = $row->{state} ne 'h' && ($inst // '') eq $row->{inst};
		my $what = $is_banned ? 'bans' : 'bars';
		$end = $row->{"${what}_end"} if $row->{$what};
	}
	return $end;
}

# Does anything rest on this row?
sub rests
{
	my ($row) = @_;
	return grep { $_ } @{$row}{qw(live bars bans)};
}

# ---- Transactions ----

# What a level has written and ended
sub nothing_done
{
	return (writes => {}, ended => {}, changes => []);
}

sub push_level
{
	my ($session, %level) = @_;
	push @{$session->{levels}}, {nothing_done(), saved => {%{$session->{set}}}, %level};
	return;
}

sub begin
{
	my ($session) = @_;
	$session->{made} = 0;     # a transition, even if it was undone
	$session->{begun} = [];   # terms begun in a block
	$session->{guards} = [];
	$session->{refused} = 0;  # a guard
	$session->{alone} = 1;    # all guards are
	$session->{pipelining} = 0;   # statements that are not the first
	$session->{immediate} = 0;    # commit as soon as the statement is done
	push_level($session);
	$session->{set}{ro} = $session->{set}{dro};
	return;
}

# Undo the innermost level but keep it.
sub undo_level
{
	my ($self, $session) = @_;
	my $level = $session->{levels}[-1];
	foreach my $change (reverse @{$level->{changes}})
	{
		$self->forget($change->{begun}, $change->{before}) if $change->{begun};
	}
	%{$level} = (%{$level}, nothing_done());
	$session->{set} = {%{$level->{saved}}};
	return;
}

# Make the innermost level part of the one around it.
sub release_level
{
	my ($session) = @_;
	my $level = pop @{$session->{levels}};
	my $outer = $session->{levels}[-1];
	foreach my $what (qw(writes ended))
	{
		$outer->{$what}{$_} = $level->{$what}{$_} foreach keys %{$level->{$what}};
	}
	push @{$outer->{changes}}, @{$level->{changes}};
	$session->{set}{ro} = $level->{saved}{ro};
	return;
}

sub end_transaction
{
	my ($session) = @_;
	$session->{levels} = [];
	$session->{guards} = [];
	$session->{block} = 0;
	$session->{failed} = 0;
	$session->{set}{ro} = 0;
	return;
}

sub rollback
{
	my ($self, $session) = @_;
	while (@{$session->{levels}})
	{
		$self->undo_level($session);
		pop @{$session->{levels}};
	}
	end_transaction($session);
	return;
}

# Returns an error if the commit is refused, then all is undone; or that it
# waits, then it is called again.
sub commit
{
	my ($self, $s, $session) = @_;
	release_level($session) while @{$session->{levels}} > 1;
	my $stops = $self->check_refused($session) // $self->check_guards($s, $session);
	if ($stops)
	{
		$self->rollback($session) if $stops->{error};
		return $stops;
	}
	foreach my $term (@{$session->{begun}})
	{
		my $row = $self->row($session, $term->{lock});
		next if !$row || $row->{seq} != $term->{seq} || $row->{live};
		$self->rollback($session);
		return error('LE001');
	}
	my $writes = $session->{levels}[0]{writes};
	$self->{committed}{$_} = $writes->{$_} foreach keys %{$writes};
	foreach my $change (reverse @{$session->{levels}[0]{changes}})
	{
		$self->forget($change->{ended}) if $change->{ended};
	}
	$session->{set}{$_} = $session->{set}{"${_}_s"} foreach qw(allow dro role);
	end_transaction($session);
	return;
}

# What keeps a transaction from its commit that was refused a guard, or nothing
sub check_refused
{
	my ($self, $session) = @_;
	return unless $session->{refused};
	$self->counted('refused', $session->{made} ? 'LE001' : 'has only read');
	return $session->{made} ? error('LE001') : undef;
}

# What keeps a guarded transaction from its commit, or nothing
sub check_guards
{
	my ($self, $s, $session) = @_;
	my $top = $session->{levels}[0];
	my @terms = grep { !$top->{ended}{$_->{seq}} } guards($session);
	my ($busy) = grep { defined $self->blocker($s, $_->{lock}, 'share') } @terms;
	foreach my $term (@terms)
	{
		my $row = $self->row($session, $term->{lock});
		next if $term->{live} && $row && $row->{seq} == $term->{seq};
		$self->counted('guarded', 'LE001');
		return error('LE001');
	}
	return {wait => $busy->{lock}, mode => 'share', terms => \@terms} if $busy;
	$self->counted('guarded', 'live') foreach @terms;
	$self->counted('guarded', 'own release') foreach @terms .. $#{$session->{guards}};
	if (guards($session) && $session->{alone} && !$session->{made})
	{
		$self->counted('guarded', 'alone');
		$session->{warns} = 1;
	}
	return;
}

# A statement has failed outside of any handler.
sub fail_statement
{
	my ($self, $session) = @_;
	$self->pop_handler($session);
	if (!$session->{block})
	{
		$self->rollback($session);
		return;
	}
	$self->undo_level($session);
	$session->{failed} = 1;
	return;
}

# Undo and remove the levels of PL/pgSQL's EXCEPTION blocks.
sub pop_handler
{
	my ($self, $session) = @_;
	while ($session->{levels}[-1]{handler})
	{
		$self->undo_level($session);
		pop @{$session->{levels}};
	}
	return;
}

sub status
{
	my ($session) = @_;
	return $session->{failed} ? 'E' : $session->{block} ? 'T' : 'I';
}

# ---- What a session sees, and who holds what ----

# The row of a lock: a term, or undef
sub row
{
	my ($self, $session, $lock) = @_;
	foreach my $level (reverse @{$session->{levels}})
	{
		return $level->{writes}{$lock} if exists $level->{writes}{$lock};
	}
	return $self->{committed}{$lock};
}

sub is_own
{
	my ($session, $lock) = @_;
	return grep { exists $_->{writes}{$lock} } @{$session->{levels}};
}

sub guards
{
	my ($session) = @_;
	return @{$session->{guards}};
}

# Another session that stands in the way of whoever wants a lock in this mode,
# or undef
sub blocker
{
	my ($self, $s, $lock, $mode) = @_;
	my $sessions = $self->{sessions};
	my @others = grep { $_ != $s } 0 .. $#{$sessions};
	foreach my $other (@others)
	{
		return $other if is_own($sessions->[$other], $lock);
	}
	return if is_own($sessions->[$s], $lock);

	# nor does one who would only share it overtake one who waits
	foreach my $other (@others)
	{
		my $waits = $sessions->[$other]{waits} or next;
		return $other if $waits->{lock} eq $lock && $waits->{mode} eq 'exclusive';
	}
	return;
}

# The entry, if it is of a live term
sub live_entry
{
	my ($self, $lock) = @_;
	my $entry = $self->{entry}{$lock};
	return $entry && $entry->{term} && $entry->{term}{live} ? $entry : undef;
}

# Is this the same term?
sub same
{
	my ($term, $other) = @_;
	return $term && $other && $term->{seq} == $other->{seq};
}

# A term is no more, or has never been: give its memory back.
sub forget
{
	my ($self, $term, $before) = @_;
	my $entry = $self->{entry}{$term->{lock}} or return;
	$entry->{term} = undef if same($entry->{term}, $term);
	$entry->{reserved} = $before if same($entry->{reserved}, $term);
	delete $self->{entry}{$term->{lock}} unless $entry->{term} || $entry->{reserved};
	return;
}

# May a sweep drop it?
sub is_over
{
	my ($entry) = @_;
	return !grep { $_ && $_->{live} } @{$entry}{qw(term reserved)};
}

# The live term, or undef
sub live
{
	my ($self, $session, $lock) = @_;
	my $entry = $self->live_entry($lock);
	return $entry->{term} if $entry && !$entry->{marked};
	my $row = $self->row($session, $lock);
	return $row && $row->{live} ? $row : undef;
}

# Does the caller mean this term?
sub names
{
	my ($op, $term) = @_;
	return 0 if $op->{inst}{str} ne $term->{inst};
	return 1 if ($op->{token} // ANY_TOKEN) eq ANY_TOKEN;
	return defined $term->{token} && $op->{token} eq $term->{token};
}

# Is the caller the live holder, as far as its transaction sees?
sub leads
{
	my ($self, $session, $op) = @_;
	my $row = $self->row($session, $op->{lock});
	return $row && $row->{live} && names($op, $row);
}

# Might the caller be the live holder?
sub worth_waiting
{
	my ($self, $session, $op) = @_;
	return 1 if $self->leads($session, $op);
	my $entry = $self->live_entry($op->{lock});
	my $row = $self->row($session, $op->{lock});
	return $entry && $entry->{marked} && (!$row || same($row, $entry->{term})) && names($op, $entry->{term});
}

# ---- The functions ----
#
# Each returns a value, or an error, or that it waits; then it is called again
# with what it has put into $stage.

sub value { return {value => $_[0]} }
sub error { return {error => $_[0]} }
sub bool  { return value($_[0] ? 't' : 'f') }

# A row of values, and what to count it as
sub row_value
{
	my ($is, @columns) = @_;
	return value({row => \@columns, is => $is});
}

sub check_range
{
	my ($value, $min, $max) = @_;
	return !defined $value ? '22004' : $value < $min || $value > $max ? '22023' : undef;
}

sub check_name
{
	my ($name) = @_;
	return check_range(defined $name ? length $name : undef, 1, INSTANCE_MAX);
}

# What is wrong with an argument, or nothing.  Those that are left out are fine.
my %check = (
	lock => sub { return defined $_[0]{lock} ? undef : '22004' },
	inst => sub { return check_name($_[0]{inst}{str}) },
	ms => sub { return check_range($_[0]{ms}, 1, LEASE_MS_MAX) },
	age => sub { return check_range($_[0]{ms}, 0, LEASE_MS_MAX) },
	wait => sub { return check_range($_[0]{wait} // ($_[0]{no_wait} ? undef : 0), 0, WAIT_MS_MAX) },
	hold => sub { return exists $_[0]{hold} ? check_range($_[0]{hold}, 0, LEASE_MS_MAX) : undef },
	priority => sub { return exists $_[0]{priority} ? check_range($_[0]{priority}, 0, 9) : undef },
	info => sub { return length($_[0]{info}{str} // '') > INFO_MAX ? '22023' : undef },
	token => sub {
		my ($op) = @_;
		return unless exists $op->{token};
		return '22004' unless defined $op->{token};
		return $op->{token} <= 0 && $op->{token} ne ANY_TOKEN ? '22023' : undef;
	},
	own_token => sub {
		my ($op) = @_;
		return !defined $op->{token} ? '22004' : $op->{token} <= 0 ? '22023' : undef;
	},
	known => sub { return defined $_[0]{known} && $_[0]{known} <= 0 ? '22023' : undef },
	successor => sub {
		my ($op) = @_;
		return unless defined $op->{successor}{str};
		return check_name($op->{successor}{str}) // ($op->{successor}{str} eq $op->{inst}{str} ? '22023' : undef);
	},
	immediately => sub { return exists $_[0]{immediately} && !defined $_[0]{immediately} ? '22004' : undef },
);

# The arguments in the order in which they are looked at
my %arguments = (
	acquire => [qw(lock inst ms)],
	renew => [qw(lock inst token)],
	release => [qw(lock inst token hold)],
	transfer => [qw(lock inst own_token successor)],
	request_resign => [qw(lock)],
	revoke => [qw(lock immediately)],
	campaign => [qw(lock inst ms wait info priority)],
	keep_alive => [qw(lock inst own_token)],
	observe => [qw(lock known wait)],
	is_leader => [qw(lock inst token)],
	leader => [qw(lock)],
	token => [qw(lock inst)],
	guard => [qw(lock inst token)],
	sweep => [qw(age)],
);
my %only_looks = map { $_ => 1 } qw(observe is_leader leader token guard);

# What is wrong with the arguments, or with the place
sub bad_argument
{
	my ($session, $op) = @_;
	foreach my $name (@{$arguments{$op->{f}}})
	{
		my $wrong = $check{$name}->($op);
		return $wrong if $wrong;
	}
	return $session->{set}{ro} && !$only_looks{$op->{f}} ? '25006' : undef;
}

# Is a term on which the caller has a claim really its own?
sub judge
{
	my ($session, $op, $term) = @_;
	return '42501' unless has_privs_of(role($session), $term->{role});
	return '22023' if $op->{f} eq 'acquire' && $op->{ms} > $term->{ms};
	return;
}

# What becomes of a try to lead: an error, a wait, or
#   {leads => 1, term, resign, awaited}
#   {leads => 0, leader, until, busy}     who leads, until when it is not free
sub leads_now
{
	my ($term, $entry) = @_;
	return {leads => 1, term => $term} unless $entry;
	return {
		leads => 1, term => $term, resign => same($entry->{resign}, $term) ? 1 : 0,
		awaited => {ends => [@{$entry->{awaited} // []}], maybe => $entry->{maybe}}};
}

sub refused
{
	my ($self, $row, $op, %more) = @_;
	return {leads => 0, leader => $row && $row->{live} ? $row : undef, until => $self->end_of($row, $op->{inst}{str}), %more};
}

# That as the function tells it
sub answer
{
	my ($session, $op, $done) = @_;
	return $done if $done->{error} || exists $done->{wait} || exists $done->{sleep};
	my ($f, $leads, $term) = ($op->{f}, @{$done}{qw(leads term)});
	my $resign = $done->{resign} ? 't' : 'f';
	if ($f eq 'keep_alive')
	{
		return row_value($leads ? 'leads' : 'does not lead', $leads ? 't' : 'f', $leads ? $term->{ms} : undef,
			$resign, $done->{awaited} ? {awaited => $done->{awaited}} : 'f');
	}
	return bool($leads) if $f ne 'campaign';
	return row_value($done->{busy} ? 'busy' : 'refused', 'f', undef, undef, $done->{leader} && $done->{leader}{inst},
		{left => $done->{until}, least => $done->{busy} ? 100 : 0, maybe_less => $done->{maybe_less}}, 'f')
	  unless $leads;
	return row_value(
		$op->{wait} ? 'elected in time' : 'elected', 't', {term => $term},
		$op->{wait} ? {valid => $term->{ms}, since => $session->{stage}{since}} : $term->{ms},
		$term->{inst}, undef, $resign);
}

# The heartbeat without the row.  undef: the entry cannot tell.
sub beat
{
	my ($self, $session, $op) = @_;
	my $entry = $self->live_entry($op->{lock});
	return if !$entry || $entry->{marked};
	return $self->refused($entry->{term}, $op) unless names($op, $entry->{term});
	my $wrong = judge($session, $op, $entry->{term});
	return error($wrong) if $wrong;
	$entry->{renewals}++;
	note_beat($session, $entry);
	return leads_now($entry->{term}, $entry);
}

sub note_beat
{
	my ($session, $entry) = @_;
	push @{$entry->{beats}}, $session->{moment};
	shift @{$entry->{beats}} if @{$entry->{beats}} > 8;
	return;
}

# The heartbeat under the lock
sub beat_locked
{
	my ($self, $session, $op) = @_;
	my $lock = $op->{lock};
	my $row = $self->row($session, $lock);
	return $self->refused($row, $op) if !$row || !$row->{live} || !names($op, $row);
	my $wrong = judge($session, $op, $row);
	return error($wrong) if $wrong;
	if (is_own($session, $lock))
	{
		push @{$row->{begun}}, $session->{moment};
		return leads_now($row);
	}
	my $entry = $self->{entry}{$lock} //= {maybe => $self->candidates($lock) ? 1 : 0};
	@{$entry}{qw(term renewals beats reserved)} = ($row, 0, [], undef) unless same($entry->{term}, $row);
	$entry->{renewals}++;
	$entry->{marked} = 0;
	note_beat($session, $entry);
	return leads_now($row, $entry);
}

sub call_renew
{
	my ($self, $s, $session, $op, $stage) = @_;
	if (!$stage->{at})
	{
		my $beat = $self->beat($session, $op);
		return answer($session, $op, $beat) if $beat;
		return answer($session, $op, {leads => 0}) unless $self->worth_waiting($session, $op);
		$stage->{at} = 'locked';
	}
	return {wait => $op->{lock}, mode => 'share'} if defined $self->blocker($s, $op->{lock}, 'share');
	return answer($session, $op, $self->beat_locked($session, $op));
}

# One try to lead, of le_try_acquire() and of le_campaign() without a wait_ms
sub try_to_lead
{
	my ($self, $s, $session, $op, $stage) = @_;
	my $lock = $op->{lock};
	$stage->{at} //= 'look';

	if ($stage->{at} eq 'look')
	{
		my $entry = $self->live_entry($lock);
		if ($entry && !$entry->{marked})
		{
			return error('25001') if !names($op, $entry->{term}) && !may_begin_here($session);
			return $self->beat($session, $op);
		}
		my $row = $self->row($session, $lock);
		$stage->{other} = $row && $row->{live} && !names($op, $row);
		$stage->{at} = $self->leads($session, $op) ? 'heartbeat' : 'challenge';
	}

	if ($stage->{at} eq 'heartbeat')
	{
		return {wait => $lock, mode => 'share'} if defined $self->blocker($s, $lock, 'share');
		my $beat = $self->beat_locked($session, $op);
		return $beat if $beat->{error} || $beat->{leads};
		$stage->{at} = 'challenge';
	}

	return error('25001') unless may_begin_here($session);

	# somebody else led when we looked; or is just becoming leader
	my $row = $self->row($session, $lock);
	return $self->refused($row, $op) if $stage->{other};
	return $self->refused($row, $op, busy => 1) if defined $self->blocker($s, $lock, 'exclusive');

	return $self->beat_locked($session, $op) if $row && $row->{live};
	return $self->refused($row, $op) if $self->end_of($row, $op->{inst}{str});
	return $self->begin_term($session, $op);
}

# One turn of who waits for the lock: queues behind nobody.
sub try_in_turn
{
	my ($self, $s, $session, $op) = @_;
	my $lock = $op->{lock};
	my $beat = $self->beat($session, $op);
	return $beat if $beat;
	my $row = $self->row($session, $lock);
	return $self->beat_locked($session, $op)
	  if $self->leads($session, $op) && !defined $self->blocker($s, $lock, 'share');
	return $self->refused($row, $op) if $self->end_of($row, $op->{inst}{str});
	# it may be the turn of others still
	return $self->refused($row, $op, busy => 1, maybe_less => scalar $self->candidates($lock))
	  if defined $self->blocker($s, $lock, 'exclusive');
	return $self->begin_term($session, $op);
}

sub call_acquire
{
	my ($self, $s, $session, $op, $stage) = @_;
	return answer($session, $op, $self->try_to_lead($s, $session, $op, $stage));
}

# Who waits must be alone, in a transaction that has not done anything.
sub may_sleep_here
{
	my ($session) = @_;
	return !in_block($session) && !grep { @{$_->{changes}} } @{$session->{levels}};
}

sub call_campaign
{
	my ($self, $s, $session, $op, $stage) = @_;
	return $self->call_acquire($s, $session, $op, $stage) unless $op->{wait};
	return error('25001') unless may_sleep_here($session);
	$stage->{since} //= $session->{moment};
	my $done = $self->try_in_turn($s, $session, $op);
	if (!$done->{error} && !$done->{leads} && !$stage->{over})
	{
		# the leader is told
		my $entry = $self->{entry}{$op->{lock}};
		push @{$entry->{awaited}}, {moments => [$stage->{since}], plus => $op->{wait}} if $entry && !$stage->{said}++;
		my $row = $self->row($session, $op->{lock});
		$stage->{barred} = 1 if $row && $row->{bans};
		return {sleep => $op->{lock}};
	}
	return answer($session, $op, $done);
}

sub call_observe
{
	my ($self, $s, $session, $op, $stage) = @_;
	return error('25001') if $op->{wait} && !may_sleep_here($session);
	$stage->{since} //= $session->{moment};
	my $row = $self->row($session, $op->{lock});
	return {sleep => $op->{lock}} if $op->{wait} && !$stage->{over} && !is_news($op, $row);
	my $live = $row && $row->{live};
	return row_value(
		state_of($row) // 'vacant', $live ? ($row->{inst}, {term => $row}) : (undef, undef),
		{left => $self->end_of($row), least => 0}, state_of($row) // 'vacant', $live ? $row->{info} : undef);
}

# Is this another leader than the observer knows of?
sub is_news
{
	my ($op, $row) = @_;
	return defined $op->{known} unless $row && $row->{live};
	return ($row->{token} // '') ne ($op->{known} // 'none');
}

# What a view says of a row
sub state_of
{
	my ($row) = @_;
	return unless $row;
	return 'expired' unless rests($row);
	return {l => 'live', r => 'revoked', i => 'revoked', h => 'held'}->{$row->{state}};
}

# Does the transaction go on after this statement?
sub in_block
{
	my ($session) = @_;
	return $session->{block} || @{$session->{levels}} > 1
	  || $session->{stmt}{kind} eq 'multi' || $session->{pipelining};
}

# Only the live holder may call le_try_acquire() in a block, whoever leads.
sub may_begin_here
{
	my ($session) = @_;
	return $session->{set}{allow} || !in_block($session);
}

# Write a row for this session.  It has a token of its own, so it counts like a
# term.
sub write_row
{
	my ($self, $session, %row) = @_;
	my $row = {%row, seq => ++$self->{seq}};
	$session->{levels}[-1]{writes}{$row->{lock}} = $row;
	$session->{made} = 1;
	push @{$self->{begun}}, $row;
	return $row;
}

sub write_term
{
	my ($self, $session, %term) = @_;
	my $in_block = in_block($session);
	my $term = $self->write_row($session, %term, state => 'l', live => 1, begun => [$session->{moment}]);
	my $entry = $self->{entry}{$term->{lock}} //= {renewals => 0, beats => []};
	push @{$session->{levels}[-1]{changes}}, {begun => $term, before => $entry->{reserved}};
	$entry->{reserved} = $term;
	@{$entry}{qw(awaited maybe)} = ([], $self->candidates($term->{lock}) ? 1 : 0);
	$session->{immediate} = 1 unless $in_block;
	push @{$session->{begun}}, $term if $in_block;
	return $term;
}

# This session ends a term, by itself or not.
sub end_term
{
	my ($self, $session, $term, $by_itself) = @_;
	$session->{levels}[-1]{ended}{$term->{seq}} = 1 if $by_itself;
	push @{$session->{levels}[-1]{changes}}, {ended => $term};
	return;
}

sub begin_term
{
	my ($self, $session, $op) = @_;
	my $over = $self->row($session, $op->{lock});
	$self->end_term($session, $over) if $over;
	my $term = $self->write_term($session,
		lock => $op->{lock}, inst => $op->{inst}{str}, ms => $op->{ms}, role => role($session), info => $op->{info}{str});
	return leads_now($term);
}

sub mark
{
	my ($self, $lock) = @_;
	$self->{entry}{$lock}{marked} = 1 if $self->{entry}{$lock};
	return;
}

# Lock the caller's live term to end it: the term, an error, a wait or false
sub term_to_end
{
	my ($self, $s, $session, $op, $stage) = @_;
	my $lock = $op->{lock};
	if (!$stage->{at})
	{
		return bool(0) unless $self->worth_waiting($session, $op);
		my $wrong = $self->leads($session, $op) && judge($session, $op, $self->row($session, $lock));
		return error($wrong) if $wrong;
		$stage->{at} = 'locked';
	}
	return {wait => $lock, mode => 'exclusive'} if defined $self->blocker($s, $lock, 'exclusive');

	my $row = $self->row($session, $lock);
	return bool(0) if !$row || !$row->{live} || !names($op, $row);
	my $wrong = judge($session, $op, $row);
	return $wrong ? error($wrong) : {term => $row};
}

sub call_release
{
	my ($self, $s, $session, $op, $stage) = @_;
	my $found = $self->term_to_end($s, $session, $op, $stage);
	my $term = $found->{term} or return $found;
	my $hold = {moments => [@{$term->{begun}}], plus => $op->{hold} // 0};
	my $is_held = $op->{hold} && (bounds($hold))[1] > now();

	# only a long hold holds for certain
	$self->{ambiguous} = 1 if $is_held && $op->{hold} < 100;
	$self->mark($op->{lock});
	$self->end_term($session, $term, 1);
	$session->{levels}[-1]{writes}{$op->{lock}} = undef;
	$session->{made} = 1;
	$self->write_row($session, lock => $op->{lock}, inst => $term->{inst}, role => $term->{role},
		state => 'h', ms => $op->{hold}, bars => 1, bars_end => $hold)
	  if $is_held;
	return bool(1);
}

sub call_transfer
{
	my ($self, $s, $session, $op, $stage) = @_;
	my $found = $self->term_to_end($s, $session, $op, $stage);
	my $term = $found->{term} or return $found;
	my $successor = $op->{successor}{str};
	my $role = $term->{role};
	if (!defined $successor)
	{
		my @waiting = grep { $_->{stmt}{ops}[0]{inst}{str} ne $term->{inst} } map { $self->{sessions}[$_] } $self->candidates($op->{lock});
		# it may not know yet that its ban is over
		$self->{ambiguous} = 1 if grep { $_->{stage}{barred} } @waiting;
		return bool(0) unless @waiting;
		$successor = $waiting[0]{stmt}{ops}[0]{inst}{str};
		$role = role($waiting[0]);
		$self->counted('transfer', 'to the first');
	}
	$self->mark($op->{lock});
	$self->end_term($session, $term, 1);
	$self->write_term($session, lock => $op->{lock}, inst => $successor, ms => $term->{ms}, role => $role);
	return bool(1);
}

sub call_request_resign
{
	my ($self, $s, $session, $op) = @_;
	my $term = $self->live($session, $op->{lock}) or return bool(0);
	my $entry = $self->{entry}{$op->{lock}} //= {reserved => $term, renewals => 0, beats => [], maybe => $self->candidates($op->{lock}) ? 1 : 0};
	$entry->{resign} = $term;
	return bool(1);
}

sub call_revoke
{
	my ($self, $s, $session, $op, $stage) = @_;
	my $lock = $op->{lock};
	return error('25001') if in_block($session);
	$session->{immediate} = 1;
	my $applies = sub {
		my $row = $self->row($session, $lock);
		return $row && ($op->{immediately} ? $self->end_of($row) : $row->{live});
	};
	return bool(0) unless $stage->{at} || $applies->();
	$stage->{at} = 'locked';
	return {wait => $lock, mode => 'exclusive'} if defined $self->blocker($s, $lock, 'exclusive');
	$self->mark($lock);
	return bool(0) unless $applies->();

	my $row = $self->row($session, $lock);
	my $end = $self->end_of($row);
	my $ban = ban_of($row->{ms});
	my $lifts = $row->{state} eq 'h';    # and bars nobody
	push @{$session->{warned}}, $end if $op->{immediately} && !$lifts;
	$self->end_term($session, $row);
	$self->write_row(
		$session, lock => $lock, inst => $row->{inst}, role => $row->{role}, ms => $lifts ? 1 : $row->{ms}, bans => !$lifts,
		$lifts ? (state => 'i')
		: $op->{immediately}
		? (state => 'i', bans_end => {moments => [$session->{moment}], plus => $ban})
		: (state => 'r', bars => 1, bars_end => $end, bans_end => {%{$end}, plus => $end->{plus} + $ban}));
	return bool(1);
}

sub call_is_leader
{
	my ($self, $s, $session, $op) = @_;
	my $term = $self->live($session, $op->{lock});
	return bool($term && names($op, $term));
}

sub call_leader
{
	my ($self, $s, $session, $op) = @_;
	my $term = $self->live($session, $op->{lock});
	return value($term && $term->{inst});
}

sub call_token
{
	my ($self, $s, $session, $op) = @_;
	my $term = $self->live($session, $op->{lock});
	return value($term && $op->{inst}{str} eq $term->{inst} ? {term => $term} : undef);
}

sub call_guard
{
	my ($self, $s, $session, $op) = @_;
	my $term = $self->live($session, $op->{lock});
	return error('LE001') unless $term && names($op, $term);
	my $wrong = judge($session, $op, $term);
	return error($wrong) if $wrong;
	$session->{alone} = 0 if in_block($session) || $session->{stmt}{kind} eq 'do';
	push @{$session->{guards}}, $term
	  unless grep { $_->{seq} == $term->{seq} } guards($session);
	return value({term => $term});
}

# Only what has just run out or is a day over can be told without a clock.
sub call_sweep
{
	my ($self, $s, $session, $op) = @_;
	return error('42501') unless has_privs_of(role($session), 'postgres');
	my $deleted = 0;
	foreach my $row ($op->{ms} == 0 ? $self->rows($session) : ())
	{
		next if rests($row) || defined $self->blocker($s, $row->{lock}, 'exclusive');
		$session->{levels}[-1]{writes}{$row->{lock}} = undef;
		push @{$session->{levels}[-1]{changes}}, {ended => $row};
		$session->{made} = 1;
		$deleted++;
	}
	return value($deleted) if $op->{ms} != 0;
	foreach my $lock (keys %{$self->{entry}})
	{
		delete $self->{entry}{$lock} if is_over($self->{entry}{$lock});
	}
	$self->{orphans} = [grep { !is_over($_) } @{$self->{orphans}}];
	return value($deleted);
}

# All rows that a session sees
sub rows
{
	my ($self, $session) = @_;
	my %locks = map { $_ => 1 } keys %{$self->{committed}}, map { keys %{$_->{writes}} } @{$session->{levels}};
	return grep { $_ } map { $self->row($session, $_) } keys %locks;
}

sub call_view
{
	my ($self, $s, $session) = @_;
	my %view;
	foreach my $row ($self->rows($session))
	{
		my $entry = $self->{entry}{$row->{lock}};
		$view{$row->{lock}} = {
			term => $row,
			renewals => $entry && same($entry->{term}, $row) ? $entry->{renewals} : 0,
			state => state_of($row),
			left => $self->end_of($row, $row->{state} eq 'i' ? $row->{inst} : undef)};
	}
	return value({view => \%view});
}

sub call_info
{
	my ($self) = @_;
	return value({info => keys(%{$self->{entry}}) + @{$self->{orphans}}});
}

my %call = (
	acquire => \&call_acquire,
	renew => \&call_renew,
	release => \&call_release,
	transfer => \&call_transfer,
	request_resign => \&call_request_resign,
	revoke => \&call_revoke,
	campaign => \&call_campaign,
	keep_alive => \&call_renew,
	observe => \&call_observe,
	is_leader => \&call_is_leader,
	leader => \&call_leader,
	token => \&call_token,
	guard => \&call_guard,
	sweep => \&call_sweep,
	view => \&call_view,
	info => \&call_info,
	instance => sub { return value({instance => $_[3]{prefix}}) },
	lock_id => sub { return value($_[3]{result}) },
	noise => sub { return value({any => 1}) },
	fail => sub { return error($_[3]{error}) },
);

# ---- Transaction control ----

# Each returns an error, or that it waits, or what the command is tagged with.
my %control = (
	begin => sub {
		my ($self, $session, $op) = @_;
		return 'BEGIN' if $session->{block};
		begin($session);
		$session->{block} = 1;
		$session->{set}{ro} = $op->{ro} if defined $op->{ro};
		return 'BEGIN';
	},
	commit => sub {
		my ($self, $session, $op, $s) = @_;
		if (!$session->{block})
		{
			return error('25P01') if $op->{chain};
			return 'COMMIT';
		}
		my $failed = $session->{failed};
		my $ro = $session->{set}{ro};
		my $stops = $failed ? $self->rollback($session) : $self->commit($s, $session);
		return $stops if $stops;
		chain($session, $ro) if $op->{chain};
		return $failed ? 'ROLLBACK' : 'COMMIT';
	},
	rollback => sub {
		my ($self, $session, $op) = @_;
		return $op->{chain} ? error('25P01') : 'ROLLBACK' unless $session->{block};
		my $ro = $session->{set}{ro};
		$self->rollback($session);
		chain($session, $ro) if $op->{chain};
		return 'ROLLBACK';
	},
	prepare => sub {
		my ($self, $session, $op, $s) = @_;
		return 'ROLLBACK' unless $session->{block};
		if ($session->{failed})
		{
			$self->rollback($session);
			return 'ROLLBACK';
		}
		my $refused = $session->{refused} ? 'LE001'    # what is prepared counts as written
		  : guards($session) || (grep { @{$_->{changes}} } @{$session->{levels}}) ? '0A000'
		  : $op->{possible} ? undef : '55000';
		if ($refused)
		{
			$self->rollback($session);
			return error($refused);
		}
		$self->commit($s, $session);
		return 'PREPARE TRANSACTION';
	},
	savepoint => sub {
		my ($self, $session, $op) = @_;
		return error('25P01') unless $session->{block};
		push_level($session, name => $op->{name});
		return 'SAVEPOINT';
	},
	rollback_to => sub {
		my ($self, $session, $op) = @_;
		return error('25P01') unless $session->{block};
		return error('3B001') unless grep { ($_->{name} // '') eq $op->{name} } @{$session->{levels}};
		until (($session->{levels}[-1]{name} // '') eq $op->{name})
		{
			$self->undo_level($session);
			pop @{$session->{levels}};
		}
		$self->undo_level($session);
		$session->{failed} = 0;
		return 'ROLLBACK';
	},
	release_savepoint => sub {
		my ($self, $session, $op) = @_;
		return error('25P01') unless $session->{block};
		return error('3B001') unless grep { ($_->{name} // '') eq $op->{name} } @{$session->{levels}};
		release_level($session) until ($session->{levels}[-1]{name} // '') eq $op->{name};
		release_level($session);
		return 'RELEASE';
	},
	# SET [LOCAL] of allow, dro, or (if permitted) role
	set => sub {
		my ($self, $session, $op) = @_;
		my ($set, $name, $to) = ($session->{set}, $op->{name}, $op->{value});
		return error('42501')
		  if $name eq 'role' && defined $to && !has_privs_of($set->{user}, $to);
		return 'SET' if $op->{local} && !$session->{block};
		$set->{$name} = $to;
		$set->{"${name}_s"} = $to unless $op->{local};
		return $op->{tag};
	},
	set_user => sub {
		my ($self, $session, $op) = @_;
		$session->{set}{user} = $op->{value};
		return $op->{tag};
	},
	read_only => sub {
		my ($self, $session) = @_;
		$session->{set}{ro} = 1 if $session->{block};
		return 'SET';
	},
	discard => sub {
		my ($self, $session) = @_;
		return error('25001') if $session->{block};
		$session->{set} = default_settings();
		return 'DISCARD ALL';
	},
);

sub chain
{
	my ($session, $ro) = @_;
	begin($session);
	$session->{block} = 1;
	$session->{set}{ro} = $ro;
	return;
}

sub run_control
{
	my ($self, $s) = @_;
	my $session = $self->{sessions}[$s];
	my $op = $session->{stmt}{ops}[0];
	my $done;
	if ($session->{failed} && $op->{f} !~ /^(commit|rollback|rollback_to|prepare)$/)
	{
		$done = error('25P02');
	}
	else
	{
		$done = $control{$op->{f}}->($self, $session, $op, $s);
	}
	return $self->starts_waiting($s, $op->{f}, $done) if ref $done && defined $done->{wait};
	$self->fail_statement($session) if ref $done && $session->{block} && !$session->{failed};
	$self->counted($op->{f}, ref $done ? $done->{error} : 'done');
	return $self->finished($session, ref $done ? $done : {tag => $done});
}

# ---- Statements ----

sub start
{
	my ($self, $s, $stmt) = @_;
	my $session = $self->{sessions}[$s];

	@{$session}{qw(stmt pc stage out warns warned moment)} = ($stmt, 0, {}, [], 0, [], {lo => now()});
	return $self->run_control($s) if $stmt->{kind} eq 'control';
	if ($session->{failed})
	{
		$self->counted($_->{f}, '25P02') foreach @{$stmt->{ops}};
		return $self->finished($session, error('25P02'));
	}

	begin($session) unless $session->{block};
	# one SELECT needs all its rights before it calls anything
	my @denied = $stmt->{kind} eq 'select' ? grep { !may_execute($session, $_->{f}) } @{$stmt->{ops}} : ();
	if (!$self->{exists} && grep { !$public{$_->{f}} || $_->{f} =~ /^(instance|lock_id)$/ } @{$stmt->{ops}})
	{
		return $self->finished($session, $self->failed($session, $stmt->{ops}[0]{f} eq 'view' ? '42P01' : '42883'));
	}
	return $self->finished($session, $self->failed($session, '42501')) if @denied;
	return $self->run($s);
}

sub counted
{
	my ($self, $function, $outcome) = @_;
	$self->{count}{$function}{$outcome}++;
	return;
}

sub finished
{
	my ($self, $session, $outcome) = @_;
	delete $session->{stmt};
	$outcome->{values} //= [];
	$outcome->{status} = status($session);
	@{$outcome}{qw(warns warned moment)} = @{$session}{qw(warns warned moment)};
	return $outcome;
}

# The statement ends with an error.
sub failed
{
	my ($self, $session, $sqlstate) = @_;
	my $stmt = $session->{stmt};
	my $op = $stmt->{ops}[$session->{pc}];
	$self->counted($op ? $op->{f} : 'end', $sqlstate);
	$self->fail_statement($session);
	return {error => $sqlstate, values => $stmt->{kind} eq 'do' ? $session->{out} : []};
}

# An error at the current op: caught or not?  Returns an outcome if not.
sub raised
{
	my ($self, $session, $sqlstate) = @_;
	my $stmt = $session->{stmt};
	return $self->failed($session, $sqlstate)
	  if !$session->{levels}[-1]{handler} || $uncaught{$sqlstate};

	$self->counted($stmt->{ops}[$session->{pc}]{f}, $sqlstate);
	$self->undo_level($session);
	pop @{$session->{levels}};
	push @{$session->{out}}, $sqlstate;
	# behind the end of this block, past those of blocks inside it
	for (my $inside = 1; $inside > 0;)
	{
		my $f = $stmt->{ops}[++$session->{pc}]{f};
		$inside += $f eq 'try' ? 1 : $f eq 'end_try' ? -1 : 0;
	}
	$session->{pc}++;
	$session->{stage} = {};
	return;
}

sub run
{
	my ($self, $s) = @_;
	my $session = $self->{sessions}[$s];
	my $stmt = $session->{stmt};

	return $self->run_control($s) if $stmt->{kind} eq 'control';
	while ($session->{pc} < @{$stmt->{ops}})
	{
		my $op = $stmt->{ops}[$session->{pc}];
		my $done = $self->step($s, $session, $op);
		return $self->starts_waiting($s, $op->{f}, $done) if exists $done->{wait};
		return $self->falls_asleep($s, $op, $done) if exists $done->{sleep};
		if ($done->{error})
		{
			my $outcome = $self->raised($session, $done->{error});
			return $self->finished($session, $outcome) if $outcome;
			next;
		}
		if (exists $done->{value})
		{
			push @{$session->{out}}, $done->{value};
			$self->counted($op->{f}, describe($done->{value}));
		}
		$self->pipelined($s, $session) if $stmt->{kind} eq 'pipeline' && !$session->{block};
		$session->{pc}++;
		$session->{stage} = {};
	}

	my $values = $session->{out};
	if (!$session->{block})
	{
		my $stops = $self->commit($s, $session);
		return $self->starts_waiting($s, 'end', $stops) if $stops && defined $stops->{wait};
		$self->counted('end', $stops ? $stops->{error} : 'done');
		return $self->finished($session, {%{$stops}, values => $stmt->{kind} eq 'do' ? $values : []}) if $stops;
	}
	return $self->finished($session, {values => $values});
}

# One statement of a pipeline is done: if it has begun a term it has been a
# transaction of its own, which nothing can stop, else the next one goes on
# with it.
sub pipelined
{
	my ($self, $s, $session) = @_;
	if ($session->{immediate})
	{
		$self->counted('pipeline', 'committed early');
		$self->commit($s, $session);
		begin($session);
	}
	else
	{
		$session->{pipelining} = 1;
	}
	return;
}

sub describe
{
	my ($value) = @_;
	return 'NULL' unless defined $value;
	return $value if !ref $value && $value =~ /^[tf]$/;
	return $value->{is} if ref $value && $value->{is};
	return 'value';
}

# One op of a running statement
sub step
{
	my ($self, $s, $session, $op) = @_;
	my $f = $op->{f};

	if ($f eq 'try')
	{
		push_level($session, handler => 1);
		return {};
	}
	if ($f eq 'end_try')
	{
		release_level($session);
		return {};
	}
	if ($f eq 'do_commit' || $f eq 'do_rollback')
	{
		return error('2D000') if $session->{block} || @{$session->{levels}} > 1;
		my $stops = $f eq 'do_commit' ? $self->commit($s, $session) : $self->rollback($session);
		return $stops if $stops && defined $stops->{wait};
		begin($session);
		$self->counted($f, 'done') unless $stops;
		return $stops // {};
	}
	if ($f eq 'expire')
	{
		my $row = $self->row($session, $op->{lock});
		$self->expire($row) if $row && $row->{ms} <= $op->{max_ms};
		return {};
	}
	return error('42501') unless may_execute($session, $f);
	my $wrong = $arguments{$f} && bad_argument($session, $op);
	my $done = $wrong ? error($wrong) : $call{$f}->($self, $s, $session, $op, $session->{stage});
	$session->{refused} = 1 if $f eq 'guard' && $done->{error};
	return $done;
}

# ---- Waiting ----

sub is_waiting
{
	my ($self, $s) = @_;
	return $self->{sessions}[$s]{waits} || $self->{sessions}[$s]{sleeps};
}

sub starts_waiting
{
	my ($self, $s, $f, $wait) = @_;
	$self->{sessions}[$s]{waits} = {lock => $wait->{wait}, mode => $wait->{mode}, terms => $wait->{terms}, since => ++$self->{waits}};
	$self->counted($f, 'waited');
	return {wait => $wait->{wait}, mode => $wait->{mode}, cycle => scalar $self->cycle($s)};
}

sub waiting
{
	my ($self) = @_;
	my $sessions = $self->{sessions};
	return sort { $sessions->[$a]{waits}{since} <=> $sessions->[$b]{waits}{since} }
	  grep { $sessions->[$_]{waits} } 0 .. $#{$sessions};
}

# Does a chain of waits lead from a session back to itself?
sub cycle
{
	my ($self, $s) = @_;
	my @members;
	my $at = $s;
	while ($self->{sessions}[$at]{waits})
	{
		push @members, $at;
		my $blocker = $self->blocker($at, @{$self->{sessions}[$at]{waits}}{qw(lock mode)});
		return unless defined $blocker;
		return \@members if $blocker == $s;
		return if grep { $_ == $blocker } @members;
		$at = $blocker;
	}
	return;
}

# Go on with one session whose lock has become free, or one of whose guarded
# terms has run out: its number and outcome.  Nothing if there is none.
sub wake
{
	my ($self) = @_;
	foreach my $s ($self->waiting)
	{
		my $session = $self->{sessions}[$s];
		my ($lock, $mode, $terms) = @{$session->{waits}}{qw(lock mode terms)};
		next if defined $self->blocker($s, $lock, $mode) && !grep { !$_->{live} } @{$terms // []};
		delete $session->{waits};
		return ($s, scalar $self->run($s));
	}
	return;
}

# ---- Sleeping ----

sub falls_asleep
{
	my ($self, $s, $op, $sleep) = @_;
	$self->{sessions}[$s]{sleeps} = {lock => $sleep->{sleep}, since => ++$self->{waits}};
	$self->counted($op->{f}, 'slept');
	return $sleep;
}

sub sleepers
{
	my ($self, $lock) = @_;
	my $sessions = $self->{sessions};
	my @sleepers = sort { $sessions->[$a]{sleeps}{since} <=> $sessions->[$b]{sleeps}{since} }
	  grep { $sessions->[$_]{sleeps} && (!defined $lock || $sessions->[$_]{sleeps}{lock} eq $lock) } 0 .. $#{$sessions};
	return @sleepers;
}

# Who wants to lead a lock, in the order in which they stand
sub candidates
{
	my ($self, $lock) = @_;
	my $op = sub { return $self->{sessions}[$_[0]]{stmt}{ops}[0] };
	my @candidates = sort { ($op->($b)->{priority} // 0) <=> ($op->($a)->{priority} // 0) }
	  grep { $op->($_)->{f} eq 'campaign' } $self->sleepers($lock);
	return @candidates;
}

# Is there an answer for one who sleeps?
sub is_ready
{
	my ($self, $s) = @_;
	my $session = $self->{sessions}[$s];
	my $op = $session->{stmt}{ops}[0];
	my $row = $self->row($session, $op->{lock});
	return is_news($op, $row) if $op->{f} eq 'observe';
	my $entry = $self->live_entry($op->{lock});
	return names($op, $entry->{term}) if $entry && !$entry->{marked};
	return !defined $self->blocker($s, $op->{lock}, 'share') if $self->leads($session, $op);
	return !$self->end_of($row, $op->{inst}{str}) && !defined $self->blocker($s, $op->{lock}, 'exclusive');
}

# What an observer is told who looks now
sub answer_now
{
	my ($self, $s) = @_;
	my $session = $self->{sessions}[$s];
	return $self->call_observe($s, $session, $session->{stmt}{ops}[0], {over => 1})->{value};
}

# Go on with one who sleeps and is ready, or whose wait_ms is over.  since is
# when that may have happened.
sub resume
{
	my ($self, $s, $since, $is_over) = @_;
	my $session = $self->{sessions}[$s];
	delete $session->{sleeps};
	$session->{moment} = {lo => $since};
	$session->{stage}{over} = $is_over;
	return $self->run($s);
}

# A wait ends with an error: cancelled, timed out, victim of a deadlock.
sub interrupt
{
	my ($self, $s, $sqlstate) = @_;
	my $session = $self->{sessions}[$s];
	delete @{$session}{qw(waits sleeps)};
	if ($session->{stmt}{kind} eq 'control')
	{
		# a commit that fails in the middle
		$self->rollback($session);
		$self->counted($session->{stmt}{ops}[0]{f}, $sqlstate);
		return $self->finished($session, error($sqlstate));
	}
	my $outcome = $self->raised($session, $sqlstate);
	return $outcome ? $self->finished($session, $outcome) : $self->run($s);
}

# The connection is gone.
sub disconnect
{
	my ($self, $s) = @_;
	$self->rollback($self->{sessions}[$s]);
	$self->connect($s);
	return;
}

# ---- Time and tokens ----

# The lease of a term has run out; or what bars others from a lock, or bans one.
sub expire
{
	my ($self, $row, $what) = @_;
	$row->{$what // 'live'} = 0;
	return;
}

# The terms begun since the last call
sub take_begun
{
	my ($self) = @_;
	my @begun = @{$self->{begun}};
	$self->{begun} = [];
	return @begun;
}

# A token was seen.  Returns what is wrong with it, if anything.
sub learn
{
	my ($self, $term, $token) = @_;
	if (defined $term->{token})
	{
		return if $term->{token} eq $token;
		return "token $token, but it was $term->{token}";
	}
	foreach my $other (@{$self->{tokens}{$term->{lock}}})
	{
		my ($seq, $known) = @{$other};
		return "token $token of term $term->{seq} does not fit with $known of term $seq"
		  if $seq < $term->{seq} ? $known >= $token : $known <= $token;
	}
	$term->{token} = $token;
	push @{$self->{tokens}{$term->{lock}}}, [$term->{seq}, $token];
	return;
}

# ---- The extension ----

sub drop_extension
{
	my ($self) = @_;
	push @{$self->{orphans}}, values %{$self->{entry}};
	@{$self}{qw(committed entry exists)} = ({}, {}, 0);
	return;
}

sub create_extension
{
	my ($self) = @_;
	$self->{exists} = 1;
	return;
}

1;
