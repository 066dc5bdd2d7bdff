/** How many runs in a row something that shows isolation was left undone, by its name. */
export type Undone = Readonly<Record<string, number>>;

/** So often in a row it is no moment's trouble any more: whoever keeps the watch from looking could hide behind that. */
export const tooOften = 3;

export interface Tally {
  /** @returns how many runs in a row it was left undone, with this one */
  note(name: string, isDone: boolean): number;
  /** For the next run. */
  readonly undone: Undone;
}

/** What was not in this run's turn keeps its number. */
export function tallyFrom(before: Undone): Tally {
  const undone: Record<string, number> = { ...before };
  return {
    undone,
    note(name, isDone) {
      const times = isDone ? 0 : (undone[name] ?? 0) + 1;
      if (isDone) delete undone[name];
      else undone[name] = times;
      return times;
    },
  };
}
