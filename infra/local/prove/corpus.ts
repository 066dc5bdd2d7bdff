import type { Theme } from './attack.ts';
import { context } from './corpus/context.ts';
import { locks } from './corpus/locks.ts';
import { reading } from './corpus/reading.ts';
import { residuals } from './corpus/residuals.ts';
import { rights } from './corpus/rights.ts';
import { learning, server } from './corpus/server.ts';
import { writing } from './corpus/writing.ts';

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
