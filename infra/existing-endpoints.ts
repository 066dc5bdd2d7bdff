import type { z } from 'zod';
import { type Service, serviceNames } from './rights.ts';

/** What the settings say of an existing VPC's endpoints. */
interface Endpoints {
  readonly routeTableIds?: readonly string[] | undefined;
  readonly endpointSecurityGroupId?: string | undefined;
  readonly endpointsThere?: readonly Service[] | undefined;
}

/** Absent: all are there where only a group is given, none where only route tables are. */
export function endpointsThere(existing: Endpoints): readonly Service[] {
  const isAllThere = existing.endpointSecurityGroupId !== undefined && !existing.routeTableIds;
  return existing.endpointsThere ?? (isAllThere ? serviceNames : []);
}

/** Of a VPC that is there: each service has an endpoint or gets one, and what is there has its group. */
export function endpointsAreComplete(existing: Endpoints, context: z.RefinementCtx): void {
  const { routeTableIds, endpointSecurityGroupId, endpointsThere: named } = existing;
  const there = endpointsThere(existing);
  const fault = (message: string) => context.addIssue({ code: 'custom', message });
  if (named === undefined && !routeTableIds === !endpointSecurityGroupId)
    fault(
      'needs routeTableIds (endpoints are made) or endpointSecurityGroupId (they are there); where some are, endpointsThere names them',
    );
  else if (!there.includes('s3') && !routeTableIds)
    fault('needs routeTableIds for the endpoint of S3, or s3 in endpointsThere');
  else if (there.some((service) => service !== 's3') && !endpointSecurityGroupId)
    fault('needs endpointSecurityGroupId, the group of the endpoints that are there');
}
