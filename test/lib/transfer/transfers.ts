import { pathToFileURL } from 'node:url';
import { runStep } from '../../../functions/lib/lifecycle/step.ts';
import {
  beginExport,
  beginImport,
  transferKinds,
  transferSteps,
} from '../../../functions/lib/lifecycle/transfer.ts';
import type { World } from '../../support/world.ts';

interface Whose {
  readonly id: Parameters<typeof beginExport>[1];
  readonly slug: string;
}
interface StepMore {
  readonly clock?: () => number;
  readonly input?: Readonly<Record<string, unknown>>;
  readonly partBytes?: number;
}

/** Exports and imports of a world that is there by the time they begin, step by step. */
export const transfersOf = (world: () => World) => ({
  step: (operation: string, step: string, { clock = Date.now, input = {}, ...more }: StepMore = {}) =>
    runStep(
      { plane: world().plane, clock, ...more },
      { operation, step, input },
      transferKinds,
      transferSteps,
    ),

  /** @returns the operation */
  async exportTo({ id, slug }: Whose, path: string): Promise<string> {
    const request = { slug, to: pathToFileURL(path).href };
    const begun = await world().asProvisioner('catalog', (catalog) => beginExport(catalog, id, request));
    return begun.operationId;
  },

  /** @returns the operation */
  async importFrom({ id, slug }: Whose, path: string, otherTenant = false): Promise<string> {
    const request = { slug, from: pathToFileURL(path).href, otherTenant };
    const begun = await world().asProvisioner('catalog', (catalog) => beginImport(catalog, id, request));
    return begun.operationId;
  },
});
