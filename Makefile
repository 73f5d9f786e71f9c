# leader_election: leader election for PostgreSQL

MODULE_big = leader_election
OBJS = \
	src/leader_election.o \
	src/functions.o \
	src/answers.o \
	src/monitor.o \
	src/fence.o \
	src/shield.o \
	src/worker.o \
	src/args.o \
	src/guard.o \
	src/sweep.o \
	src/campaign.o \
	src/handover.o \
	src/lease.o \
	src/transition.o \
	src/changes.o \
	src/launch.o \
	src/schedule.o \
	src/look.o \
	src/events.o \
	src/history.o \
	src/lease_table.o \
	src/tokens.o \
	src/entry.o \
	src/waiters.o \
	src/store.o \
	src/standby.o \
	src/locks.o \
	src/epoch.o \
	src/rules.o \
	src/messages.o
PGFILEDESC = "leader_election - leases, heartbeats in shared memory, fencing tokens"

EXTENSION = leader_election
DATA = leader_election--1.0.sql

# "make TEST_PAUSE=1" builds with points where a test can hold a session, for
# the window-* specs.  Not for use.
ifdef TEST_PAUSE
OBJS += src/test_pause.o
PG_CPPFLAGS += -DLE_TEST_PAUSE
endif

REGRESS = $(sort $(notdir $(basename $(wildcard sql/*.sql))))
ISOLATION = $(sort $(notdir $(basename $(wildcard specs/$(if $(TEST_PAUSE),window,race)-*.spec))))
TAP_TESTS = 1

PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare

# Another module's symbols must not become ours, nor ours anybody's: 16 and later
# do this by themselves.
PG_CFLAGS += -fvisibility=hidden

PG_CONFIG = pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

$(OBJS) $(OBJS:.o=.bc): src/leader_election.h src/compat.h

# The program for the command line needs libpq and its headers; "make LEADERCTL=no"
# leaves it out.
ifneq ($(LEADERCTL),no)
all: leaderctl-all
install: leaderctl-install
uninstall: leaderctl-uninstall
clean: leaderctl-clean

.PHONY: leaderctl-all leaderctl-install leaderctl-uninstall leaderctl-clean
leaderctl-install: leaderctl-all
leaderctl-all leaderctl-install leaderctl-uninstall leaderctl-clean: leaderctl-%:
	$(MAKE) -C leaderctl PG_CONFIG='$(PG_CONFIG)' $*
endif

# Each file uses only files further down in the map of its folder's header.
.PHONY: arrows
arrows: all
	scripts/arrows $(OBJS)
	[ '$(LEADERCTL)' = no ] || scripts/arrows leaderctl/*.o

# pgindent's options; the command is in Debian's package pg-bsd-indent
.PHONY: indent
indent:
	for f in src/*.c src/*.h leaderctl/*.c leaderctl/*.h; do \
		pg_bsd_indent -bad -bap -bbb -bc -bl -cli1 -cp33 -cdb -nce -d0 -di12 -nfc1 -i4 -l79 -lp -lpl -nip -npro -sac -tpg -ts4 \
			-U$$(dirname $$f)/typedefs.list $$f || exit 1; \
	done
	sed -i -E 's/^([A-Za-z_][A-Za-z_0-9]*)[[:space:]]+\*$$/\1 */' src/*.c src/*.h leaderctl/*.c leaderctl/*.h
	rm -f *.BAK
