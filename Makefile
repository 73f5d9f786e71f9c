# leader_election: leader election for PostgreSQL

MODULE_big = leader_election
OBJS = \
	src/leader_election.o \
	src/functions.o \
	src/lease.o \
	src/lease_table.o \
	src/heartbeat.o \
	src/epoch.o \
	src/worker.o
PGFILEDESC = "leader_election - leases, heartbeats in shared memory, fencing tokens"

EXTENSION = leader_election
DATA = leader_election--1.0.sql

REGRESS = $(sort $(notdir $(basename $(wildcard sql/*.sql))))
ISOLATION = $(sort $(notdir $(basename $(wildcard specs/*.spec))))
TAP_TESTS = 1

PG_CFLAGS = -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare

PG_CONFIG = pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

$(OBJS) $(OBJS:.o=.bc): src/leader_election.h src/compat.h
