-- What the comparison after a switch has found. Run as tenancy_keeper.

alter table catalog.moves
  -- When both homes were seen to hold the same after the switch. Before that no move completes by itself.
  add column compared_at timestamptz,
  -- Keys of the rows that differ, as the operator reads them; null again once they don't.
  add column differs text;
