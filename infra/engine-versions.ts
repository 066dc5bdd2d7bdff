import { Annotations } from 'aws-cdk-lib';
import type { IConstruct } from 'constructs';
import { versionFloors } from '../functions/lib/health/audit-server.ts';
import type { Settings } from './settings.ts';

/** A server of such a version has a hole that the canary knows: `GET /health` would say `degraded` from its first day on. */
export function isBelowFloor(version: string): boolean {
  const [major, minor] = version.split('.').map(Number) as [keyof typeof versionFloors, number];
  return major * 10_000 + minor < versionFloors[major];
}

/** Says it where the version is chosen. No refusal: an upgrade of a server must not be what a deployment waits for. */
export function warnOfHoles(scope: IConstruct, { cluster, dedicated }: Settings): void {
  for (const [setting, version] of [
    ['cluster.engineVersion', cluster.engineVersion],
    ['dedicated.engineVersion', dedicated.engineVersion],
  ] as const)
    if (isBelowFloor(version))
      Annotations.of(scope).addWarningV2(
        `tenantry:${setting}`,
        `PostgreSQL ${version} (tenantry.${setting}) has a hole that any SQL user can use (CVE-2026-6473): the canary will say degraded. Choose a newer minor version.`,
      );
}
