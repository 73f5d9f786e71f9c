/** For @nestjs/terminus: is the election alive?  A follower is as well as a leader. */
import { Inject, Injectable } from "@nestjs/common";

import { LeaderElectorService } from "./service";

export interface ElectionHealth {
	status: "up" | "down";
	leads: boolean;
	lockId: string;
	instance: string;
	/** the fencing token; a string, because JSON has no bigint */
	token?: string;
	/** for how many milliseconds to ask the server has failed; missing: it has never answered */
	silence?: number;
}

@Injectable()
export class LeaderElectionHealthIndicator {
	constructor(@Inject(LeaderElectorService) private readonly elector: LeaderElectorService) {}

	/** Down if to ask the server has failed for a lease, or it has never answered. */
	check<K extends string = "leaderElection">(key = "leaderElection" as K): Record<K, ElectionHealth> {
		const { lockId, instanceId, token, silence, leaseDuration } = this.elector;
		const isUp = silence !== undefined && silence < leaseDuration;
		const health: ElectionHealth = {
			status: isUp ? "up" : "down",
			leads: token !== undefined,
			lockId,
			instance: instanceId,
			...(token !== undefined && { token: String(token) }),
			...(silence !== undefined && { silence: Math.round(silence) }),
		};
		const result = { [key]: health } as Record<K, ElectionHealth>;

		if (!isUp && wantsErrors())
			throw Object.assign(new Error("the server of the election does not answer"), {
				isHealthCheckError: true,
				causes: result,
			});
		return result;
	}
}

/** Until terminus 10 an indicator throws what is down; from 11 on it returns it. */
function wantsErrors(): boolean {
	try {
		return !("HealthIndicatorService" in (require("@nestjs/terminus") as object));
	} catch {
		return false;
	}
}
