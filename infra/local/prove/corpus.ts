import type { Theme } from './attack.ts';
import { context } from './corpus/context.ts';
import { locks } from './corpus/locks.ts';
import { residuals } from './corpus/residuals.ts';
import { rights } from './corpus/rights.ts';
import { reading, writing } from './corpus/rows.ts';
import { learning, server } from './corpus/server.ts';

/** Everything that is tried. What an injection in a tool could do, and more: any statements, in any order, on the tool's login. */
export const corpus: readonly Theme[] = [
  context,
  reading,
  writing,
  rights,
  learning,
  server,
  locks,
  residuals,
];
