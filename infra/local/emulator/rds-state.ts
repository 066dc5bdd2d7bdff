/** Instances and snapshots as the state file keeps them. */
export interface RdsState {
  instances: Record<string, Instance>;
  snapshots: Record<string, { instance: string; createdAt: number }>;
}

export type InstanceStatus =
  | 'creating'
  | 'backing-up'
  | 'available'
  | 'modifying'
  | 'stopping'
  | 'stopped'
  | 'starting'
  | 'deleting'
  | 'failed';

/** One DB instance as it is stored. */
export interface Instance {
  identifier: string;
  arn: string;
  resourceId: string;
  region: string;
  status: InstanceStatus;
  masterUsername: string;
  /** Until the master role exists with it. */
  pendingPassword?: string | undefined;
  /** Of the secret that RDS manages. */
  secretArn?: string | undefined;
  dbName?: string | undefined;
  /** Chosen once: an endpoint never changes. */
  port: number;
  createdAt: number;
  tags: { Key: string; Value: string }[];
  deletionProtection: boolean;
  /** The name that its data is kept under while it is being deleted. */
  finalSnapshot?: string | undefined;
  /** Given at creation and shown by Describe, without an effect on one machine. */
  shown: Record<string, unknown>;
}
