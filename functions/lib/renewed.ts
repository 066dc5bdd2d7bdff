/** Keys are changed while a function's environments live: until then, ms, they may work with what they have read. */
const renewedAfter = 5 * 60_000;

/**
 * What a function works with, made anew every few minutes; `fresh`: at once, because what there is was refused. When that
 * fails it goes on with what it has; a failure alone is not remembered.
 */
export function renewed<T>(make: () => Promise<T>, clock = Date.now): (fresh?: boolean) => Promise<T> {
  let known: { readonly made: Promise<T>; readonly until: number } | undefined;
  return (fresh = false) => {
    if (!fresh && known !== undefined && clock() < known.until) return known.made;
    const before = known?.made;
    const made = make().catch((error) => {
      if (before !== undefined) return before;
      known = undefined;
      throw error;
    });
    known = { made, until: clock() + renewedAfter };
    return made;
  };
}

/** The same, first made while the function loads. What fails there is tried again, and told, by whoever needs it first. */
export async function renewedFromStart<T>(make: () => Promise<T>): Promise<() => Promise<T>> {
  const current = renewed(make);
  await current().catch(() => {});
  return current;
}
