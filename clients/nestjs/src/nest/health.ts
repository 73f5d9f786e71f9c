/** For @nestjs/terminus: is the election alive?  A follower is as well as a leader. */
import { Inject, Injectable } from "@nestjs/common";

import { LeaderElectorService } from "./service";

export interface ElectionHealth {
	status: "up" | "down";
	leads: boolean;
	lockId: string;
	instance: string;
	token?: string;
	/** milliseconds since the server has last answered */
	silence?: number;
}

@Injectable()
export class LeaderElectionHealthIndicator {
	constructor(@Inject(LeaderElectorService) private readonly elector: LeaderElectorService) {}

	/**
	 * Up if the server has answered in time.
	 *
	 * @throws an error as terminus wants it, if not
	 */
	check(key = "leaderElection"): Record<string, ElectionHealth> {
		const { elector } = this;
		const silence = elector.events.silence();
		const health: ElectionHealth = {
			status: silence !== undefined && silence < elector.events.longestSilence ? "up" : "down",
			leads: elector.amILeader(),
			lockId: elector.lockId,
			instance: elector.instanceId,
			token: elector.token === undefined ? undefined : String(elector.token),
			silence: silence === undefined ? undefined : Math.round(silence),
		};

		if (health.status === "down")
			throw Object.assign(new Error("the election's server does not answer"), {
				isHealthCheckError: true,
				causes: { [key]: health },
			});
		return { [key]: health };
	}
}
