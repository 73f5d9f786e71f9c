export { LeaderElectorCore, NotLeaderError } from "./core";
export type { ElectionEvents } from "./election/events";
export type { LeaderElectorConfig } from "./election/settings";
export type { LeaderTerm } from "./election/term";
export { createLeaderLeaseEntity, LeaderLease } from "./entities";
export { LeaderElectionMigrationBase } from "./migration";
export {
	LeaderOnly,
	OnDeposed,
	OnElected,
	type LeaderEventOptions,
	type LeaderOnlyOptions,
} from "./nest/decorators";
export { LeaderElectionHealthIndicator, type ElectionHealth } from "./nest/health";
export { LeaderElectorModule, type LeaderElectorAsyncConfig } from "./nest/module";
export { LeaderElectorService } from "./nest/service";
