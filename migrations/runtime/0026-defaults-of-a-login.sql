-- `admit` undoes four more defaults that a login may give itself: how abbreviated time zones are read, whether a commit is kept, and
-- whether values are logged, in errors and in plans.
-- Run as tenancy_keeper.

do $$
declare
  definition text;
begin
  definition := replace(replace(pg_get_functiondef('tenancy.open_home(text)'::regprocedure),
    $sql$current_setting('xmloption')) <> 'ISO, MDY|postgres|hex|off|on|0|on|on|1|content' then$sql$,
    $sql$current_setting('xmloption'), current_setting('timezone_abbreviations'), current_setting('log_parameter_max_length_on_error'),
       current_setting('debug_print_plan'), current_setting('synchronous_commit')) <> 'ISO, MDY|postgres|hex|off|on|0|on|on|1|content|Default|0|off|on' then$sql$),
    $sql$    set local xmloption = content;
$sql$, $sql$    set local xmloption = content;
    set local timezone_abbreviations = 'Default';
    set local log_parameter_max_length_on_error = 0;
    set local debug_print_plan = off;
    if current_setting('synchronous_commit') in ('off', 'local', 'remote_write') then
      set local synchronous_commit = on;
    end if;
$sql$);
  if position('synchronous_commit'')) <>' in definition) = 0 or position('set local synchronous_commit' in definition) = 0 then
    raise exception 'tenancy.open_home is not what 0012 made it';
  end if;
  execute definition;
end
$$;
