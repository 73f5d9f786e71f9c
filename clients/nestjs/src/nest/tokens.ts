/** What providers are found by, and decorators leave */
export const LEADER_ELECTOR_CONFIG = Symbol("leader-election: configuration");
export const LEADER_ONLY = Symbol("leader-election: leader only");
export const ON_ELECTED = Symbol("leader-election: on elected");
export const ON_DEPOSED = Symbol("leader-election: on deposed");
