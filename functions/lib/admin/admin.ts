import type { Workflows } from '../aws/step-functions.ts';
import { type ControlConnection, withConnection } from '../database/connect.ts';
import { type ControlPlane, catalogEndpoint } from '../lifecycle/control-plane.ts';
import type { Release } from '../migrations/release.ts';
import type { AdminSettings } from '../settings.ts';

/** What the admin API works with; built once by its handler. */
export interface Admin {
  readonly plane: ControlPlane;
  readonly workflows: Workflows;
  /** The migrations of this deployment; read when they are first asked for. */
  readonly release: () => Promise<Release>;
  /** Without what `plane` is made of. */
  readonly settings: Omit<
    AdminSettings,
    'catalog' | 'extensions' | 'credentials' | 'contextKeySecret' | 'tls'
  >;
}

export const withCatalog = <T>({ plane }: Admin, work: (catalog: ControlConnection) => Promise<T>) =>
  withConnection(catalogEndpoint(plane), work);
